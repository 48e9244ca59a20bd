"""The blocks of the paged KV cache: who holds them, and which hold a known prefix.

Owns reference counts, the free list and the index of cached prefixes. Knows nothing of tensors (the
layout is the backend's) and nothing of policy (`scheduler` decides who gets blocks).

A block is in exactly one of three places:

    held      reference count > 0, in the block table of that many sequences
    blank     count 0, content worthless; given out first
    cached    count 0, content is a known prefix; given out last, least recently used first
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque

import xxhash

from tgi.engine.sequence import Sequence
from tgi.engine.states import StatePool


def hash_block(parent: bytes, token_ids: list[int]) -> bytes:
    """Identity of a full block: its own ids and, through `parent`, everything before it (16 bytes)."""
    return xxhash.xxh3_128_digest(parent + array("q", token_ids).tobytes())


class BlockPool:
    """Allocation with reference counts and a content-addressed index of full blocks."""

    def __init__(self, num_blocks: int, block_size: int, num_states: int = 0) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._references = [0] * num_blocks
        self._blank = deque(range(num_blocks))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._by_hash: dict[bytes, int] = {}
        self.states = StatePool(num_states) if num_states else None
        self._content: list[tuple[bytes, list[int]] | None] = [None] * num_blocks  # hash and ids of indexed blocks

    @property
    def num_free(self) -> int:
        """Blocks that can be given out now."""
        return len(self._blank) + len(self._cached)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def can_grow(self, sequence: Sequence, num_tokens: int, reserve: int = 0) -> bool:
        """Whether `grow` to `num_tokens` would succeed and leave `reserve` blocks free."""
        return self._missing(sequence, num_tokens) + reserve <= self.num_free

    def grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Extend the block table to cover `num_tokens` tokens, and the encoder's to cover its input.

        False, and nothing done, if blocks are short.
        """
        if self._missing(sequence, num_tokens) > self.num_free:
            return False
        for table, tokens in ((sequence.encoder_table, len(sequence.encoder_ids)), (sequence.block_table, num_tokens)):
            for _ in range(self.blocks_for(tokens) - len(table)):
                table.append(self._take())
        return True

    def _missing(self, sequence: Sequence, num_tokens: int) -> int:
        wanted = self.blocks_for(num_tokens) + self.blocks_for(len(sequence.encoder_ids))
        return wanted - len(sequence.block_table) - len(sequence.encoder_table)

    def release(self, sequence: Sequence) -> None:
        """Give all blocks of the sequence back. Later blocks become eviction candidates before earlier
        ones: a prefix is worth more than its continuation."""
        for block in reversed([*sequence.encoder_table, *sequence.block_table]):
            self._give_back(block)
        sequence.block_table, sequence.encoder_table = [], []
        if self.states is not None:
            for slot in (sequence.state, sequence.next_state):
                if slot >= 0:
                    self.states.release(slot)
            sequence.state = sequence.next_state = -1

    def _give_back(self, block: int) -> None:
        self._references[block] -= 1
        if self._references[block] == 0:
            if self._content[block] is None:
                self._blank.appendleft(block)  # used memory before memory that is not yet taken
            else:
                self._cached[block] = None

    def match(self, sequence: Sequence) -> int:
        """Hold every cached block that begins the sequence; returns the number of tokens they cover.

        At least one token is left to compute, since its logits are needed. Token ids are compared, so
        a hash collision is a miss, never another user's keys and values. Where there are states, the last of the blocks
        must have one.
        """
        count = self._match_blocks(sequence)
        if self.states is None:
            return count * self.block_size
        while sequence.block_table:
            slot = self.states.find(sequence.block_table[-1])
            if slot is not None:
                sequence.state = self.states.hold(slot)
                break
            self._give_back(sequence.block_table.pop())
        return len(sequence.block_table) * self.block_size

    def _match_blocks(self, sequence: Sequence) -> int:
        """Hold the cached blocks that begin the sequence; gives how many."""
        usable = (sequence.num_tokens - 1) // self.block_size
        for number in range(usable):
            token_ids = self._ids_of(sequence, number)
            digest = self._digest(sequence, number, token_ids)
            block = self._by_hash.get(digest)
            if block is None or self._content[block] != (digest, token_ids):
                return number
            self._references[block] += 1
            self._cached.pop(block, None)
            sequence.block_table.append(block)
        return usable

    def index(self, sequence: Sequence, first: int, last: int) -> None:
        """Make the full blocks first..last-1 of the sequence findable by `match`.

        Stops for good at a block whose hash belongs to other ids: a block indexed behind such a
        collision could be matched by the wrong sequence.
        """
        for number in range(first, last):
            token_ids = self._ids_of(sequence, number)
            digest = self._digest(sequence, number, token_ids)
            known = self._by_hash.get(digest)
            if known is None:
                block = sequence.block_table[number]
                self._by_hash[digest] = block
                self._content[block] = (digest, token_ids)
            elif self._content[known] != (digest, token_ids):
                sequence.cacheable = False
                return

    def place_state(self, sequence: Sequence) -> tuple[int, int]:
        """The slots that the sequence's next step reads and writes; -1 where there is none."""
        if self.states is None:
            return -1, -1
        if sequence.next_state < 0:
            sequence.next_state = self.states.take()
        return sequence.state, sequence.next_state

    def advance_state(self, sequence: Sequence) -> None:
        """The step is done: what it wrote is the sequence's state, saved if that is after an indexed block."""
        if self.states is None or sequence.next_state < 0:
            return
        if sequence.state >= 0:
            self.states.release(sequence.state)
        sequence.state, sequence.next_state = sequence.next_state, -1
        number, rest = divmod(sequence.num_computed, self.block_size)
        if rest or not number or not sequence.cacheable:
            return
        block = self._by_hash.get(self._digest(sequence, number - 1, self._ids_of(sequence, number - 1)))
        if block is not None:
            self.states.save(block, sequence.state)

    def _ids_of(self, sequence: Sequence, number: int) -> list[int]:
        return sequence.token_ids[number * self.block_size : (number + 1) * self.block_size]

    def _digest(self, sequence: Sequence, number: int, token_ids: list[int]) -> bytes:
        """Hash of block `number`, kept in the sequence: chains are computed once."""
        hashes = sequence.block_hashes
        if number == len(hashes):
            parent = hashes[-1] if hashes else xxhash.xxh3_128_digest(sequence.cache_salt.encode())
            hashes.append(hash_block(parent, token_ids))
        return hashes[number]

    def _take(self) -> int:
        if self._blank:
            block = self._blank.popleft()
        else:
            block, _ = self._cached.popitem(last=False)
            content = self._content[block]
            assert content is not None
            del self._by_hash[content[0]]
            if self.states is not None:
                self.states.forget(block)
            self._content[block] = None
        self._references[block] = 1
        return block

    def check(self, sequences: list[Sequence]) -> None:
        """Assert every invariant against the sequences that hold blocks; for tests and idle moments."""
        held = [0] * self.num_blocks
        for sequence in sequences:
            for block in [*sequence.encoder_table, *sequence.block_table]:
                held[block] += 1
        assert held == self._references, "reference counts differ from block tables"
        if self.states is not None:
            self.states.check([slot for s in sequences for slot in (s.state, s.next_state) if slot >= 0])
        blank, cached = set(self._blank), set(self._cached)
        free = {block for block, count in enumerate(held) if count == 0}
        assert blank | cached == free and not blank & cached and len(blank) == len(self._blank)
        assert all(self._content[block] is None for block in blank)
        assert all(self._content[block] is not None for block in cached)
        indexed = {block for block, content in enumerate(self._content) if content is not None}
        assert indexed == set(self._by_hash.values()) and len(indexed) == len(self._by_hash)
