"""Which replica answers a request: the one that has least to compute before its first token.

Owns the sum and nothing else. A replica's cost is the tokens of the prompt that it likely does not hold, the tokens
that are queued there, and a share for each running sequence and for a full cache. Those asked are the ones that hold
the beginning of the prompt and the homes of the conversation; the least busy one of all only if they are overloaded.
So routers that know the same figures choose alike, and figures that are some tenths of a second old do not send
everybody to the one that was idle then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tgi.replicas.blocks import BYTES_PER_TOKEN, Chain
from tgi.replicas.figures import Fleet, Sent
from tgi.replicas.homes import Homes
from tgi.replicas.index import PrefixIndex

RUNNING = 24.0
"""Tokens of prompts that a running sequence counts for."""
CACHE_FROM = 0.85
CACHE_FULL = 4096.0
"""Tokens that a full cache counts for; nothing below `CACHE_FROM`."""
SPARE = 1000.0
"""Tokens by which the best one may be worse than the least busy of all, before that one is taken."""
LOYALTY = 600.0
"""Tokens that each home counts for beyond the one before it: what is lost when routers choose differently."""
PRIOR = (8.0, 1.0, 0.5)
"""Conversations that each home has before anything is known, most of them the first one."""
FORGET = 4096.0
"""Choices after which older ones of first turns count half."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as far as the choice looks at it."""

    blocks: Chain
    conversation: int | None = None
    """What stands for the conversation; None: found by the prompt."""
    earlier: int = 0
    """Bytes of the prompt that an earlier turn of the conversation had."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome."""

    replica: int
    expected: float
    """Bytes of the prompt that the replica likely holds."""
    sent: Sent


class Chooser:
    """The choice among replicas; belongs to one thread."""

    def __init__(self, fleet: Fleet, index: PrefixIndex, homes: Homes) -> None:
        self.fleet = fleet
        self.index = index
        self.homes = homes
        self._lived = np.array(PRIOR)

    def grow(self, replicas: int) -> None:
        """Make room for more numbers of replicas."""
        self.fleet.grow(replicas)
        self.index.grow(replicas)
        self.homes.grow(replicas)

    def renew(self, replica: int, name: str) -> None:
        """The number is that of another replica from now on."""
        self.fleet.renew(replica)
        self.homes.name(replica, name)

    def choose(self, ask: Ask, allowed: np.ndarray) -> Choice | None:
        """None: no replica is allowed. allowed: bool, one a replica."""
        if not allowed.any():
            return None
        fleet, blocks = self.fleet, ask.blocks
        look = self.index.look(blocks.hashes)
        found = self.index.expected(look, blocks.ends, fleet.oldest)
        homes = self.homes.of(self._key(ask), allowed)
        if ask.earlier:
            self._believe(found, ask.earlier, homes)
        load = self._load()
        cost = load + (blocks.size - found) / BYTES_PER_TOKEN
        replica = self._cheapest(cost, homes, self._asked(found, homes, allowed), allowed)
        if not ask.earlier and replica in homes:
            self._lived[homes.index(replica)] += 1
            if self._lived.sum() > FORGET:
                self._lived /= 2
        tokens = (blocks.size - found[replica]) / BYTES_PER_TOKEN
        self.index.learn(look, replica, fleet.stamp(replica), fleet.oldest)
        return Choice(replica, float(found[replica]), fleet.sent(replica, float(tokens), blocks.size / BYTES_PER_TOKEN))

    def _key(self, ask: Ask) -> int:
        """The conversation, or else the first block of the prompt that not everybody sends."""
        if ask.conversation is not None:
            return ask.conversation
        for key in ask.blocks.hashes.tolist():
            if not self.index.is_shared(key):
                return key
        return ask.blocks.whole

    def _believe(self, found: np.ndarray, earlier: int, homes: list[int]) -> None:
        """Other routers may have had the earlier turns: they chose among the same homes, as this one does."""
        if found.max() >= earlier - 2 * BYTES_PER_TOKEN * 64:
            return  # known here
        share = self._lived[: len(homes)] / self._lived[: len(homes)].sum()
        for place, home in enumerate(homes):
            found[home] = max(found[home], earlier * float(share[place]))

    def _load(self) -> np.ndarray:
        fleet = self.fleet
        load = fleet.queued + RUNNING * fleet.running
        if fleet.cache_usage.max() > CACHE_FROM:
            load += np.maximum(fleet.cache_usage - CACHE_FROM, 0) * (CACHE_FULL / (1 - CACHE_FROM))
        return load

    def _asked(self, found: np.ndarray, homes: list[int], allowed: np.ndarray) -> list[int]:
        deepest = found.max()
        if deepest <= 0:
            return homes
        holders = np.flatnonzero((found >= deepest / 2) & allowed)
        if len(holders) > 8:  # a prefix that everybody has: the homes are as good
            return homes
        return [*homes, *(one for one in holders.tolist() if one not in homes)]

    def _cheapest(self, cost: np.ndarray, homes: list[int], asked: list[int], allowed: np.ndarray) -> int:
        far = LOYALTY * len(homes)
        best, lowest = -1, np.inf
        for replica in asked:
            own = cost[replica] + (LOYALTY * homes.index(replica) if replica in homes else far)
            if own < lowest:
                best, lowest = replica, own
        least = int(np.where(allowed, cost, np.inf).argmin())
        return least if lowest > cost[least] + far + SPARE else best
