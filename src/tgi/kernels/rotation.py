"""The rotation of rows: an orthonormal Walsh-Hadamard transform of each block of 128 columns.

The definition of csrc/hadamard.h. A weight that is kept rotated meets activations that are rotated in the same way, so
the product stays what it was; but large channels, which would round badly and spoil the scale of their neighbours, are
spread over their block (QuaRot, arXiv 2404.00456).
"""

from __future__ import annotations

import torch

ROTATION = 128
"""Columns of a whole block."""


def block_lengths(columns: int) -> list[int]:
    """The blocks of a row: whole ones, then the powers of two of what is left, largest first."""
    whole, left = divmod(columns, ROTATION)
    return [ROTATION] * whole + [1 << bit for bit in range(ROTATION.bit_length() - 1, -1, -1) if left >> bit & 1]


def hadamard(length: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The symmetric orthonormal matrix [length, length] of a block, its own inverse; length: a power of two."""
    matrix = torch.ones((1, 1), dtype=torch.float64)
    while len(matrix) < length:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return (matrix / length**0.5).to(dtype)


def rotate(rows: torch.Tensor) -> torch.Tensor:
    """rows [..., columns] float32 -> the same rotated; twice gives the rows back.

    By sums and differences in the order of the kernels, so that both have the same bits.
    """
    columns = rows.shape[-1]
    whole = columns // ROTATION * ROTATION
    parts = [_transform(rows[..., :whole].unflatten(-1, (-1, ROTATION))).flatten(-2)] if whole else []
    begin = whole
    for length in block_lengths(columns - whole):
        parts.append(_transform(rows[..., begin : begin + length]))
        begin += length
    return torch.cat(parts, -1)


def _transform(blocks: torch.Tensor) -> torch.Tensor:
    """blocks [..., length], each of them transformed."""
    length, apart = blocks.shape[-1], 1
    while apart < length:
        first, second = blocks.unflatten(-1, (-1, 2, apart)).unbind(-2)
        blocks = torch.stack((first + second, first - second), -2).flatten(-3)
        apart *= 2
    return blocks * length**-0.5
