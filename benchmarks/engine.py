"""Decode throughput of the engine in this process, and the share of a step outside the forward pass.

For each concurrency: all prompts prefilled, then 64 greedy tokens each. The limit beside it is what
memory bandwidth allows: every step reads the weights once, of experts those that its row chose; of a mixture it is also
said how much that is beside a dense model of the active size.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import SHAPES, ensure
from tgi.engine.core import EngineCore
from tgi.engine.main import make_scheduler
from tgi.engine.worker import Worker
from tgi.kernels.footprint import Footprint
from tgi.memory.cost import read_bytes
from tgi.messages import Abort, GenerateRequest, Sampling
from tgi.models.build.decoder import build
from tgi.models.families.registry import read_spec
from tgi.models.spec import LayerSpec, ModelSpec
from tgi.settings.config import EngineConfig
from tgi.shorten import size


def read_bandwidth() -> float:
    """Bytes per second that all threads read from a buffer larger than the caches of most machines."""
    import torch

    buffer = torch.ones(1 << 28, dtype=torch.float32)  # 1 GiB
    buffer.sum()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        buffer.sum()
        times.append(time.perf_counter() - began)
    return buffer.nbytes / min(times)


def dense_of_active_size(spec: ModelSpec) -> ModelSpec:
    """A model without routers, whose feed-forwards are as large as what one token meets of the experts."""

    def dense(layer: LayerSpec) -> LayerSpec:
        experts = layer.experts
        if experts is None:
            return layer
        inner = experts.top * experts.inner + experts.shared + experts.beside
        inner += layer.feedforward.inner if experts.beside_dense else 0
        feedforward = replace(layer.feedforward, inner=inner, gated=True, bias=experts.bias)
        return replace(layer, feedforward=feedforward, experts=None)

    names = replace(spec.names, up=("dense.{}.gate", "dense.{}.up"), down="dense.{}.down", transposed=False)
    return replace(spec, layers=tuple(map(dense, spec.layers)), names=names)


def beside_dense(spec: ModelSpec, read: int, dtype: str, footprint: Footprint, quantize: str | None) -> str:
    """Words for a table: what a mixture reads, divided by what a dense model of its active size would; else nothing."""
    if all(layer.experts is None for layer in spec.layers):
        return ""
    dense = read_bytes(build(dense_of_active_size(spec)), dtype, footprint, quantize)
    return f" ({read / dense:.3f} times what a dense model of the active size reads)"


def measure(core: EngineCore, concurrency: int, prompt: int, new: int, vocab: int) -> dict[str, float]:
    """Medians over decode steps at this concurrency."""
    generator = random.Random(concurrency)
    # Early prompts decode while later ones are read, so all must go on until `new` steps of all were seen.
    budget = core.scheduler.max_total_tokens - prompt
    for number in range(concurrency):
        ids = [generator.randrange(300, vocab) for _ in range(prompt)]
        core.handle(GenerateRequest(number, ids, Sampling(max_new_tokens=budget), (0,)))
    began = time.perf_counter()
    prefill_s = 0.0
    steps = []
    while core.has_work and len(steps) < new:
        stats = core.step().stats
        if stats.scheduled_prefill_tokens:
            prefill_s = time.perf_counter() - began
        elif stats.scheduled_decode_tokens == concurrency:
            steps.append((stats.total_s, stats.forward_s, stats.sample_s, stats.schedule_s))
    for number in range(concurrency):
        core.handle(Abort(number))
    core.step()
    total, forward, sample, schedule = (statistics.median(column) for column in zip(*steps, strict=True))
    return {
        "prefill": concurrency * prompt / prefill_s,
        "decode": concurrency / total,
        "step": total,
        "outside": 1 - forward / total,
        "sample": sample / total,
        "schedule": schedule / total,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="smollm2-135m", choices=list(SHAPES))
    parser.add_argument("--model-id", type=Path, help="a checkpoint directory in place of --shape")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize")
    parser.add_argument("-c", "--concurrency", default="1,4,8,16", help="comma list")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--kv-cache-dtype", help="int8: half the memory of a context, native kernels only")
    parser.add_argument("--disable-custom-kernels", action="store_true", help="measure the torch reference")
    parser.add_argument("--profile", action="store_true", help="what the native step spends its time on")
    arguments = parser.parse_args()
    path = arguments.model_id or ensure(arguments.shape)
    config = EngineConfig(
        model_path=str(path),
        device="cpu",
        dtype=arguments.dtype,
        quantize=arguments.quantize,
        kv_cache_dtype=arguments.kv_cache_dtype,
        native_kernels=not arguments.disable_custom_kernels,
        threads=arguments.threads,
        max_total_tokens=4096,
        prefix_caching=False,
    )
    bandwidth = read_bandwidth()
    worker = Worker(config)
    info = worker.info
    step = worker.runner.step
    read = read_bytes(step.program, info.dtype, worker.footprint, info.quantize)
    limit = bandwidth / read
    table = Table(
        title=f"{path.name} {info.dtype} {info.quantize or ''} on {info.device}: a step at 1 reads {size(read)}"
        f"{beside_dense(read_spec(path), read, info.dtype, worker.footprint, info.quantize)} of "
        f"{size(info.weight_bytes)}, limit {limit:.0f} tokens/s"
    )
    for column in (
        "concurrency",
        "prefill t/s",
        "decode t/s",
        "of limit",
        "x at 1",
        "step ms",
        "outside forward",
        "sample",
    ):
        table.add_column(column, justify="right")
    first = 0.0
    profiles = []
    for concurrency in map(int, arguments.concurrency.split(",")):
        core = EngineCore(make_scheduler(info), worker)
        before = profile(worker) if arguments.profile else {}
        row = measure(core, concurrency, arguments.prompt_tokens, arguments.new_tokens, info.vocab_size)
        if arguments.profile:
            profiles.append((concurrency, {name: seconds - before[name] for name, seconds in profile(worker).items()}))
        first = first or row["decode"]
        table.add_row(
            str(concurrency),
            f"{row['prefill']:.0f}",
            f"{row['decode']:.1f}",
            f"{row['decode'] / concurrency / limit:.0%}",
            f"{row['decode'] / first:.2f}",
            f"{row['step'] * 1e3:.1f}",
            f"{row['outside']:.1%}",
            f"{row['sample']:.1%}",
        )
    console = Console(width=120)
    console.print(table)
    for concurrency, seconds in profiles:
        parts = sorted(seconds.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {part / sum(seconds.values()):.1%}" for name, part in parts if part > 0)
        console.print(f"native steps at {concurrency}, prefill included: {shares}")


def profile(worker: Worker) -> dict[str, float]:
    """Seconds by kind of operation so far; empty where the backend does not tell."""
    return worker.runner.step.profile()


if __name__ == "__main__":
    main()
