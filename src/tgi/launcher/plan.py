"""The memory plan for people: a table at start, and `tgi plan` from config.json alone.

Owns rendering and the way from flags to numbers without weights. The arithmetic is `engine.budget`.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgi.config import EngineConfig
from tgi.engine import budget
from tgi.hardware import Hardware
from tgi.kernels.footprint import footprint
from tgi.memory.cost import model_cost
from tgi.messages import MemoryPlan
from tgi.models.build.decoder import build
from tgi.models.families import read_spec
from tgi.models.rope_config import RopeOverride

WIDTH = 100
DEFAULT_BLOCK_SIZE = 32
"""As `kernels.types` has it, which cannot be imported without torch; a test compares them."""


def compute(engine: EngineConfig, hardware: Hardware) -> budget.Limits:
    """The limits that the engine would find for this configuration; reads config.json only.

    Raises `StartupError` when the model cannot fit or is not supported.
    """
    device = engine.device or ("cuda" if hardware.gpus else "cpu")
    rope = RopeOverride(engine.rope_scaling, engine.rope_factor)
    spec = read_spec(Path(engine.model_path), rope)
    return budget.compute(
        model_cost(
            build(spec),
            serving_dtype(engine.dtype, spec.dtype, device),
            footprint(device, native_kernels=engine.native_kernels),
            logit_rows=budget.DEFAULT_BATCH_SIZE,
            cache_dtype=engine.kv_cache_dtype,
            quantize=engine.quantize,
        ),
        budget.wanted_of(engine),
        available_bytes=engine.memory_bytes or hardware.available_memory,
        device=device,
        block_size=engine.block_size or DEFAULT_BLOCK_SIZE,
    )


def serving_dtype(wanted: str | None, checkpoint: str | None, device: str) -> str:
    """As wanted, else the checkpoint's; float16 becomes bfloat16 on a CPU."""
    if wanted is not None:
        return wanted
    if checkpoint == "float16" and device == "cpu":
        return "bfloat16"
    return checkpoint or "float32"


def render(plan: MemoryPlan, limits: budget.Limits | None = None) -> str:
    """The plan as a table, with what fits and why it is not more."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=14)
    table.add_column(justify="right", width=12)
    table.add_column(justify="right", width=6)
    table.add_column()
    for row in plan.rows:
        share = f"{row.bytes / max(plan.available_bytes, 1):.1%}"
        table.add_row(Text(row.name), budget.size(row.bytes), share, Text(row.note))
    table.add_row("available", budget.size(plan.available_bytes), "100.0%")
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, soft_wrap=True)
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    requests = f"{plan.full_length_requests:.1f}".removesuffix(".0")
    lines.append(f"The cache holds {plan.cache_tokens} tokens: {requests} requests of full length at once.")
    lines.append(f"What limits it: {plan.binding_limit}.")
    lines += [f"Note: {sentence}." for sentence in plan.lowered]
    if limits is not None:
        lines.append(
            f"--max-input-tokens {limits.max_input_tokens} --max-total-tokens {limits.max_total_tokens} "
            f"--max-batch-prefill-tokens {limits.max_batch_prefill_tokens} --max-batch-size {limits.max_batch_size}"
        )
    return "\n".join(lines)


def plan_lines(plan: MemoryPlan) -> list[str]:
    """The table line by line, for the log."""
    return ["Memory plan:", *("  " + line for line in render(plan).splitlines())]
