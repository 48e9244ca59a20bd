"""Slots of recurrent states: who holds them, and which are saved with a prefix.

A model with recurrent or convolution layers keeps for each sequence a state beside its keys and values. A state never
changes: a step reads one slot and writes another, which then is the sequence's. So what stands at the end of a full
block can be saved with that block for nothing, several sequences may start from it, and a step that failed can be run
again. Knows nothing of tensors. Imports no torch.
"""

from __future__ import annotations

from collections import OrderedDict


class StatePool:
    """Slots with reference counts, and the saved ones, least recently used first."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._references = [0] * num_slots
        self._free = list(range(num_slots))
        self._saved: OrderedDict[int, int] = OrderedDict()  # block -> slot

    def take(self) -> int:
        """A slot for one holder; what was saved goes if there is no other."""
        while not self._free:
            assert self._saved, "every sequence of a step has room for two states"
            self.forget(next(iter(self._saved)))
        slot = self._free.pop()
        self._references[slot] = 1
        return slot

    def hold(self, slot: int) -> int:
        """One more holder of a slot."""
        self._references[slot] += 1
        return slot

    def release(self, slot: int) -> None:
        self._references[slot] -= 1
        if self._references[slot] == 0:
            self._free.append(slot)

    def save(self, block: int, slot: int) -> None:
        """Keep the state after the last position of a full block."""
        if block not in self._saved:
            self._saved[block] = self.hold(slot)

    def find(self, block: int) -> int | None:
        """The saved state after a block."""
        slot = self._saved.get(block)
        if slot is not None:
            self._saved.move_to_end(block)
        return slot

    def forget(self, block: int) -> None:
        """The block holds something else from now on, or its state has to make room."""
        slot = self._saved.pop(block, None)
        if slot is not None:
            self.release(slot)

    def check(self, held: list[int]) -> None:
        """Assert every invariant, given the slots that sequences hold."""
        counts = [0] * self.num_slots
        for slot in (*held, *self._saved.values()):
            counts[slot] += 1
        assert counts == self._references, "reference counts of states differ from what is held and saved"
        assert sorted(self._free) == [slot for slot, count in enumerate(counts) if count == 0]
