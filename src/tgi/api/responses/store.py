"""Responses that are kept for a while, so that a later request goes on from one of them.

Owns what is kept and for how long: in memory, as bytes of JSON, bounded by their number and by their bytes. A response
is found only with the API key that it was made with.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

BYTES = 64_000_000
"""All that is kept, in sum."""
OVERHEAD = 1_000
"""Bytes of a kept response beside its JSON."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One response."""

    id: str
    group: int
    """Number of the API key it was made with."""
    previous: str | None
    """Id of the one it goes on from."""
    response: bytes
    """As it was answered."""
    input: tuple[bytes, ...]
    """The items of its own input, each with an id."""
    output: tuple[bytes, ...]
    item_ids: tuple[str, ...]
    """Of input and output."""

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.response) + sum(map(len, self.input + self.output))

    @property
    def items(self) -> tuple[bytes, ...]:
        return self.input + self.output


class ResponseStore:
    """The responses used last. Belongs to one event loop."""

    def __init__(self, limit: int, bytes_limit: int = BYTES) -> None:
        """limit: how many are kept; 0: none."""
        self.limit = limit
        self._bytes_limit = bytes_limit
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._places: dict[tuple[int, str], tuple[str, int]] = {}
        """Group and id of an item -> its response, and its number there."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, kept: Kept) -> None:
        """Keep a response; those used longest ago go."""
        if not self.limit or kept.size > self._bytes_limit:
            return
        self._drop(kept.id)
        self._kept[kept.id] = kept
        self.bytes += kept.size
        self._places |= {(kept.group, id): (kept.id, number) for number, id in enumerate(kept.item_ids)}
        self.chain(kept.id, kept.group)
        while len(self._kept) > self.limit or self.bytes > self._bytes_limit:
            self._drop(next(iter(self._kept)))

    def get(self, id: str, group: int) -> Kept | None:
        """The response; None: it is not there, or another key's."""
        kept = self._kept.get(id)
        return kept if kept is not None and kept.group == group else None

    def chain(self, id: str, group: int) -> list[Kept] | None:
        """The response and all that it goes on from, the first one first; None: one of them is not there.

        They count as used, the first one last: so a response goes before those that it goes on from, and what is left
        of a chain can be gone on from.
        """
        found: list[Kept] = []
        wanted: str | None = id
        while wanted is not None:
            kept = self.get(wanted, group)
            if kept is None:
                return None
            self._kept.move_to_end(wanted)
            found.append(kept)
            wanted = kept.previous
        return found[::-1]

    def item(self, id: str, group: int) -> bytes | None:
        """An item of a kept response."""
        response, number = self._places.get((group, id), ("", 0))
        kept = self.get(response, group)
        return None if kept is None else kept.items[number]

    def delete(self, id: str, group: int) -> bool:
        """False: it was not there."""
        if self.get(id, group) is None:
            return False
        self._drop(id)
        return True

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id, None)
        if kept is not None:
            self.bytes -= kept.size
            for item in kept.item_ids:
                if self._places.get((kept.group, item), ("",))[0] == id:
                    del self._places[kept.group, item]
