"""The memory plan for people: a table of rows, and sentences about what limits it."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgi.memory.budget import Limits
from tgi.messages import MemoryPlan
from tgi.shorten import size

WIDTH = 100


def render(plan: MemoryPlan, limits: Limits | None = None) -> str:
    """The plan as a table, with what fits and why it is not more."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=14)
    table.add_column(justify="right", width=12)
    table.add_column(justify="right", width=6)
    table.add_column()
    for row in plan.rows:
        share = f"{row.bytes / max(plan.available_bytes, 1):.1%}"
        table.add_row(Text(row.name), size(row.bytes), share, Text(row.note))
    table.add_row("available", size(plan.available_bytes), "100.0%")
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
