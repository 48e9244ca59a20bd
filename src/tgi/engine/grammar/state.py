"""Where one answer is in its grammar. Follows the answer's tokens, whatever becomes of its blocks. Imports no torch.

    tokens    [ known to the sequence ........ | forced ]
                                               ^ num_known

Where the grammar leaves only one text, its tokens are decided: `forced`, as the tokenizer would cut that text. They are
taken before the sequence has them, so that its next chunk can compute them all; which they are depends on the tokens
before alone, so that an answer is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from tgi.grammar import reason_of

Mask: TypeAlias = npt.NDArray[np.uint32]
"""A bit for each token, the first in the lowest bit of the first word."""
WORD = 32
ENDS = ("NoExtension", "NoExtensionBias", "EndOfSentence")
"""Reasons for llguidance to stop that are no trouble."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What all answers of an engine have in common."""

    ends: Mask
    """The mask of the tokens that end an answer."""
    forces: bool = True
    """Whether texts can be cut into tokens as the model knows them."""

    @property
    def words(self) -> int:
        """Of a mask."""
        return len(self.ends)


class GrammarState:
    """The matcher of one answer, and the tokens it has taken."""

    def __init__(self, matcher: LLMatcher, rules: Rules) -> None:
        """matcher: at the beginning, this answer's own."""
        self._matcher = matcher
        self._rules = rules
        self._tokens: list[int] = []
        self._num_known = 0
        self._begun = False

    @property
    def forced(self) -> list[int]:
        """Tokens that come next, one after another."""
        return self._tokens[self._num_known :]

    @property
    def error(self) -> str | None:
        """Why the answer cannot go on."""
        matcher = self._matcher
        if matcher.is_error():
            return f"the grammar cannot be followed: {reason_of(matcher.get_error())}"
        if matcher.is_stopped() and not self.forced:
            if matcher.stop_reason() not in ENDS:
                return f"the grammar takes too much work ({matcher.stop_reason()})"
            if not matcher.is_accepting():
                return "the grammar has come to a dead end"
        return None

    @property
    def drafts(self) -> list[int]:
        """What the next chunk may take along of the forced tokens: not one that completes the answer, since then the
        row behind it would give one more."""
        forced = self.forced
        return forced[:-1] if forced and self._nothing_follows() else forced

    @property
    def complete(self) -> bool:
        """The answer fits, and nothing can follow but its end."""
        return not self.forced and self.error is None and self._nothing_follows()

    def _nothing_follows(self) -> bool:
        """After the forced tokens."""
        matcher = self._matcher
        if matcher.is_error() or not matcher.is_accepting():
            return False
        if not matcher.is_stopped():  # llguidance may find out late
            mask = np.zeros(self._rules.words, np.uint32)
            self.fill(mask)
            mask &= ~self._rules.ends
            return not mask.any()
        return True

    def follow(self, tokens: list[int]) -> None:
        """The answer's tokens are these: usually those from before and one more."""
        taken = self._tokens
        if not self._begun:
            self._begun = True
            self._take_forced()
        same = _common(taken, tokens)
        while same < len(tokens) and not self._matcher.is_error():
            if same < len(taken):  # a step failed after it was taken note of, or the guess was wrong
                self._matcher.rollback(len(taken) - same)
                del taken[same:]
            self._take(tokens[same])
            same += 1
            while same < min(len(taken), len(tokens)) and taken[same] == tokens[same]:
                same += 1
        self._num_known = len(tokens)

    def fill(self, mask: Mask) -> None:
        """Write the mask of what may follow the last token, forced ones included."""
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)

    def peek(self, tokens: list[int]) -> int:
        """Take tokens that may turn out wrong; gives how many fit. `forget` them before anything else."""
        return self._matcher.try_consume_tokens(tokens)

    def forget(self, count: int) -> None:
        if count:
            self._matcher.rollback(count)

    def _take(self, token: int) -> None:
        self._tokens.append(token)
        if self._matcher.consume_token(token):
            self._take_forced()

    def _take_forced(self) -> None:
        if not self._rules.forces or self._matcher.is_stopped():
            return
        forced = self._matcher.compute_ff_tokens()
        if forced:
            count = self._matcher.try_consume_tokens(forced)
            self._tokens += forced[:count]


def mask_of(ids: Iterable[int], width: int) -> Mask:
    """The mask of these tokens, for `width` tokens."""
    mask = np.zeros(-(-width // WORD), np.uint32)
    for id in ids:
        allow(mask, id)
    return mask


def allow(mask: Mask, id: int) -> None:
    mask[id // WORD] |= np.uint32(1 << (id % WORD))


def _common(one: list[int], other: list[int]) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(index for index in range(length) if one[index] != other[index])
