"""Tasks on the letters of a word: spelling, reversing, counting, echoing, sorting."""

from __future__ import annotations

import random

from .common import Prompt, Turn, asks, capital, listed, made_up, reserved, weighted, word_list

WORDS = word_list("""
cat dog sun moon star tree book lamp door fish bird ship road rain snow wind fire water stone house apple bread milk
cheese lemon grape plum pear peach melon horse mouse sheep goat duck swan lion tiger bear wolf frog snake spider table
chair bed cup plate spoon fork knife bowl clock phone pen paper desk wall floor roof garden river lake sea hill field
forest beach island cloud storm summer winter spring autumn day night week month year hour red blue green black white
brown pink gray gold silver happy sad big small fast slow warm cold old new young good bad tall short long light dark
soft hard sweet sour train plane car bus bike boat truck street bridge tower castle king queen prince farmer baker
doctor nurse pilot singer dancer writer reader teacher friend mother father sister brother music song dance game ball
doll toy coat hat shoe sock shirt glove ring box bag key coin letter stamp map flag drum flute piano violin paint
model token layer batch data code text word line page test score loss train learn think write read walk run jump swim
sing play work rest sleep dream smile laugh hello world planet rocket robot engine wheel metal glass wood sand salt
sugar honey butter pepper onion carrot potato tomato bean rice corn soup cake pie cookie candy orange banana cherry
""")
WORDS = sorted(set(WORDS))
SHORT_WORDS = [word for word in WORDS if 3 <= len(word) <= 6]

SPELL = (
    'Spell the word "{w}".',
    'Spell "{w}".',
    "Spell {w}.",
    "Spell the word {w}.",
    "How do you spell {w}?",
    'How do you spell "{w}"?',
    "Can you spell {w}?",
    "spell {w}",
)
REVERSE = (
    'Reverse the word "{w}".',
    'Reverse "{w}".',
    "Reverse the word {w}.",
    "Reverse {w}.",
    "Write {w} backwards.",
    'What is "{w}" spelled backwards?',
    'Spell "{w}" backwards.',
    "Can you reverse the word {w}?",
)
LENGTH = (
    'How many letters are in "{w}"?',
    "How many letters does the word {w} have?",
    "How long is the word {w}?",
    "Count the letters in {w}.",
)
FIRST = ('What is the first letter of "{w}"?', "What is the first letter of {w}?", "Which letter does {w} start with?")
LAST = ('What is the last letter of "{w}"?', "What is the last letter of {w}?", "Which letter does {w} end with?")
ECHO = ('Say "{w}".', "Repeat after me: {w}", "Repeat: {w}", "Say it again: {w}", "Echo: {w}")
UPPER = ('Write "{w}" in capital letters.', "Write {w} in upper case.", 'Make "{w}" upper case.')
SORT = ("Sort these words: {ws}.", "Put these words in alphabetical order: {ws}.", "Sort alphabetically: {ws}")

LETTER_TASKS = {"spell": 5, "reverse": 8, "length": 3, "first": 2, "last": 2, "upper": 2, "echo": 4}


def spelled(word: str) -> str:
    """The letters of the word with hyphens between them."""
    return "-".join(word)


def solve(task: str, word: str) -> str:
    """The answer to one task on a word."""
    if task == "spell":
        return spelled(word)
    if task == "reverse":
        # Spelling first gives the model room to work letter by letter.
        return f"{spelled(word)} backwards is {spelled(word[::-1])}: {word[::-1]}"
    if task == "length":
        return f"{spelled(word)}: {len(word)} letters."
    if task in ("first", "last"):
        return f'The {task} letter of "{word}" is {word[0] if task == "first" else word[-1]}.'
    return word.upper()


WORDINGS = {"spell": SPELL, "reverse": REVERSE, "length": LENGTH, "first": FIRST, "last": LAST, "upper": UPPER}


def some_words(rng: random.Random) -> str:
    """A few words without sense, to be said again: the purest exercise in copying."""
    pool = (
        lambda: rng.choice(WORDS),
        lambda: made_up(rng),
        lambda: capital(made_up(rng)),
        lambda: str(rng.randint(0, 99)),
    )
    return " ".join(rng.choices(pool, weights=(5, 5, 2, 1))[0]() for _ in range(rng.choice((1, 1, 2, 3, 4, 6, 9))))


def turn(rng: random.Random) -> Turn:
    """One task on letters."""
    if rng.random() < 0.1:
        words = sorted(rng.sample(WORDS, rng.randint(2, 4)))
        while reserved("sort", *words):
            words = sorted(rng.sample(WORDS, rng.randint(2, 4)))
        shuffled = rng.sample(words, len(words))
        return rng.choice(SORT).format(ws=", ".join(shuffled)), ", ".join(words)
    task = weighted(rng, LETTER_TASKS)
    if task == "echo":
        phrase = some_words(rng)
        return rng.choice(ECHO).format(w=phrase), phrase
    while True:
        real = rng.random() < 0.55
        word = rng.choice(SHORT_WORDS if task == "reverse" else WORDS) if real else made_up(rng, 6)
        if not reserved(task, word):
            return rng.choice(WORDINGS[task]).format(w=word), solve(task, word)


def document(rng: random.Random) -> str:
    """Plain text: words with their letters, or a short word list."""
    words = [word for word in rng.sample(WORDS, rng.randint(3, 8)) if not reserved("spell", word)]
    if rng.random() < 0.4:
        return "\n".join(f"{word}: {spelled(word)}" for word in words)
    if rng.random() < 0.6:
        phrase = some_words(rng)
        return "\n".join([phrase] * rng.randint(2, 3))
    return f"Here are some words: {listed(words or ['word'])}."


def held_out(rng: random.Random) -> list[Prompt]:
    """Words that training never shows in the same task."""
    prompts = []
    for task, count in {"spell": 8, "reverse": 8, "length": 3, "first": 3, "last": 3}.items():
        pool = [word for word in SHORT_WORDS if reserved(task, word)]
        for word in rng.sample(pool, min(count, len(pool))):
            prompts.append(asks("words", WORDINGS[task][0].format(w=word), "exact", solve(task, word)))
    return prompts
