"""`python -m tgi.commands.doctor.native_facts`: what the native kernels find here, and what it is worth, as JSON.

A short-lived process of its own: a library that does not fit the processor would take its process with it.
Owns the measurements: reading memory of several sizes, and multiply-adds in registers at every level that runs.
Imports no torch.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from collections.abc import Callable
from functools import partial

import msgspec

from tgi import hardware
from tgi.kernels.native import library
from tgi.kernels.native.library import Arena, LinearShape, NativeUnavailable, Pool

READS = (32 << 20, 128 << 20, 512 << 20)
"""Bytes: within a large cache of the last level, at its edge, beyond it."""
CHAINS = 12
"""Independent multiply-adds of a round, TGI_MEASURE_CHAINS of csrc/tgi.h."""
KINDS = ((0, 2 * 16), (1, 2 * 64))
"""Kind of `tgi_measure_arithmetic` and operations of one chain: float32, int8."""
FORMATS = ("bfloat16", "int8", "int6", "int5", "iq4_nl")
"""Of the layers that are measured: all that a model has with the values of `--quantize` that are estimated."""
WIDTH, ROWS, GROUP = 1024, 256, 128
LEAST_S = 0.02


class Read(msgspec.Struct):
    bytes: int
    gigabytes_per_s: float


class Level(msgspec.Struct):
    """One instruction-set level of the kernels."""

    name: str
    built: bool
    runs: bool
    """This processor has its instructions."""
    problem: str | None = None
    """Why it cannot be loaded although it is built and runs."""
    float32_gops: float | None = None
    """10^9 multiplications and additions a second in registers, all threads."""
    int8_gops: float | None = None
    layer_gops: dict[str, float] = {}
    """The same reached by a linear layer of 256 rows, by the format of its weights."""


class Native(msgspec.Struct):
    """All that this module finds."""

    threads: int
    levels: list[Level]
    chosen: str | None = None
    reason: str | None = None
    """Why there is no chosen level."""
    reads: list[Read] = []


def find(threads: int, largest_read: int) -> Native:
    """Look at every level of this kind of processor and measure those that run.

    threads: as many as the engine would use; largest_read: bytes that may be allocated.
    """
    runnable = library.runnable()
    native = Native(threads, [_level(name, runnable, threads) for name in library.levels_here()])
    try:
        pool = Pool(library.load(), threads)
    except (NativeUnavailable, MemoryError) as reason:
        native.reason = str(reason)
        return native
    native.chosen = pool.library.level
    native.reads = [_read(pool, size) for size in READS if size <= max(largest_read, READS[0])]
    return native


def _level(name: str, runnable: list[str], threads: int) -> Level:
    level = Level(name, library.path_of(name).exists(), name in runnable)
    if level.built and level.runs:
        try:
            pool = Pool(library.load(name), threads)
        except (NativeUnavailable, MemoryError) as reason:
            level.problem = str(reason)
        else:
            level.float32_gops, level.int8_gops = (_arithmetic(pool, *kind) for kind in KINDS)
            level.layer_gops = {name: _layer(pool, name) for name in FORMATS}
    return level


def _arithmetic(pool: Pool, kind: int, operations: int) -> float:
    """10^9 operations a second of all threads."""
    measure = pool.library.call.tgi_measure_arithmetic
    rounds = 1000
    while (took := _seconds(partial(measure, pool.handle, kind, rounds), 1)) < LEAST_S:
        rounds = int(rounds * max(2.0, min(100.0, 1.2 * LEAST_S / took)))
    took = min(took, _seconds(partial(measure, pool.handle, kind, rounds), 3))
    return round(pool.threads * rounds * CHAINS * operations / took / 1e9, 1)


def _layer(pool: Pool, format: str) -> float:
    """10^9 operations a second of a square layer, whose weights stay in the caches."""
    call, arena = pool.library.call, Arena(pool.library)
    number, activations = call.tgi_format(format.encode()), call.tgi_format(b"int8")
    shape = LinearShape(number, WIDTH, WIDTH, GROUP, rotated=format != "bfloat16", activations=activations)
    layer = call.tgi_linear_create(arena.handle, ctypes.byref(shape))
    if not layer:
        raise MemoryError("no memory for a layer")
    numbers = ctypes.c_float * (ROWS * WIDTH)
    x, y = numbers(), numbers()
    took = _seconds(partial(call.tgi_linear_run, pool.handle, layer, x, ROWS, y, 0), 5)
    return round(2 * ROWS * WIDTH * WIDTH / took / 1e9, 1)


def _read(pool: Pool, size: int) -> Read:
    with mmap.mmap(-1, size) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)  # as the weights have it
        view = (ctypes.c_char * size).from_buffer(memory)
        address = ctypes.addressof(view)
        ctypes.memset(address, 1, size)
        repeats = max(5, (2 << 30) // size)
        took = _seconds(partial(pool.library.call.tgi_measure_read, pool.handle, address, size), repeats)
        del view  # the map cannot close under it
    return Read(size, round(size / took / 1e9, 1))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """Time of the fastest call: what others did meanwhile is not this machine's limit."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> int:
    """Print the findings; exit status 0."""
    native = find(hardware.cpu_count(), hardware.available_memory_bytes() // 4)
    sys.stdout.write(msgspec.json.encode(native).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
