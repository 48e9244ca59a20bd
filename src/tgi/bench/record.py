"""One request as the client saw it: when it was sent, when its tokens came, how it ended.

Filled by `dialects` and `load`, read by `summary`. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Record:
    prompt_tokens: int
    """As asked for, until the server says how many there were."""
    wanted_tokens: int
    """Tokens to generate, as asked for."""
    sent: float = 0.0
    """When it was sent; under a fixed rate, when it should have been."""
    times: list[float] = field(default_factory=list)
    """Of every piece read from the socket that brought tokens, in order and distinct."""
    counts: list[float] = field(default_factory=list)
    """Tokens of each piece. Fractions where the server only told the sum."""
    ended: float = 0.0
    finished: bool = False
    """The stream came to its own end."""
    reported_tokens: int | None = None
    """Generated tokens by the server's count."""
    doubtful: float | None = None
    """When an event without text ended the stream: with a token (part of a character) or without one."""
    error: tuple[str, str] | None = None
    """Kind and message."""

    def add(self, now: float, tokens: float) -> None:
        """`tokens` arrived. Those read at the same moment are one piece: no gap between them can be seen."""
        if self.times and self.times[-1] >= now:
            self.counts[-1] += tokens
        else:
            self.times.append(now)
            self.counts.append(tokens)

    def settle(self) -> None:
        """Make the counts add up to what the server reported, when events carried several tokens or none."""
        seen = sum(self.counts)
        if self.reported_tokens is not None and self.reported_tokens > seen and self.doubtful is not None:
            self.add(self.doubtful, 1)
            seen += 1
        if self.reported_tokens and seen and seen != self.reported_tokens:
            factor = self.reported_tokens / seen
            self.counts = [count * factor for count in self.counts]

    @property
    def ok(self) -> bool:
        return self.error is None and bool(self.times)

    @property
    def tokens(self) -> float:
        return self.reported_tokens if self.reported_tokens is not None else sum(self.counts)

    @property
    def first(self) -> float:
        """When the first token came."""
        return self.times[0]

    @property
    def last(self) -> float:
        return self.times[-1]

    @property
    def ttft(self) -> float:
        """Time to first token, seconds."""
        return self.first - self.sent

    @property
    def e2e(self) -> float:
        """From sending to the last token, seconds."""
        return self.last - self.sent

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, seconds; None for a single token."""
        return (self.last - self.first) / (self.tokens - 1) if self.tokens > 1 else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces that brought tokens."""
        return [later - earlier for earlier, later in pairwise(self.times)]
