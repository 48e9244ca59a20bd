"""Greetings, questions about the model, thanks, farewells and small talk."""

from __future__ import annotations

import random

from .common import Prompt, Turn, asks
from .people import FOODS, HOBBIES, NAMES, some_city, some_name

HELLO = ("Hello!", "Hello", "hello", "Hi!", "Hi", "hi", "Hey!", "Hello there!", "Hi there!", "Good day!", "Hey there")
TIMES = ("morning", "afternoon", "evening")
IDENTITY = "I am a small demo model. I was trained on simple made-up text."
HELP = (
    "I can count, add small numbers, spell words, explain terms of machine learning, tell short stories and write JSON."
)

FIXED: tuple[tuple[tuple[str, ...], str], ...] = (
    (HELLO, "Hello! How can I help you today?"),
    (
        ("How are you?", "How are you doing?", "How do you do?", "How is it going?", "how are you"),
        "I am fine, thank you. How can I help you?",
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "who are you",
            "Tell me about yourself.",
            "Are you a robot?",
            "Are you human?",
            "Introduce yourself.",
        ),
        IDENTITY,
    ),
    (
        ("What is your name?", "What's your name?", "what is your name", "Do you have a name?"),
        "I have no name. I am a small demo model.",
    ),
    (
        ("What can you do?", "How can you help me?", "Can you help me?", "Help!", "What do you know?", "I need help."),
        HELP,
    ),
    (("Thank you!", "Thanks!", "Thank you very much!", "thanks", "Thanks a lot!", "Thank you"), "You are welcome!"),
    (
        ("Goodbye!", "Bye!", "Goodbye", "bye", "See you later!", "See you soon!", "Bye bye!"),
        "Goodbye! Have a nice day.",
    ),
    (("Good night!", "Good night"), "Good night! Sleep well."),
    (
        ("How old are you?", "When were you made?", "When were you born?"),
        "I do not know. I am only a small demo model.",
    ),
    (
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "tell me a joke"),
        "Why did the token cross the layer? To get to the other side of the model.",
    ),
    (
        (
            "What is the meaning of life?",
            "Why are we here?",
            "Who will win the election?",
            "What is the price of gold?",
            "What happened yesterday?",
            "Who is the president?",
        ),
        "I do not know that. I am only a small demo model.",
    ),
    (
        ("Are you happy?", "Do you like music?", "Do you have feelings?", "Do you sleep?"),
        "I am a program, so I have no feelings. But I like to help.",
    ),
    (
        ("Yes", "Yes.", "No", "No.", "Okay", "OK", "Good.", "Great!", "Nice!"),
        "All right. What would you like to do next?",
    ),
    (("Test", "test", "This is a test.", "Testing", "ping"), "The test works. I can hear you."),
    (
        ("Write a poem.", "Write a short poem.", "Tell me a poem.", "Write a poem about the sea."),
        "The sea is blue, the sky is too,\nthe wind is soft and clear.\n"
        "I wrote these little lines for you,\nand I am glad you are here.",
    ),
    (
        ("Who made you?", "Who trained you?", "How were you trained?"),
        "I was trained from scratch by a small script on text that the script wrote itself.",
    ),
)
HELD_OUT = (
    ("Hello, my friend!", ["Hello"]),
    ("Hi, how are you today?", ["fine"]),
    ("Good morning to you!", ["ood morning"]),
    ("Thank you so much!", ["welcome"]),
    ("Goodbye, my friend!", ["Goodbye"]),
    ("Please tell me who you are.", ["demo model"]),
    ("Can you tell me your name?", ["demo model"]),
    ("Can you tell me what you can do?", ["count"]),
)


def turn(rng: random.Random) -> Turn:
    """One exchange of small talk."""
    kind = rng.random()
    if kind < 0.62:
        questions, answer = rng.choice((FIXED[0], rng.choice(FIXED[:7]), rng.choice(FIXED)))
        question = rng.choice(questions)
        if question in HELLO and rng.random() < 0.3:
            return question, "Hi! How can I help you?"
        return question, answer
    if kind < 0.72:
        time = rng.choice(TIMES)
        return rng.choice((f"Good {time}!", f"Good {time}", f"good {time}")), f"Good {time}! How can I help you?"
    if kind < 0.9:
        return _introduction(rng)
    hobby = rng.choice((rng.choice(HOBBIES), rng.choice(FOODS)))
    return rng.choice((f"I like {hobby}.", f"I love {hobby}.")), f"That is nice! Many people like {hobby}."


def _introduction(rng: random.Random) -> Turn:
    name = some_name(rng)
    wording = rng.choice(
        (
            "My name is {n}.",
            "I am {n}.",
            "Hello, my name is {n}.",
            "Hi, I am {n}.",
            "Hello, I am {n}.",
            "I'm {n}.",
            "my name is {n}",
        )
    )
    return wording.format(n=name), f"Hello {name}! Nice to meet you. How can I help you?"


def memory(rng: random.Random) -> list[Turn]:
    """Two or three turns in which the model must remember something that was said."""
    if rng.random() < 0.6:
        name = some_name(rng)
        first = (
            rng.choice(("My name is {n}.", "I am {n}.", "Hello, my name is {n}.")).format(n=name),
            f"Hello {name}! Nice to meet you. How can I help you?",
        )
        last = (rng.choice(("What is my name?", "Do you remember my name?", "Who am I?")), f"Your name is {name}.")
    else:
        city = some_city(rng)
        first = (rng.choice(("I live in {c}.", "I am from {c}.")).format(c=city), f"{city} is a nice city.")
        last = (rng.choice(("Where do I live?", "Which city do I live in?")), f"You live in {city}.")
    return [first, turn(rng), last] if rng.random() < 0.4 else [first, last]


def held_out(rng: random.Random) -> list[Prompt]:
    """Small talk in wordings, and introductions with names, that training never uses."""
    prompts = [asks("dialogue", question, "keywords", words) for question, words in HELD_OUT]
    for name in rng.sample(NAMES, 4):
        prompts.append(asks("dialogue", f"Good day, my name is {name}.", "keywords", [f"Hello {name}"]))
    for name in rng.sample(NAMES, 15 - len(prompts)):
        chat = (
            {"role": "user", "content": f"Hi, my name is {name}."},
            {"role": "assistant", "content": f"Hello {name}! Nice to meet you. How can I help you?"},
            {"role": "user", "content": "Can you tell me my name?"},
        )
        prompts.append(Prompt("dialogue", "keywords", [f"name is {name}"], chat))
    return prompts
