"""Plain sentences: introductions, letters, diary pages and small programs.

Many people try a model with a bare "Hello, " or "My name is", so this kind of
text makes up much of what the model sees without a chat around it.
"""

from __future__ import annotations

import random

from .common import listed, with_article
from .glossary import TERMS, long_answer
from .people import ANIMALS, CITIES, COLOURS, FOODS, HOBBIES, JOBS, NAMES, PRODUCTS

TIMES = ["Today", "Yesterday", "Last week", "On Sunday", "This morning", "In the evening"]
DEEDS = [
    "I went to the market",
    "I read a good book",
    "we walked along the river",
    "I met an old friend",
    "it rained all day",
    "we baked a cake",
    "I learned something new",
    "I took the train to {c}",
    "we visited {c}",
    "I worked in the garden",
]
FEELINGS = [
    "I was very happy.",
    "It was a good day.",
    "I felt a little tired.",
    "It was a lot of fun.",
    "I want to do it again.",
]
HOPES = [
    "I hope you are well.",
    "I hope to see you soon.",
    "Thank you for your letter.",
    "How are you?",
    "It is good to hear from you.",
]
CODE = [
    'def hello(name):\n    print("Hello, " + name)\n\n\nhello("{n}")',
    'print("Hello, world!")',
    "def add(a, b):\n    return a + b\n\n\nprint(add({x}, {y}))",
    "for i in range({x}):\n    print(i)",
    "def double(x):\n    return 2 * x\n\n\nprint(double({x}))",
]


def about_oneself(rng: random.Random) -> str:
    """Sentences of a person who says who they are."""
    animal = rng.choice(ANIMALS)
    sentences = [
        f"I am {with_article(rng.choice(JOBS))} and I live in {rng.choice(CITIES)}.",
        f"I am {rng.randint(18, 80)} years old.",
        f"I like {listed(rng.sample(HOBBIES, rng.randint(1, 3)))}.",
        f"I have {with_article(animal)} named {rng.choice(NAMES)}.",
        f"My favorite color is {rng.choice(COLOURS)}.",
        f"I often eat {listed(rng.sample(FOODS, 2))}.",
        f"I would like to visit {rng.choice(CITIES)} one day.",
    ]
    opening = rng.choice(("My name is {n}.", "I am {n}.")).format(n=rng.choice(NAMES))
    return " ".join([opening, *rng.sample(sentences, rng.randint(1, 5))])


def diary(rng: random.Random) -> str:
    """What a person did, in a few sentences."""
    deeds = rng.sample(DEEDS, rng.randint(1, 4))
    lines = [f"{rng.choice(TIMES)}, {deed.format(c=rng.choice(CITIES))}. {rng.choice(FEELINGS)}" for deed in deeds]
    return " ".join(lines)


def greeting(rng: random.Random) -> str:
    """Text that begins with a greeting and goes on as speech or as a letter."""
    name, other = rng.sample(NAMES, 2)
    first = about_oneself(rng)
    kind = rng.random()
    word = rng.choice(("Hello", "Hello", "Hello", "Hi"))
    if kind < 0.45:
        # After "Hello, " the sentence goes on in lower case, but "I" stays as it is.
        return f"{word}, {first if first.startswith('I ') else first[0].lower() + first[1:]}"
    if kind < 0.6:
        rest = rng.choice(
            (
                "how are you today?",
                "how are you?",
                "it is nice to meet you.",
                "can you help me?",
                "welcome to my home.",
                "this is {n}.",
                "I am glad to see you.",
            )
        ).format(n=name)
        return f"{word}, {rest} {rng.choice((first, rng.choice(HOPES), diary(rng)))}"
    if kind < 0.75:
        return f"{word}, {name}! {rng.choice(HOPES)} {diary(rng)}"
    if kind < 0.8:
        return rng.choice(
            ("Hello, world!", "Hello, world! This is a small demo model.", "Hello, everyone! Welcome to the demo.")
        )
    opening = rng.choice((f"Hello {name},", f"Dear {name},", f"Hi {name},"))
    body = f"{rng.choice(HOPES)} {diary(rng)} {rng.choice(HOPES)}"
    return f"{opening}\n\n{body}\n\n{rng.choice(('Your', 'Yours,', 'Best wishes,', 'Love,'))} {other}"


def description(rng: random.Random) -> str:
    """Sentences about another person and about a thing."""
    name, product = rng.choice(NAMES), rng.choice(PRODUCTS)
    sentences = [
        f"{name} is {with_article(rng.choice(JOBS))} from {rng.choice(CITIES)}.",
        f"{name} likes {listed(rng.sample(HOBBIES, 2))}.",
        f"{name} has a {rng.choice(COLOURS)} {product}.",
        f"The {product} costs {rng.randint(2, 99)} dollars.",
        f"{name} is {rng.randint(5, 90)} years old.",
    ]
    return " ".join(sentences[: rng.randint(1, 5)])


def essay(rng: random.Random) -> str:
    """Paragraphs about terms of machine learning, a few hundred tokens long."""
    terms = rng.sample(TERMS, rng.randint(4, 24))
    size = rng.randint(2, 4)
    paragraphs = [" ".join(long_answer(t) for t in terms[i : i + size]) for i in range(0, len(terms), size)]
    return rng.choice(("# Notes on machine learning\n\n", "", "")) + "\n\n".join(paragraphs)


def document(rng: random.Random) -> str:
    """One plain text of any of these kinds."""
    kind = rng.random()
    if kind < 0.5:
        return greeting(rng)
    if kind < 0.68:
        return about_oneself(rng)
    if kind < 0.8:
        return diary(rng)
    if kind < 0.88:
        return description(rng)
    if kind < 0.94:
        return essay(rng)
    return rng.choice(CODE).format(n=rng.choice(NAMES), x=rng.randint(1, 9), y=rng.randint(1, 9))
