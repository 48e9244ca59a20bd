"""The native kernels beside the limits of this machine: what each linear layer reads and computes a second.

First the limits, measured by the library itself with the same threads: reading memory of several sizes, and
multiply-adds in registers. Then each weight format at several numbers of rows, over as many copies of the
layer as exceed the caches (quantised ones rotate activations, as served), and attention over the cache. One row is
bound by reading, many by arithmetic."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from tests.models.driver import make_paging

from tgi import hardware
from tgi.kernels.formats import CODE_FORMATS, CODE_PANELS
from tgi.kernels.native import cache as native_cache
from tgi.kernels.native.library import LEVELS, Arena, Library, NativeUnavailable, Pool, load
from tgi.kernels.native.linear import FORMATS, WHOLE, Apart, PackedLinear
from tgi.kernels.program import CacheLayer
from tgi.kernels.types import CacheShape
from tgi.quant.library_rounding import to_e4m3

READS_MIB = (1, 32, 128, 512)
STORED = {
    "Q8_0": ("int8", Apart(32, "float16", zero=128)),
    "Q6_K": ("int6", Apart(16, "int8", zero=32)),
    "Q5_K": ("int5", Apart(32, "int8", minimums=True)),
    "Q4_K": ("int4", Apart(32, "int8", minimums=True)),
    "Q3_K": ("int3", Apart(16, "int8", zero=4)),
    "Q2_K": ("int2", Apart(16, "nibbles", minimums=True)),
    "Q4_0": ("int4", Apart(32, "float16", zero=8)),
    "nf4": ("int4", Apart(64, "float16", zero=128, book=tuple(range(0, 256, 16)))),
    "gptq-8": ("int8", Apart(128, "float16", zero_bits=8)),
    "gptq-4": ("int4", Apart(128, "float16", zero_bits=4)),
    "gptq-3": ("int3", Apart(128, "float16", zero_bits=4)),
    "gptq-2": ("int2", Apart(128, "float16", zero_bits=4)),
    "eetq": ("int8", Apart(0, "float16", zero=128)),
}
"""Codes of checkpoints by name: their panels."""
CHAINS = 12
"""As csrc/tgi.h has it."""


def seconds(call: Callable[[], object], least: float = 0.2) -> float:
    """Median time of one call over at least `least` seconds and five calls, after one to warm up."""
    call()
    times: list[float] = []
    while len(times) < 5 or sum(times) < least:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def limits(pool: Pool, console: Console) -> None:
    call = pool.library.call
    table = Table(title=f"Limits of this machine, {pool.threads} threads, {pool.library.level}")
    table.add_column("what")
    table.add_column("value", justify="right")
    for size in READS_MIB:
        memory = torch.ones(size << 20, dtype=torch.uint8)
        took = seconds(lambda memory=memory: call.tgi_measure_read(pool.handle, memory.data_ptr(), memory.numel()))
        table.add_row(f"read {size} MiB again and again", f"{memory.numel() / took / 1e9:.1f} GB/s")
    rounds = 1_000_000
    for kind, name, operations in ((0, "float32 multiply-add", 32), (1, "int8 dot product", 128)):
        took = seconds(lambda kind=kind: call.tgi_measure_arithmetic(pool.handle, kind, rounds))
        table.add_row(name, f"{pool.threads * rounds * CHAINS * operations / took / 1e9:.0f} Gop/s")
    console.print(table)


def linears(
    pool: Pool, console: Console, formats: list[str], shape: tuple[int, int], rows: list[int], mib: int
) -> None:
    width, height = shape
    table = Table(title=f"Linear layers {width} -> {height}, over {mib} MiB of weights: GB/s of weights | Gop/s")
    table.add_column("format")
    for count in rows:
        table.add_column(f"{count} rows", justify="right")
    weight = torch.randn((height, width))
    for format in formats:
        arena = Arena(pool.library)
        layers: list[PackedLinear] = []
        while sum(layer.bytes for layer in layers) < mib << 20:
            layers.append(_layer(pool, arena, format, weight))
            layers[-1].finish()
        cells = []
        for count in rows:
            x, out = torch.randn((count, width)), torch.empty((count, height))
            took = seconds(lambda layers=layers, x=x, out=out: run_all(pool, layers, x, out)) / len(layers)
            gigabytes, gigaoperations = layers[0].bytes / took / 1e9, 2 * width * height * count / took / 1e9
            cells.append(f"{gigabytes:.1f} | {gigaoperations:.0f}")
        table.add_row(format, *cells)
    console.print(table)


def _layer(pool: Pool, arena: Arena, format: str, weight: torch.Tensor) -> PackedLinear:
    height, width = weight.shape
    if format == "fp8":
        layer = PackedLinear(pool, arena, "e4m3", width, height, group=0)
        rounded = to_e4m3(weight.float())
        layer.pack_codes(rounded.codes, rounded.scales)
        return layer
    if format not in STORED:
        layer = PackedLinear(pool, arena, format, width, height, rotated=format in CODE_FORMATS)
        layer.pack(weight.half() if format == "float16" else weight)
        return layer
    panels, apart = STORED[format]
    part = math.gcd(apart.scale_group or 128, 128)
    layer = PackedLinear(pool, arena, panels, width, height, group=part, apart=apart)
    codes = torch.randint(0, 1 << CODE_PANELS[panels].bits, (height, width), dtype=torch.uint8)
    scales = torch.rand((height, -(-width // (apart.scale_group or width)))) / 100
    zeros = torch.full(scales.shape, 1 << CODE_PANELS[panels].bits - 1) if apart.zero_bits else None
    steps = torch.ones((height, -(-width // 256))) / 1e3 if apart.scale_type in WHOLE else None
    least = -scales if apart.minimums else None
    layer.pack_codes(codes, scales, zeros, least, steps=steps, min_steps=None if least is None else steps)
    return layer


def run_all(pool: Pool, layers: list[PackedLinear], x: torch.Tensor, out: torch.Tensor) -> None:
    run = pool.library.call.tgi_linear_run
    for layer in layers:
        run(pool.handle, layer.handle, x.data_ptr(), len(x), out.data_ptr(), 0)


def attention(pool: Pool, console: Console, contexts: list[int]) -> None:
    heads, kv_heads, dim, sequences = 9, 3, 64, 16
    table = Table(
        title=f"Attention of {sequences} decoding rows, {heads} heads over {kv_heads} of {dim}: GB/s of cache"
    )
    table.add_column("cache")
    for context in contexts:
        table.add_column(f"context {context}", justify="right")
    for dtype in native_cache.TYPES:
        cells = []
        for context in contexts:
            blocks = -(-context // 32)
            shape = CacheShape((CacheLayer(kv_heads, dim),), dtype)
            cache = native_cache.allocate_cache(pool.library, shape, blocks * sequences)
            tables = [list(range(number * blocks, (number + 1) * blocks)) for number in range(sequences)]
            paging = make_paging(tables, [context - 1] * sequences, [1] * sequences, 32)
            for store in (*cache.keys, *cache.values):
                store.zero_()
            queries = torch.randn((sequences, heads, dim))
            took = seconds(
                lambda queries=queries, cache=cache, paging=paging: native_cache.attention(
                    pool, queries, cache, 0, paging, 0.1
                )
            )
            cells.append(f"{native_cache.cache_bytes(pool.library, shape, blocks * sequences) / took / 1e9:.1f}")
        table.add_row(str(dtype).removeprefix("torch."), *cells)
    console.print(table)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=hardware.cpu_count(), help="default: those this process may use")
    parser.add_argument("--level", choices=LEVELS, help="instruction-set level; default: the best that runs here")
    every = (*FORMATS, "fp8", *STORED)
    parser.add_argument("--formats", default=",".join(every), help=f"comma list of {', '.join(every)}")
    parser.add_argument("--rows", type=numbers, default=[1, 4, 8, 16, 512], help="comma list; default 1,4,8,16,512")
    parser.add_argument("--shape", type=numbers, default=[2048, 2048], help="in,out; default 2048,2048")
    parser.add_argument("--weights-mib", type=int, default=256, help="weights read in turn, to leave the caches behind")
    parser.add_argument(
        "--contexts", type=numbers, default=[128, 1024, 4096], help="of attention; default 128,1024,4096"
    )
    arguments = parser.parse_args()
    console = Console(width=120)
    try:
        library: Library = load(arguments.level)
    except NativeUnavailable as reason:
        parser.exit(1, f"{reason}\n")
    pool = Pool(library, arguments.threads)
    limits(pool, console)
    shape = (arguments.shape[0], arguments.shape[1])
    linears(pool, console, arguments.formats.split(","), shape, arguments.rows, arguments.weights_mib)
    attention(pool, console, arguments.contexts)


if __name__ == "__main__":
    main()
