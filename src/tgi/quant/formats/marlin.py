"""The layout of Marlin's GPU kernel, in which some 4-bit GPTQ checkpoints are stored (`checkpoint_format: marlin`).

Tensors of a module with K columns and N rows: B [K / 16, 2 N] int32, s [groups, N]; symmetric, groups of 128 or one.
Codes lie in tiles of 16 x 16, 64 rows of the matrix at a time in the order in which tensor cores take them (Frantar et
al. 2024).
"""

from __future__ import annotations

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats.modules import Part, check_dims, group_of, read, whole_tensors

TILE = 16
UNIT = 64
"""Rows of the matrix whose codes lie together."""
NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight codes each nibble of a word holds."""


def stores(source: WeightSource, module: str) -> bool:
    """Whether the module is stored so."""
    return whole_tensors(source, module, ("B", "s"), "marlin")


def read_rows(source: WeightSource, part: Part, said: object) -> CodedWeight:
    """Rows of a module. said: the group size of the settings. Raises ModelError."""
    name = part.module
    if part.columns % TILE or part.rows % UNIT:
        raise ModelError(f"Module {name} of {part.rows} x {part.columns} cannot be stored as marlin: fetch it again")
    check_dims(source, f"{name}.B", (part.columns // TILE, 2 * part.rows), "marlin")
    groups, _ = check_dims(source, f"{name}.s", (None, part.rows), "marlin")
    group = group_of(f"{name}.s", part.columns, groups, said, "marlin")
    begin, end = part.begin // UNIT * UNIT, -(-part.end // UNIT) * UNIT
    words = read(source, f"{name}.B", torch.int32, (slice(None), slice(2 * begin, 2 * end)))
    codes = ((words.unsqueeze(-1) >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15).to(torch.uint8)
    tiled = torch.empty((len(words), (end - begin) // UNIT, 4 * TILE * TILE), dtype=torch.uint8)
    tiled[..., _code_order()] = codes.view(tiled.shape)
    # [K / 16, N / 64, 4 tiles, 16 of K, 16 of N] -> [N, K]
    matrix = tiled.view(len(words), -1, 4, TILE, TILE).permute(1, 2, 4, 0, 3).reshape(end - begin, part.columns)
    stored = read(source, f"{name}.s", torch.float32)
    order = _scale_order(single=groups == 1)
    scales = torch.empty_like(stored).view(-1, len(order))
    scales[:, order] = stored.view(-1, len(order))
    cut = slice(part.begin - begin, part.end - begin)
    return CodedWeight(
        matrix[cut],
        scales.view(groups, part.rows)[:, part.span].t().contiguous(),
        group,
        torch.full((part.end - part.begin, groups), 8),
    )


def _code_order() -> torch.Tensor:
    """Of the codes of four tiles, stored one after another: where each stands in [4, 16, 16]."""
    order = []
    for lane in range(32):
        column, row = lane // 4, 2 * (lane % 4)
        eight = [TILE * k + column + 8 * half for half in (0, 1) for k in (row, row + 1, row + 8, row + 9)]
        for tile in range(4):
            order += [TILE * TILE * tile + eight[nibble] for nibble in NIBBLES]
    return torch.tensor(order)


def _scale_order(*, single: bool) -> torch.Tensor:
    if single:
        return torch.tensor([2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)])
    return torch.tensor([i + 8 * j for i in range(8) for j in range(8)])
