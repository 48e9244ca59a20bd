"""`NativeVocabulary`: ranking and picking over the vocabulary in the native library.

A few passes over a row in place of torch's chains of operations; rows are spread over the pool. Called by
the sampler through `kernels.types.Vocabulary`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch

from tgi.kernels.native.library import Pool
from tgi.kernels.types import Masks


class _Best:
    """Memory for the best of each row: kept, since making a tensor takes longer than finding the best of a row."""

    def __init__(self, rows: int) -> None:
        self.ids = np.empty(rows, dtype=np.int64)
        self.values = np.empty(rows, dtype=np.float32)
        self.masses = np.empty(rows, dtype=np.float64)
        self.pointers = self.ids.ctypes.data, self.values.ctypes.data, self.masses.ctypes.data


class NativeVocabulary:
    """`kernels.types.Vocabulary`."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self._call = pool, pool.library.call
        self._best = _Best(0)

    def rank(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._rank(logits, count, None)

    def rank_and_mass(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        masses = torch.empty(len(logits), dtype=torch.float64)
        return *self._rank(logits, count, masses.data_ptr()), masses

    def best_and_mass(self, logits: torch.Tensor) -> tuple[list[int], list[float]]:
        logits = logits.contiguous()
        rows, size = logits.shape
        if len(self._best.ids) < rows:
            self._best = _Best(rows)
        ids, values, masses = self._best.pointers
        self._call.tgi_rank(self.pool.handle, logits.data_ptr(), rows, size, 1, ids, values, masses)
        return self._best.ids[:rows].tolist(), self._best.masses[:rows].tolist()

    def _rank(self, logits: torch.Tensor, count: int, masses: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        logits = logits.contiguous()
        rows, size = logits.shape
        assert 0 < count <= size
        values = torch.empty((rows, count), dtype=torch.float32)
        ids = torch.empty((rows, count), dtype=torch.int64)
        self._call.tgi_rank(
            self.pool.handle, logits.data_ptr(), rows, size, count, ids.data_ptr(), values.data_ptr(), masses
        )
        return values, ids

    def log_mass(self, logits: torch.Tensor, best: torch.Tensor, divisors: torch.Tensor | None = None) -> torch.Tensor:
        logits = logits.contiguous()
        rows, size = logits.shape
        peaks = logits.gather(-1, best.unsqueeze(-1)).squeeze(-1).contiguous()
        by = _divisors(divisors, rows)
        out = torch.empty(rows, dtype=torch.float64)
        self._call.tgi_log_mass(
            self.pool.handle, logits.data_ptr(), rows, size, by.data_ptr(), peaks.data_ptr(), out.data_ptr()
        )
        return out

    def pick(
        self, logits: torch.Tensor, uniform: torch.Tensor, divisors: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits, uniform = logits.contiguous(), uniform.double().contiguous()
        rows, size = logits.shape
        by = _divisors(divisors, rows)
        ids = torch.empty(rows, dtype=torch.int64)
        logprobs = torch.empty(rows, dtype=torch.float64)
        self._call.tgi_pick(
            self.pool.handle,
            logits.data_ptr(),
            rows,
            size,
            by.data_ptr(),
            uniform.data_ptr(),
            ids.data_ptr(),
            logprobs.data_ptr(),
        )
        return ids, logprobs

    def mask(self, logits: torch.Tensor, rows: Sequence[int], masks: Masks) -> None:
        assert logits.is_contiguous()
        self._call.tgi_mask(self.pool.handle, logits.data_ptr(), logits.shape[-1], *_rows_and_masks(rows, masks))

    def best_allowed(
        self, logits: torch.Tensor, rows: Sequence[int], masks: Masks, *, with_masses: bool
    ) -> tuple[list[int], list[float], list[float]]:
        logits, count = logits.contiguous(), len(rows)
        if len(self._best.ids) < count:
            self._best = _Best(count)
        best, (ids, values, masses) = self._best, self._best.pointers
        self._call.tgi_best_allowed(
            self.pool.handle,
            logits.data_ptr(),
            logits.shape[-1],
            *_rows_and_masks(rows, masks),
            ids,
            values,
            masses if with_masses else None,
        )
        return best.ids[:count].tolist(), best.values[:count].tolist(), best.masses[: count * with_masses].tolist()


def _rows_and_masks(rows: Sequence[int], masks: Masks) -> tuple[int, ctypes.Array[ctypes.c_int64], int, int]:
    """As the library takes them."""
    assert masks.flags.c_contiguous and len(masks) == len(rows)
    return len(rows), (ctypes.c_int64 * len(rows))(*rows), masks.ctypes.data, masks.shape[1]


def _divisors(divisors: torch.Tensor | None, rows: int) -> torch.Tensor:
    return torch.ones(rows) if divisors is None else divisors.float().contiguous()
