"""How much prefill a step may carry, learned from how long steps took.

Owns two measurements: the seconds of a step that only decodes, by its number of sequences, and the
seconds that a prompt token adds to a step, by how much context it attends to. Decides how many prompt
tokens join a step in which others stream. Imports no torch, reads no clock.

    decode step      | d d d d |                          measured: 1
    mixed step       | d d d d | prompt chunk ... |       at most SLOWDOWN

Prompts that arrived before anybody streamed hold up nobody who came first: they are limited only to what
keeps the machine busy (BURST_TOKENS, BURST_S), so that the first of a burst need not wait for the last.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

SLOWDOWN = 2.0
"""Bound on the time of a step that prefills, as a multiple of one that only decodes: half of the time goes to
the prompts, and the worst gap between two tokens stays below three usual ones."""
SETTLED_TOKENS = 8
"""Tokens from which a stream counts: the prompts of a burst that arrive within a few steps of each
other are computed at full speed, or the first of them would hold up all others."""
BURST_TOKENS = 256
"""Rows in a step after which more of them take proportionally longer; what the native kernels compute in one go."""
REMAINDER_TOKENS = BURST_TOKENS // 8
"""A prompt that would have fewer tokens left than this is finished in the same step."""
BURST_S = 0.05
"""Seconds of prompt work that a faster machine takes in one step: there a step costs more than its rows."""
CHUNK_QUANTUM = 16
"""Limited chunks are multiples of this many tokens (rows of a kernel's tile), and at least one of them."""
SAMPLES = 5
"""Decode steps of one size remembered; their median counts, so a disturbed step changes nothing."""
REFRESH_STEPS = 32
"""Mixed steps in a row after which one step only decodes, to be measured: contexts grow meanwhile."""
LEAST_PURE_CHUNK = 64
"""Tokens from which a step without decodes tells the price of a token; below, reading the weights dominates."""


class Pace:
    """The measurements, and what follows from them for the next step."""

    def __init__(self) -> None:
        self._decode_steps: dict[int, deque[float]] = {}  # size class -> seconds, the last few
        self._mixed_since: dict[int, int] = {}  # size class -> mixed steps since the last that only decoded
        self._cost = PrefillCost()
        self._timed = False

    def share(self, tokens: int, decodes: int, settled: bool) -> Share:
        """What prompts may take of a step that decodes `decodes` sequences.

        tokens: what the budget leaves. settled: whether any of the decodes is a stream on its way.
        """
        return Share(tokens, self._enough(decodes), self._seconds(decodes, settled), self._cost)

    def _enough(self, decodes: int) -> int | None:
        """Prompt tokens after which more of them take proportionally longer; None: not known yet."""
        if not self._cost.known:
            return None
        return max(BURST_TOKENS - decodes, BURST_TOKENS // 2, self._cost.tokens_within(BURST_S, 0))

    def _seconds(self, decodes: int, settled: bool) -> float | None:
        """What streams on their way leave to prompts that arrived after them; None: nothing."""
        if not self._timed or not decodes or not settled:
            return math.inf
        steps = self._decode_steps.get(_size_class(decodes))
        if steps is None or self._mixed_since[_size_class(decodes)] >= REFRESH_STEPS:
            return None  # measure first: one decode step
        return median(steps) * (SLOWDOWN - 1)

    def observe(self, decodes: int, tokens: int, context: int, seconds: float) -> None:
        """Book a step: rows that decode, prompt tokens, and the context those attend to, summed over them."""
        if seconds <= 0:
            return
        self._timed = True
        size = _size_class(decodes)
        if not tokens:
            self._decode_steps.setdefault(size, deque(maxlen=SAMPLES)).append(seconds)
            self._mixed_since[size] = 0
        elif not decodes:
            if tokens >= LEAST_PURE_CHUNK:
                self._cost.observe(tokens, context, seconds)
        elif size in self._decode_steps:
            self._mixed_since[size] += 1
            self._cost.observe(tokens, context, max(seconds - median(self._decode_steps[size]), 0.0))


def _size_class(decodes: int) -> int:
    """1, 2, 3-4, 5-8, ...: steps of one class take about as long."""
    return (decodes - 1).bit_length() if decodes else -1


class Share:
    """What is left for prompts in one step: tokens for all of them, seconds for those that arrived after a stream.

    tokens: what the budget leaves. enough: how many of them are taken; a prompt that ends up to REMAINDER_TOKENS later
    is finished nevertheless. seconds None: those that arrived after a stream wait.
    """

    __slots__ = ("_cost", "_seconds", "_spare", "_untouched", "tokens")

    def __init__(self, tokens: int, enough: int | None, seconds: float | None, cost: PrefillCost) -> None:
        self.tokens = tokens if enough is None else min(tokens, enough)
        self._spare = min(tokens - self.tokens, REMAINDER_TOKENS)
        self._seconds = seconds
        self._cost = cost
        self._untouched = True

    @property
    def room(self) -> int:
        """About how many tokens it has for prompts at their beginning."""
        if self._seconds is None or self._seconds == math.inf:
            return self.tokens
        return min(self.tokens, max(self._cost.tokens_within(self._seconds, 0), CHUNK_QUANTUM))

    def offers(self, paced: bool) -> bool:
        """Whether `grant` may give something."""
        return self.tokens > 0 and not (
            paced and (self._seconds is None or (not self._seconds and not self._untouched))
        )

    def grant(self, start: int, wanted: int, paced: bool = True, limit: int | None = None) -> int:
        """How many of the `wanted` tokens after position `start` the step takes; 0: the share is used up.

        paced: the prompt arrived after a stream was on its way, so it takes what streams leave. The first chunk always
        gets at least CHUNK_QUANTUM tokens, so that every prompt gets done. limit: what others leave to this prompt; a
        remainder of up to REMAINDER_TOKENS beyond it is taken along.
        """
        if limit is not None and wanted > limit + REMAINDER_TOKENS:
            wanted = limit
        count = wanted if wanted <= self.tokens + self._spare else self.tokens
        seconds = self._seconds if paced else math.inf
        if seconds is None:
            count = 0
        elif seconds < math.inf:
            fitting = self._cost.tokens_within(seconds, start) // CHUNK_QUANTUM * CHUNK_QUANTUM
            count = min(count, max(fitting, CHUNK_QUANTUM if self._untouched else 0))
        if self._seconds:
            self._seconds = max(self._seconds - self._cost.seconds(start, count), 0.0)
        self._spare -= max(count - self.tokens, 0)
        self.tokens = max(self.tokens - count, 0) if count == wanted else 0
        self._untouched = False
        return count


class PrefillCost:
    """Seconds of a prompt token as a straight line over the context it sees, fitted to recent steps.

    Exponentially weighted least squares with a pull to slope zero, which decides while all steps
    looked alike. What is far off the line counts as twice or half of it: one disturbed step moves little.
    """

    DECAY = 0.85
    RIDGE = 64.0**2  # tokens squared: spread of contexts below which the slope is not believed

    def __init__(self) -> None:
        self._weight = 0.0
        self._context = self._price = 0.0  # weighted means
        self._spread = self._joint = 0.0  # weighted sums of squares and products about the means

    @property
    def known(self) -> bool:
        return self._price > 0

    def observe(self, tokens: int, context: int, seconds: float) -> None:
        """Book the seconds that `tokens` prompt tokens took, which saw `context` tokens together."""
        mean, price = context / tokens, seconds / tokens
        if self._weight > 1.5:
            expected = self._at(mean)
            price = min(max(price, expected / 2), expected * 2)
        before = self._weight * self.DECAY
        self._weight = before + 1.0
        offset, surplus = mean - self._context, price - self._price
        self._context += offset / self._weight
        self._price += surplus / self._weight
        shrink = before / self._weight
        self._spread = self._spread * self.DECAY + shrink * offset * offset
        self._joint = self._joint * self.DECAY + shrink * offset * surplus

    def seconds(self, start: int, count: int) -> float:
        """Of `count` tokens from position `start` on."""
        return count * self._at(start + count / 2)

    def tokens_within(self, seconds: float, start: int) -> int:
        """How many tokens from position `start` on fit; 0 while nothing is known."""
        if not self.known:
            return 0
        guess = seconds / self._at(start)
        return int(seconds / self._at(start + guess / 2))

    def _at(self, context: float) -> float:
        slope = max(self._joint / (self._spread + self.RIDGE), 0.0)
        return max(self._price + slope * (context - self._context), self._price / 4)
