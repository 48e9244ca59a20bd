"""Which backend serves a device."""

from __future__ import annotations

import torch

from tgi.kernels.native import backend as native
from tgi.kernels.reference.backend import ReferenceBackend
from tgi.kernels.types import Backend


def select(
    device: torch.device, dtype: torch.dtype, block_size: int | None = None, *, threads: int | None = None
) -> Backend:
    """The best backend for weights of `dtype` on `device`.

    threads: how many the native kernels of a CPU may use; None: the reference backend.
    """
    fits = block_size in (None, native.BLOCK_SIZE) and dtype in native.DTYPES
    if device.type == "cpu" and threads is not None and fits:
        backend = native.make_backend(threads)
        if backend is not None:
            return backend
    return ReferenceBackend(device, block_size)
