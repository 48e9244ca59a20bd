"""`CodedWeight`: rows of a matrix as codes and scales, the form between a stored format and a backend's layout."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from tgi.kernels.rotation import ROTATION, rotate

STEP_COLUMNS = 256
"""Columns of a block that `CodedWeight.steps` has a number for."""
OF_ROWS = ("scales", "zeros", "mins", "steps", "min_steps")


@dataclass(frozen=True, slots=True)
class CodedWeight:
    """coded[r, c] = scales[r, c // group] * (value(codes[r, c]) - zeros[r, c // group]) + mins[r, c // group].

    value(code) is codebook[code], or the code itself without a codebook. The matrix is coded[r, c] in column order[c];
    and `rotated`: then rotated back (`kernels.rotation`). Slices of rows, and of columns at whole groups and blocks,
    are coded weights of the sliced matrix.
    """

    codes: torch.Tensor  # [rows, columns] uint8
    scales: torch.Tensor  # [rows, groups] float32
    group: int
    zeros: torch.Tensor | None = None  # [rows, groups], in units of codes
    mins: torch.Tensor | None = None  # [rows, groups] float32
    codebook: torch.Tensor | None = None  # [codes] float32
    order: torch.Tensor | None = None  # [columns] int64: coded column c is column order[c] of the matrix
    rotated: bool = False
    steps: torch.Tensor | None = None
    """[rows, blocks of 256 columns] float32: each scale is a whole number from -128 to 127 times that of its block."""
    min_steps: torch.Tensor | None = None  # the same of mins, -128 to 127, where there are some

    def dequantise(self) -> torch.Tensor:
        """The weights, [rows, columns] float32."""
        values = self.coded_values()
        if self.order is not None:
            values = torch.empty_like(values).index_copy_(1, self.order, values)
        return rotate(values) if self.rotated else values

    def coded_values(self) -> torch.Tensor:
        """What the codes say, [rows, columns] float32, in their own order and rotation."""
        columns, padding = self.codes.shape[1], -self.codes.shape[1] % self.group
        codes = F.pad(self.codes, (0, padding)) if padding else self.codes
        values = codes.float() if self.codebook is None else self.codebook[codes.int()]
        values = values.unflatten(1, (-1, self.group))  # [rows, groups, group]
        if self.zeros is not None:
            values -= self.zeros.float().unsqueeze(-1)
        values *= self.scales.float().unsqueeze(-1)
        if self.mins is not None:
            values += self.mins.float().unsqueeze(-1)
        return values.flatten(1)[:, :columns]

    def rows(self, begin: int, end: int) -> CodedWeight:
        """Rows begin ... end - 1."""
        return self._with_each(lambda part: part[begin:end], lambda part: part[begin:end], OF_ROWS)

    def rows_of(self, rows: torch.Tensor) -> CodedWeight:
        """Some rows [count] int64 in an order of the caller's."""
        return self._with_each(lambda part: part[rows], lambda part: part[rows], OF_ROWS)

    def columns(self, begin: int, end: int) -> CodedWeight:
        """Columns begin ... end - 1 of the matrix. Raises ValueError where they are no codes of their own.

        begin must be a multiple of the group and, of a rotated matrix, of 128; so must end, but where it is the last.
        """
        if self.order is not None:
            raise ValueError("columns of a matrix whose columns are stored in another order cannot be cut out")
        units = (self.group, ROTATION) if self.rotated else (self.group,)
        total = self.codes.shape[1]
        if any(begin % unit or (end % unit and end != total) for unit in units):
            raise ValueError(f"columns {begin} to {end} of {total} do not lie on whole groups and blocks of {units}")
        groups = slice(begin // self.group, -(-end // self.group))
        cut = self._with_each(lambda codes: codes[:, begin:end], lambda part: part[:, groups])
        if begin % STEP_COLUMNS:
            return replace(cut, steps=None, min_steps=None)
        blocks = slice(begin // STEP_COLUMNS, -(-end // STEP_COLUMNS))
        parts = {name: getattr(self, name) for name in ("steps", "min_steps")}
        return replace(cut, **{name: None if part is None else part[:, blocks] for name, part in parts.items()})

    def _with_each(self, of_codes, of_groups, names: tuple[str, ...] = ("scales", "zeros", "mins")) -> CodedWeight:
        parts = {name: getattr(self, name) for name in names}
        return replace(
            self,
            codes=of_codes(self.codes),
            **{name: None if part is None else of_groups(part) for name, part in parts.items()},
        )
