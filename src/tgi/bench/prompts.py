"""Prompts that no cache has seen: random words of a given length in tokens, or random token ids.

Owns lengths, words and how many words make how many tokens.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so said what up its about "
    "into than them can only other time new some could these two may then do first any my now such like our over man "
    "me even most made after also did many before must through years where much your way well down should because "
    "each just those people how too little state good very make world still own see men work long get here between "
    "both life being under never day same another know while last might us great old year off come since against go "
    "came right used take three"
)
"""Short words that most tokenizers have as one token each, so that lengths vary little."""
SLACK_WORDS = 16


@dataclass(frozen=True)
class Lengths:
    """A length in tokens, or a range to draw from evenly."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """`128` or `64:512`. Raises ValueError."""
        match = re.fullmatch(r"([0-9]{1,7})(?::([0-9]{1,7}))?", text)
        if match is None:
            raise ValueError("a number of tokens such as 128, or a range such as 64:512, is needed")
        low, high = int(match[1]), int(match[2] or match[1])
        if low < 1 or high < low:
            raise ValueError("a range needs 1 <= low <= high")
        return cls(low, high)

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


@dataclass(frozen=True)
class Scale:
    """How many tokens the server's tokenizer makes of words: `fixed + words * per_word`."""

    per_word: float = 1.0
    fixed: float = 0.0
    """Begin of sequence, chat template."""

    @classmethod
    def of(cls, few: tuple[int, int], many: tuple[int, int]) -> Scale:
        """From two prompts: (words, tokens) each."""
        per_word = max((many[1] - few[1]) / (many[0] - few[0]), 0.1)
        return cls(per_word, max(few[1] - few[0] * per_word, 0.0))

    def words(self, tokens: int) -> int:
        """Words that make about `tokens` tokens, at least one."""
        return max(1, round((tokens - self.fixed) / self.per_word))

    def enough_words(self, tokens: int) -> int:
        """Words that surely make as many tokens; what is too much is cut off by the server."""
        return max(1, round(1.25 * tokens / self.per_word)) + SLACK_WORDS


def text(rng: random.Random, words: int) -> str:
    """So many random words: two prompts differ from their first words on."""
    return " ".join(rng.choices(WORDS.split(), k=words))


def ids(rng: random.Random, count: int, vocabulary: int) -> list[int]:
    """Random token ids. The first few hundred of a vocabulary are spared: special tokens and bytes."""
    return [rng.randrange(min(300, vocabulary // 2), vocabulary) for _ in range(count)]
