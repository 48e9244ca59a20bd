"""What a router knows of its replicas: their own figures, and what it has sent them since.

Owns the arithmetic. How figures travel is the heartbeat's affair, and what follows from them `choice`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tgi.replicas.index import UNIT


@dataclass(frozen=True, slots=True)
class Figures:
    """What a replica says of itself, now and then."""

    running: int = 0
    waiting: int = 0
    queued_tokens: int = 0
    """Tokens of prompts that are not computed yet."""
    cache_usage: float = 0.0
    """Share of the cache that running sequences hold, 0 to 1."""
    cache_tokens: int = 0
    """Tokens that the cache holds."""
    computed_tokens: int = 0
    """Since the replica started; falls when it was restarted, and its cache is empty then."""


@dataclass(slots=True)
class Sent:
    """A request on its way: what was added to the replica's load for it."""

    replica: int
    tokens: float
    """Prompt tokens that the replica likely has to compute."""
    whole: float
    """All prompt tokens, as the replica counts what is queued."""
    round: int
    """Figures of the replica that were known then."""
    life: int
    waits: bool = True
    """No byte of the answer has come."""
    ended: bool = False


CACHE_TOKENS = 1 << 20
"""What a replica's cache is taken to hold until it says."""


class Fleet:
    """Figures of all replicas, as arrays; replicas are numbers below `len`."""

    def __init__(self, replicas: int) -> None:
        self.running = np.zeros(replicas)
        self.queued = np.zeros(replicas)
        """Prompt tokens to compute."""
        self.cache_usage = np.zeros(replicas)
        self.full_until = np.zeros(replicas)
        """Time until which the replica refuses requests, as far as known."""
        self.back_at = np.zeros(replicas)
        """Time at which a full one said to have room again."""
        self._clock = np.full(replicas, float(UNIT))
        self._cache = np.full(replicas, float(CACHE_TOKENS))
        self._born = np.ones(replicas)
        self._computed = np.zeros(replicas, np.int64)
        self._round = np.zeros(replicas, np.int64)
        self._lives = np.zeros(replicas, np.int64)
        """Replicas that had the number before."""
        self._oldest = np.ones(replicas, np.int64)

    def __len__(self) -> int:
        return len(self.running)

    def grow(self, replicas: int) -> None:
        """Make room for more numbers; those there are stay as they are."""
        more = Fleet(replicas - len(self))
        for name, values in vars(more).items():
            setattr(self, name, np.concatenate([getattr(self, name), values]))

    def renew(self, replica: int) -> None:
        """The number is another replica's from now on: nothing known of the old one counts."""
        for values in (self.running, self.queued, self.cache_usage, self.full_until, self.back_at, self._computed):
            values[replica] = 0
        self._cache[replica] = CACHE_TOKENS
        self._round[replica] += 1
        self._lives[replica] += 1
        self.restarted(replica)

    @property
    def oldest(self) -> np.ndarray:
        """The stamp of each replica from which on its cache likely holds what it was sent."""
        return self._oldest

    def stamp(self, replica: int) -> int:
        """Now, in computed tokens of the replica."""
        return int(self._clock[replica] // UNIT)

    def tell(self, replica: int, figures: Figures) -> None:
        """The replica has said how it does."""
        self._round[replica] += 1
        self.running[replica] = figures.running
        self.queued[replica] = figures.queued_tokens
        self.cache_usage[replica] = figures.cache_usage
        more = figures.computed_tokens - int(self._computed[replica])
        self._computed[replica] = figures.computed_tokens
        if more < 0:
            self.restarted(replica)
        else:
            self._clock[replica] += more
        if figures.cache_tokens:
            self._cache[replica] = figures.cache_tokens
        self._refresh(replica)

    def restarted(self, replica: int) -> None:
        """Its cache is empty."""
        self._clock[replica] += UNIT
        self._born[replica] = self.stamp(replica)
        self._refresh(replica)

    def sent(self, replica: int, tokens: float, whole: float | None = None) -> Sent:
        """A request goes there now. whole: tokens of its prompt, those that the replica likely holds included."""
        self.queued[replica] += tokens
        self.running[replica] += 1
        return Sent(
            replica, tokens, tokens if whole is None else whole, int(self._round[replica]), int(self._lives[replica])
        )

    def began(self, sent: Sent) -> None:
        """The first byte of its answer is there: its prompt is computed.

        Figures that came since it was sent had its whole prompt among what is queued.
        """
        if sent.waits and sent.life == self._lives[sent.replica]:
            known = sent.tokens if sent.round == self._round[sent.replica] else sent.whole
            self.queued[sent.replica] = max(self.queued[sent.replica] - known, 0)
        sent.waits = False

    def ended(self, sent: Sent) -> None:
        """The answer is whole, or nobody waits for it any more."""
        self.began(sent)
        if not sent.ended and sent.life == self._lives[sent.replica]:
            self.running[sent.replica] = max(self.running[sent.replica] - 1, 0)
        sent.ended = True

    def _refresh(self, replica: int) -> None:
        alive = (self._clock[replica] - self._cache[replica]) // UNIT
        self._oldest[replica] = max(alive, self._born[replica], 1)
