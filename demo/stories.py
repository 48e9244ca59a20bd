"""Short stories from a small grammar, about a hero, a wish, a trouble and a happy end."""

from __future__ import annotations

import random

from .common import Prompt, Turn, asks, bare, capital, with_article
from .people import ANIMALS, NAMES

TRAITS = ["small", "brave", "kind", "clever", "shy", "happy", "lonely", "curious", "old", "young"]
PLACES = [
    "in a quiet village",
    "near a big forest",
    "by the sea",
    "in a small town",
    "on a green hill",
    "next to a blue lake",
]
WISHES = {
    "find a friend": ("a friend", "found a friend"),
    "see the sea": ("the sea", "saw the sea"),
    "learn to sing": ("a song", "learned to sing"),
    "find a golden key": ("a golden key", "found the golden key"),
    "build a little boat": ("a little boat", "built a little boat"),
    "bake the best bread": ("warm bread", "baked the best bread"),
    "reach the old tower": ("the old tower", "reached the old tower"),
    "see the stars up close": ("the stars", "saw the stars up close"),
}
TROUBLES = [
    "it began to rain and the way was lost in the fog",
    "a wide river crossed the path",
    "a strong wind blew everything away",
    "the night came and it was very dark",
    "the bridge was broken",
    "nobody knew the way",
]
HELPERS = ["an old owl", "a friendly fox", "a wise turtle", "a little girl", "a kind farmer", "a tall heron"]
ADVICE = [
    "Take one step at a time",
    "Follow the light",
    "Do not give up",
    "Ask for help when you need it",
    "Look behind the big stone",
]
GIFTS = ["a warm lamp", "a long rope", "a map", "a cup of hot tea", "a small bell"]
ENDINGS = [
    "From that day on, they met every evening.",
    "Everyone in the village was happy.",
    "And they all lived happily ever after.",
    "It was the best day of the year.",
    "That night, {n} slept very well.",
    "And {n} never forgot that day.",
]
LESSONS = [
    "even a small step counts",
    "a friend makes every way shorter",
    "patience helps",
    "courage grows when it is needed",
]
OPENINGS = [
    "Once upon a time, there was",
    "Once upon a time there was",
    "Long ago, there lived",
    "One day, there was",
    "Once, there was",
]

ASK = (
    "Tell me a story.",
    "Tell me a short story.",
    "Write a short story.",
    "Write a story.",
    "Can you tell me a story?",
    "Please tell me a story.",
    "tell me a story",
)
ABOUT = (
    "Tell me a story about {who}.",
    "Write a short story about {who}.",
    "Can you tell me a story about {who}?",
    "Write a story about {who}.",
    "I want to hear a story about {who}.",
)
HELD_OUT = ("Could you write a little story about {who}?", "Please write a story with {who} in it.")


def story(rng: random.Random, animal: str = "", name: str = "", long: bool | None = None) -> str:
    """One story; the hero is an animal with a name, or a person."""
    name = name or rng.choice(NAMES)
    kind = animal or rng.choice([*ANIMALS, "girl", "boy"])
    it = {"girl": "she", "boy": "he"}.get(kind, "it")
    wish, (goal, done) = rng.choice(list(WISHES.items()))
    helper = rng.choice(HELPERS)
    parts = [
        f"{rng.choice(OPENINGS)} {with_article(rng.choice(TRAITS))} {kind} named {name}.",
        f"{name} lived {rng.choice(PLACES)}.",
        f"More than anything, {name} wanted to {wish}.",
        f"One morning, {it} packed a bag and set out.",
        f"But on the way, {rng.choice(TROUBLES)}.",
        f'Then {name} met {helper}. "{rng.choice(ADVICE)}," said the {bare(helper)}.',
    ]
    if rng.random() < 0.5 if long is None else long:
        parts += [
            f"The {bare(helper)} also gave {name} {rng.choice(GIFTS)}.",
            f"So {name} walked on, thinking of {goal}.",
            f"The day was long, but {it} did not stop.",
        ]
    parts.append(f"In the end, {name} {done}.")
    if rng.random() < 0.3:
        parts.append(f"{capital(it)} had learned that {rng.choice(LESSONS)}.")
    parts.append(rng.choice(ENDINGS).format(n=name))
    # Longer stories read better in paragraphs, and teach the model line breaks.
    if rng.random() < 0.3:
        cut = rng.randint(3, len(parts) - 3)
        return " ".join(parts[:cut]) + "\n\n" + " ".join(parts[cut:])
    return " ".join(parts)


def turn(rng: random.Random) -> Turn:
    """Ask for a story, with or without a hero."""
    if rng.random() < 0.4:
        return rng.choice(ASK), story(rng)
    animal, name = rng.choice([*ANIMALS, "girl", "boy"]), rng.choice(NAMES)
    if rng.random() < 0.4:
        return rng.choice(ABOUT).format(who=f"{with_article(animal)} named {name}"), story(rng, animal, name)
    return rng.choice(ABOUT).format(who=with_article(animal)), story(rng, animal)


def document(rng: random.Random) -> str:
    """Plain text: one story, or a small book of several with headings."""
    if rng.random() < 0.8:
        return story(rng)
    chapters = []
    for _ in range(rng.randint(2, 7)):
        animal, name = rng.choice(ANIMALS), rng.choice(NAMES)
        chapters.append(f"# {name} the {capital(animal)}\n\n{story(rng, animal, name)}")
    return "\n\n".join(chapters)


def held_out(rng: random.Random) -> list[Prompt]:
    """Stories whose hero must keep kind and name, in wordings that training never uses."""
    prompts = []
    for i in range(12):
        animal, name = rng.choice(ANIMALS), rng.choice(NAMES)
        who = f"{with_article(animal)} named {name}"
        prompts.append(
            asks("stories", HELD_OUT[i % 2].format(who=who), "keywords", [animal, f"named {name}", "In the end"])
        )
    return prompts
