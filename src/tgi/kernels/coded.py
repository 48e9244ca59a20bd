"""`CodedWeight`: rows of a matrix as codes and scales, the form between a stored format and a backend's layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class CodedWeight:
    """weight[r, order[c]] = scales[r, c // group] * (value(codes[r, c]) - zeros[r, c // group]) + mins[r, c // group].

    value(code) is codebook[code], or the code itself without a codebook.
    """

    codes: torch.Tensor  # [rows, columns] uint8
    scales: torch.Tensor  # [rows, groups] float32
    group: int
    zeros: torch.Tensor | None = None  # [rows, groups], in units of codes
    mins: torch.Tensor | None = None  # [rows, groups] float32
    codebook: torch.Tensor | None = None  # [codes] float32
    order: torch.Tensor | None = None  # [columns] int64: coded column c is column order[c] of the matrix

    def dequantise(self) -> torch.Tensor:
        """The weights, [rows, columns] float32."""
        columns = self.codes.shape[1]

        def by_column(values: torch.Tensor) -> torch.Tensor:
            return values.float().repeat_interleave(self.group, 1)[:, :columns]

        values = self.codes.float() if self.codebook is None else self.codebook[self.codes.long()]
        if self.zeros is not None:
            values = values - by_column(self.zeros)
        values = values * by_column(self.scales)
        if self.mins is not None:
            values = values + by_column(self.mins)
        if self.order is not None:
            values = torch.empty_like(values).index_copy_(1, self.order, values)
        return values
