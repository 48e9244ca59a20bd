"""A plan as tensors, in one copy to the device. Called by `runner`; the only place that does it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import torch

from tgi.engine.plan import Plan
from tgi.kernels.ops import Paging


@dataclass(slots=True)
class Batch:
    """What the forward pass reads."""

    token_ids: torch.Tensor  # [tokens] int64
    paging: Paging
    sample_rows: torch.Tensor  # [sampling chunks] int64, last row of each chunk that samples
    first_rows: list[int]  # row where each chunk begins


def build(plan: Plan, block_size: int, device: torch.device) -> Batch:
    """Pack all integers of the plan into one host buffer, copy once, give views."""
    chunks = plan.chunks
    lens = [len(chunk.token_ids) for chunk in chunks]
    starts = [0, *accumulate(lens)]
    contexts = [chunk.end for chunk in chunks]
    rows, sequences, width = starts[-1], len(chunks), max(len(chunk.block_table) for chunk in chunks)

    token_ids = np.fromiter(chain.from_iterable(chunk.token_ids for chunk in chunks), np.int64, rows)
    tables = np.zeros((sequences, width), np.int64)
    for number, chunk in enumerate(chunks):
        tables[number, : len(chunk.block_table)] = chunk.block_table
    owner = np.repeat(np.arange(sequences), lens)  # the sequence of each row
    first_positions = np.fromiter((chunk.start for chunk in chunks), np.int64, sequences)
    positions = np.arange(rows) - np.asarray(starts[:-1])[owner] + first_positions[owner]
    slots = tables[owner, positions // block_size] * block_size + positions % block_size
    sample_rows = [end - 1 for end, chunk in zip(starts[1:], chunks, strict=True) if chunk.samples]

    parts = [token_ids, positions, slots, tables.ravel(), starts, contexts, sample_rows]
    packed = torch.from_numpy(np.concatenate([np.asarray(part, np.int64) for part in parts])).to(device)
    views = packed.split([len(part) for part in parts])
    paging = Paging(
        positions=views[1],
        slots=views[2],
        block_tables=views[3].view(sequences, width),
        query_lens=lens,
        context_lens=contexts,
        query_starts=views[4],
        contexts=views[5],
    )
    return Batch(views[0], paging, views[6], starts[:-1])
