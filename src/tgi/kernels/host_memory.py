"""Memory of the host that is zero, and taken page by page when it is first written.

`torch.empty` and `zero_` would take all of it at once, and clear 5 GB a second.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Sequence

import torch


def lazy_zeros(count: int) -> torch.Tensor:
    """`count` bytes [count] uint8. Raises RuntimeError, as torch does, where the system refuses the addresses."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        memory = mmap.mmap(-1, max(count, 1), flags=flags)
    except (OSError, OverflowError, ValueError) as error:
        raise RuntimeError(f"{count} bytes cannot be mapped: {error}") from error
    return torch.frombuffer(memory, dtype=torch.uint8)[:count]  # which keeps the mapping


def give_back(tensors: Iterable[torch.Tensor]) -> None:
    """Return to the system what parts of `lazy_zeros` have taken; all of it is zero again, also what others share.

    A hint: elsewhere than on Linux, and for other memory than the host's, nothing is done.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    for address, count in {(storage.data_ptr(), storage.nbytes()) for storage in storages}:
        madvise(address, count, mmap.MADV_DONTNEED)


def state_stores(sizes: Sequence[int], num_slots: int, device: torch.device) -> list[torch.Tensor]:
    """Slots of states [slots, numbers] float32, one tensor for each of these sizes; memory is taken as it is used."""
    if device.type != "cpu":
        return [torch.zeros((num_slots, size), device=device) for size in sizes]
    return [lazy_zeros(4 * num_slots * size).view(torch.float32).view(num_slots, size) for size in sizes]
