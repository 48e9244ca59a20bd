"""Which replicas likely hold the keys and values of a block: a table of fixed size, filled by the router's choices.

Owns the table and what drops out of it; no text is in it, only salted hashes. It is built as a processor's cache is:
a hash has `WAYS` places, and the one used longest ago makes room. An entry names the `HOLDERS` replicas that were
last sent the block. Blocks that more replicas hold (system prompts) move to a second table, which has a row of all
replicas for each.

Whether a replica still holds a block is judged by its own figures: an entry is stamped with the tokens the replica
had computed, and is void once the replica has computed more than fit its cache, or was restarted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WAYS = 4
HOLDERS = 4
UNIT = 16
"""Tokens that stamps count in, so that 32 bits last for 68 billion tokens of one replica."""
NOBODY = 0xFFFF
MOST_REPLICAS = 4096


@dataclass(slots=True)
class Lookup:
    """Where the blocks of a prompt are in the tables."""

    hashes: np.ndarray
    shared: list[int]
    """Rows of the first blocks, which are in the table of shared ones."""
    rest: np.ndarray
    """Hashes of the others, then their places, and which of them are known."""
    places: np.ndarray
    matched: np.ndarray


class PrefixIndex:
    """Blocks -> replicas. Replicas are numbers below `replicas`; belongs to one thread."""

    def __init__(self, replicas: int, *, blocks: int = 1 << 19, shared: int = 512) -> None:
        """blocks: entries of the table, a power of two; shared: blocks that are known of all replicas."""
        assert blocks % WAYS == 0 and blocks & (blocks - 1) == 0 and replicas <= MOST_REPLICAS
        sets = blocks // WAYS
        self._mask = np.uint64(sets - 1)
        self._keys = np.zeros((sets, WAYS), np.uint64)
        self._used = np.zeros((sets, WAYS), np.uint32)
        # One row a place, set * WAYS + way: taking rows by one index costs half of what two indices do.
        self._holders = np.full((blocks, HOLDERS), NOBODY, np.uint16)
        self._stamps = np.zeros((blocks, HOLDERS), np.uint32)
        self._shared_rows: dict[int, int] = {}  # hash -> row; the one used longest ago first
        self._shared_stamps = np.zeros((shared, replicas), np.uint32)
        self._ticks = 0

    def grow(self, replicas: int) -> None:
        """Make room for more numbers of replicas."""
        more = replicas - self._shared_stamps.shape[1]
        self._shared_stamps = np.pad(self._shared_stamps, ((0, 0), (0, more)))

    @property
    def nbytes(self) -> int:
        """Memory of the tables."""
        tables = (self._keys, self._used, self._holders, self._stamps, self._shared_stamps)
        return sum(table.nbytes for table in tables)

    def look(self, hashes: np.ndarray) -> Lookup:
        """Find a prompt's blocks."""
        shared = list[int]()
        for key in hashes.tolist():
            row = self._shared_rows.get(key)
            if row is None:
                break
            shared.append(row)
        rest = hashes[len(shared) :] if shared else hashes
        sets = (rest & self._mask).astype(np.intp)
        same = self._keys.take(sets, 0) == rest[:, None]
        return Lookup(hashes, shared, rest, sets * WAYS + same.argmax(1), same.any(1))

    def expected(self, look: Lookup, ends: np.ndarray, oldest: np.ndarray) -> np.ndarray:
        """Bytes of the prompt that each replica likely holds, float64.

        ends: bytes up to the end of each block; oldest: the stamp of each replica from which on entries count, at
        least 1.
        """
        found = self._of_shared(look.shared, ends, oldest)
        # Gaps do no harm: a hash depends on all blocks before it. They come when two blocks of a prompt want one place.
        there = np.flatnonzero(look.matched)
        if len(there):
            places = look.places[there]
            holders = self._holders.take(places, 0).ravel()
            some = np.flatnonzero(holders != NOBODY)
            who = holders[some].astype(np.intp)
            alive = self._stamps.take(places, 0).ravel()[some] >= oldest[who]
            # Assigned in the order of the blocks: the deepest one stays.
            found[who[alive]] = ends[len(look.shared) :][there[some[alive] // HOLDERS]]
        return found

    def _of_shared(self, rows: list[int], ends: np.ndarray, oldest: np.ndarray) -> np.ndarray:
        """Bytes that each replica holds of the blocks in the table of shared ones.

        Whoever holds a block holds those before it. So the last row says all of those that have the whole prefix, and
        rows between are looked at for the few that have its beginning alone.
        """
        if not rows:
            return np.zeros(len(oldest))
        whole = self._shared_stamps[rows[-1]] >= oldest
        found = np.where(whole, ends[len(rows) - 1], 0.0)
        if len(rows) > 1:
            some = (self._shared_stamps[rows[0]] >= oldest) & ~whole
            if some.any():
                who = np.flatnonzero(some)
                alive = self._shared_stamps[np.array(rows[:-1])[:, None], who] >= oldest[who]
                found[who] = ends[len(rows) - 2 - alive[::-1].argmax(0)]
        return found

    def is_shared(self, key: int) -> bool:
        """Whether many replicas hold the block."""
        return key in self._shared_rows

    def learn(self, look: Lookup, replica: int, stamp: int, oldest: np.ndarray) -> None:
        """A replica is sent the prompt when it has computed `stamp` units. `look` must be the latest one."""
        self._ticks += 1
        if look.shared:
            for key, row in zip(look.hashes[: len(look.shared)].tolist(), look.shared, strict=True):
                del self._shared_rows[key]
                self._shared_rows[key] = row  # now the last one
            self._shared_stamps[look.shared, replica] = stamp
        if not len(look.rest):
            return
        if not look.matched.all():
            self._make_room(look)
        places = look.places
        self._used.ravel()[places] = self._ticks
        holders, stamps = self._holders.take(places, 0), self._stamps.take(places, 0)
        # The replica's own entry, or else a free one, whose stamp is 0, or else the oldest.
        column = np.where(holders == replica, -1, stamps.astype(np.int64)).argmin(1)
        rows = np.arange(0, holders.size, HOLDERS) + column
        evicted, old = holders.ravel()[rows], stamps.ravel()[rows]
        entries = places * HOLDERS + column
        self._holders.ravel()[entries] = replica
        self._stamps.ravel()[entries] = stamp
        if evicted[0] != NOBODY and evicted[0] != replica:
            self._share(look, evicted, old, oldest)

    def _make_room(self, look: Lookup) -> None:
        """Give each unknown block the place of its set that was used longest ago."""
        new = np.flatnonzero(~look.matched)
        sets = look.places[new] // WAYS
        places = sets * WAYS + self._used.take(sets, 0).argmin(1)
        look.places[new] = places
        self._keys.ravel()[places] = look.rest[new]
        self._holders[places] = NOBODY
        self._stamps[places] = 0

    def _share(self, look: Lookup, evicted: np.ndarray, old: np.ndarray, oldest: np.ndarray) -> None:
        """Move the blocks that a fifth living replica holds into the table of shared ones."""
        for number, key in enumerate(look.rest.tolist()):
            who = int(evicted[number])
            if who == NOBODY or old[number] < oldest[who]:
                break  # blocks further on have no more holders
            row = self._shared_row(key)
            self._shared_stamps[row, who] = old[number]
            place = look.places[number]
            holders = self._holders[place]
            there = holders != NOBODY
            self._shared_stamps[row, holders[there]] = self._stamps[place][there]
            self._keys.ravel()[place] = 0
            self._used.ravel()[place] = 0

    def _shared_row(self, key: int) -> int:
        if len(self._shared_rows) < len(self._shared_stamps):
            row = len(self._shared_rows)
        else:
            row = self._shared_rows.pop(next(iter(self._shared_rows)))
        self._shared_stamps[row] = 0
        self._shared_rows[key] = row
        return row
