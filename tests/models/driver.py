"""Runs a model without an engine: a cache, scattered block tables, and steps given by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from tgi.kernels.types import Backend, Paging
from tgi.models.loader import LoadedModel


def make_paging(
    tables: list[list[int]],
    starts: list[int],
    lens: list[int],
    block_size: int,
    states: tuple[list[int], list[int]] | None = None,
) -> Paging:
    """Paging of a step in which sequence i runs positions starts[i] .. starts[i] + lens[i] - 1.

    states: the slots that are read and written.
    """
    contexts = [start + count for start, count in zip(starts, lens, strict=True)]
    positions = [position for start, end in zip(starts, contexts, strict=True) for position in range(start, end)]
    slots = [
        table[position // block_size] * block_size + position % block_size
        for table, start, end in zip(tables, starts, contexts, strict=True)
        for position in range(start, end)
    ]
    width = max(len(table) for table in tables)
    return Paging(
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        block_tables=torch.tensor([table + [0] * (width - len(table)) for table in tables]),
        query_lens=lens,
        context_lens=contexts,
        query_starts=torch.tensor([0, *accumulate(lens)]),
        contexts=torch.tensor(contexts),
        state_reads=None if states is None else torch.tensor(states[0]),
        state_writes=None if states is None else torch.tensor(states[1]),
    )


NUM_STATES = 200
"""Slots of states, taken in turn: more than a test writes before it reads one again."""


@dataclass
class Row:
    """A sequence of the test: its blocks and how much of it is computed."""

    table: list[int] = field(default_factory=list)
    computed: int = 0
    state: int = -1  # slot; what a slot holds is never written again


class Driver:
    """A model with a cache whose blocks are handed out in random order."""

    def __init__(
        self,
        model: LoadedModel,
        backend: Backend,
        num_blocks: int = 256,
        seed: int = 0,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.block_size = model.step, backend.block_size
        self.cache = backend.allocate_cache(model.cache_shape(cache_dtype), num_blocks, NUM_STATES)
        self.next_state = 0
        self.free = list(range(num_blocks))
        random.Random(seed).shuffle(self.free)

    def step(self, work: list[tuple[Row, list[int]]]) -> list[torch.Tensor]:
        """Run the next tokens of each row in one batch -> logits [tokens, vocab] of each."""
        for row, ids in work:
            while len(row.table) * self.block_size < row.computed + len(ids):
                row.table.append(self.free.pop())
        lens = [len(ids) for _, ids in work]
        states = [row.state for row, _ in work], [(self.next_state + i) % NUM_STATES for i in range(len(work))]
        self.next_state += len(work)
        starts = [row.computed for row, _ in work]
        paging = make_paging([row.table for row, _ in work], starts, lens, self.block_size, states)
        with torch.inference_mode():
            token_ids = torch.tensor([token for _, ids in work for token in ids])
            logits = self.model.logits(self.model.forward(token_ids, paging, self.cache))
        for (row, ids), state in zip(work, states[1], strict=True):
            row.computed += len(ids)
            row.state = state
        return list(logits.split(lens))

    def run(self, ids: list[int], chunk: int | None = None, row: Row | None = None) -> torch.Tensor:
        """One sequence alone, whole or in chunks -> logits [len(ids), vocab]."""
        row = row or Row()
        size = chunk or len(ids)
        return torch.cat([self.step([(row, ids[at : at + size])])[0] for at in range(0, len(ids), size)])
