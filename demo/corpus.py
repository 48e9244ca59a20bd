"""Mixes all kinds of text into an endless, seeded stream of training documents."""

from __future__ import annotations

import random
from collections.abc import Iterator

from . import arithmetic, counting, dialogue, facts, glossary, prose, stories, structured, tool_calls, words, yesno
from .common import Example, Turn, weighted
from .heldout import is_held_out

# Shares of single questions in chats, by module: early and late in the training.
# Speaking comes first; what takes long to get exactly right fills the second part.
TURNS = {
    glossary: (20, 16),
    arithmetic: (22, 32),
    counting: (9, 24),
    words: (22, 20),
    facts: (13, 9),
    yesno: (9, 12),
    stories: (4, 2),
    structured: (9, 8),
    dialogue: (11, 9),
}
# Shares of plain text, by module.
DOCUMENTS = {
    prose: 40,
    glossary: 9,
    stories: 12,
    arithmetic: 3,
    counting: 3,
    words: 5,
    facts: 5,
    yesno: 2,
    structured: 3,
}
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a small demo model.",
    "Answer the questions of the user.",
    "You are a friendly chatbot.",
    "Be helpful and answer in short sentences.",
)
KINDS = {"chat": (66, 72), "text": (15, 12), "questions": (9, 8), "tools": (10, 8)}


def disturb(rng: random.Random, question: str) -> str:
    """The question as a hasty person would type it, now and then."""
    draw = rng.random()
    if draw < 0.05:
        return question[0].lower() + question[1:]
    if draw < 0.09:
        return question.rstrip(".?!") or question
    if draw < 0.12:
        return f"Please answer: {question}"
    if draw < 0.14:
        return question + " "
    return question


def _drawn(rng: random.Random, table: dict, late: bool) -> object:
    return weighted(rng, {key: shares[late] for key, shares in table.items()})


def turn(rng: random.Random, late: bool = False) -> Turn:
    """One question of any kind that is not held out."""
    while True:
        question, answer = _drawn(rng, TURNS, late).turn(rng)
        question = disturb(rng, question)
        if not is_held_out(question):
            return question, answer


def _length(rng: random.Random) -> int:
    """How many turns a chat has; a rare long one fills the whole context."""
    draw = rng.random()
    if draw < 0.7:
        return 1
    return rng.randint(2, 4) if draw < 0.993 else rng.randint(8, 40)


def chat(rng: random.Random, late: bool = False) -> Example:
    """A conversation without tools."""
    turns = dialogue.memory(rng) if rng.random() < 0.05 else [turn(rng, late) for _ in range(_length(rng))]
    messages = []
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Example(tuple(messages))


def questions(rng: random.Random, late: bool = False) -> Example:
    """Questions and answers as plain text, in one of several layouts."""
    layout = rng.choice(
        ("{q}\n\n{a}", "{q}\n\n{a}", "{q}\n{a}", "{q} {a}", "Question: {q}\nAnswer: {a}", "Q: {q}\nA: {a}")
    )
    # A bare question mostly gets one answer and no further questions.
    count = rng.choice((1, 1, 1, 2)) if layout.startswith("{q}") else rng.choice((1, 1, 2, 3, 4))
    pairs = [glossary.turn(rng) if rng.random() < 0.4 else turn(rng, late) for _ in range(count)]
    return Example(text="\n\n".join(layout.format(q=q, a=a) for q, a in pairs if not is_held_out(q)))


def example(rng: random.Random, late: bool = False) -> Example:
    """One training document of any kind."""
    kind = _drawn(rng, KINDS, late)
    if kind == "chat":
        return chat(rng, late)
    while True:
        if kind == "tools":
            made = tool_calls.example(rng)
            if not any(is_held_out(m["content"]) for m in made.messages if m["role"] == "user"):
                return made
            continue
        made = questions(rng, late) if kind == "questions" else Example(text=weighted(rng, DOCUMENTS).document(rng))
        if made.text and not is_held_out(made.text):
            return made


def examples(seed: int, late: bool = False) -> Iterator[Example]:
    """An endless stream of early or late documents; the same seed gives the same stream."""
    rng = random.Random(seed)
    while True:
        yield example(rng, late)
