"""A plan as tensors, in one copy to the device."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import torch

from tgi.engine.plan import Chunk, Plan
from tgi.kernels.types import EncoderKeys, Paging


@dataclass(slots=True)
class Batch:
    """What the forward pass reads."""

    token_ids: torch.Tensor  # [tokens] int64
    paging: Paging
    logit_rows: torch.Tensor | None  # [rows] int64, the last rows of each chunk that samples; None: all rows
    first_rows: list[int]  # row where each chunk begins
    encoder: EncoderBatch | None = None  # what the encoder is to run over


@dataclass(slots=True)
class EncoderBatch:
    """What an encoder reads."""

    token_ids: torch.Tensor  # [tokens] int64
    paging: Paging


def build(plan: Plan, block_size: int, device: torch.device) -> Batch:
    """The tensors of a step."""
    batch = _build(plan.chunks, block_size, device)
    if plan.chunks[0].encoder is None:
        return batch
    inputs = [chunk.encoder for chunk in plan.chunks if chunk.encoder is not None]
    width, lens = max(len(one.block_table) for one in inputs), [one.length for one in inputs]
    tables = [[*one.block_table, *[0] * (width - len(one.block_table))] for one in inputs]
    batch.paging.encoder = EncoderKeys(
        torch.tensor(tables, device=device), lens, torch.tensor(lens, dtype=torch.int64, device=device)
    )
    new = [Chunk(-1, one.token_ids, 0, one.block_table) for one in inputs if one.token_ids]
    if new:
        encoded = _build(new, block_size, device)
        batch.encoder = EncoderBatch(encoded.token_ids, encoded.paging)
    return batch


def _build(chunks: list[Chunk], block_size: int, device: torch.device) -> Batch:
    """Pack all integers of the plan into one host buffer, copy once, give views.

    Plain lists: between two steps the weights have pushed all else out of the caches, so the fewest instructions win.
    """
    lens = [len(chunk.token_ids) for chunk in chunks]
    starts = [0, *accumulate(lens)]
    contexts = [chunk.end for chunk in chunks]
    width = max(len(chunk.block_table) for chunk in chunks)

    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    tables: list[int] = []
    for chunk, end in zip(chunks, contexts, strict=True):
        table = chunk.block_table
        token_ids += chunk.token_ids
        positions += range(chunk.start, end)
        for block in range(chunk.start // block_size, (end - 1) // block_size + 1):
            first, past = max(chunk.start, block * block_size), min(end, (block + 1) * block_size)
            base = (table[block] - block) * block_size
            slots += range(base + first, base + past)
        tables += table
        tables += [0] * (width - len(table))
    logit_rows: list[int] = []
    for end, chunk in zip(starts[1:], chunks, strict=True):
        if chunk.draw is not None:
            logit_rows += range(end - 1 - chunk.num_draft, end)

    parts = [token_ids, positions, slots, tables, starts, contexts, logit_rows]
    if chunks[0].state_to >= 0:
        parts += [[chunk.state_from for chunk in chunks], [chunk.state_to for chunk in chunks]]
    packed = torch.from_numpy(np.array(list(chain.from_iterable(parts)), np.int64)).to(device)
    views = list(packed.split([len(part) for part in parts]))
    reads, writes = views[7:] if len(views) > 7 else (None, None)
    paging = Paging(
        positions=views[1],
        slots=views[2],
        block_tables=views[3].view(len(chunks), width),
        query_lens=lens,
        context_lens=contexts,
        query_starts=views[4],
        contexts=views[5],
        state_reads=reads,
        state_writes=writes,
    )
    return Batch(views[0], paging, views[6] if len(logit_rows) < starts[-1] else None, starts[:-1])
