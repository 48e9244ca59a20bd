"""The findings of `tgi doctor` for people."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgi.commands.doctor.findings import Findings
from tgi.shorten import size

WIDTH = 110
NONE = "-"


def render(findings: Findings) -> str:
    """Facts, kernels, rates, what they mean for models, advice."""
    parts = [_facts(findings), _kernels(findings), _estimates(findings), _advice(findings)]
    return "\n\n".join(part for part in parts if part)


def _facts(findings: Findings) -> str:
    rows = [
        ("tgi", f"{findings.version}, Python {findings.python}, {findings.system}"),
        ("processor", f"{findings.processor} ({findings.machine})"),
        ("cores", _cores(findings)),
        ("memory", _memory(findings)),
        ("huge pages", _huge_pages(findings.huge_pages)),
        ("torch", _torch(findings)),
        ("CUDA", _cuda(findings)),
        ("compiler", ", ".join(findings.compilers) or "none found"),
        ("packages", _packages(findings)),
    ]
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=f"{name:<12}", subsequent_indent=" " * 12) for name, text in rows
    )


def _cores(findings: Findings) -> str:
    cores = findings.cores
    limits = [f"{cores.machine} in the machine"]
    if cores.affinity != cores.machine:
        limits.append(f"{cores.affinity} by affinity")
    limits.append("no quota" if cores.quota is None else f"a quota of {cores.quota:g}")
    return f"{cores.usable} usable: {', '.join(limits)}"


def _memory(findings: Findings) -> str:
    memory = findings.memory
    whole = f"{size(memory.available_bytes)} available of {size(memory.total_bytes)}"
    if memory.total_bytes < memory.machine_bytes:
        return f"{whole}, the limit of this container; the machine has {size(memory.machine_bytes)}"
    return whole


def _huge_pages(setting: str | None) -> str:
    if setting is None:
        return "unknown to this system"
    return f"{setting}: weights and cache {'cannot have' if setting == 'never' else 'get'} them"


def _torch(findings: Findings) -> str:
    torch = findings.torch
    if torch is None:
        return f"does not work: {findings.torch_problem}"
    build = f"CUDA {torch.cuda}" if torch.cuda else "CPU build"
    return f"{torch.version}, {build}, computes with {torch.cpu_capability} on the CPU"


def _cuda(findings: Findings) -> str:
    devices = findings.torch.devices if findings.torch else []
    if devices:
        return "; ".join(
            f"{device.name}, {size(device.memory_bytes)}, compute capability {device.compute_capability}"
            for device in devices
        )
    return f"{', '.join(findings.gpus)}, which torch cannot use" if findings.gpus else "no device"


def _packages(findings: Findings) -> str:
    return ", ".join(f"{name} {version or 'not installed'}" for name, version in findings.packages.items())


def _kernels(findings: Findings) -> str:
    native = findings.native
    if native is None:
        return f"Native kernels: not to be had ({findings.native_problem})"
    if native.chosen:
        head = f"Native kernels: {native.chosen}, the best level that was built and runs here."
    else:
        head = f"Native kernels: none; the torch operations serve. {native.reason or ''}".rstrip()
    rows = [
        (
            level.name + (" *" if level.name == native.chosen else ""),
            "yes" if level.built else "no",
            "yes" if level.runs else "no" if any(one.runs for one in native.levels) else "unknown",
            *(
                f"{rate:.0f}" if rate is not None else NONE
                for rate in (
                    level.float32_gops,
                    level.int8_gops,
                    *(level.layer_gops.get(name) for name in ("bfloat16", "int8", "iq4_nl")),
                )
            ),
            level.problem or "",
        )
        for level in native.levels
    ]
    title = f"Gop/s of {native.threads} threads: multiply-adds in registers, and layers of 256 rows"
    heads = ("level", "built", "runs", "float32", "int8", "bfloat16 layer", "int8 layer", "int4 layer", "")
    return "\n".join([head, title, _table(heads, rows)])


def _estimates(findings: Findings) -> str:
    native, torch = findings.native, findings.torch
    reads = (native.reads if native else []) or (torch.reads if torch else [])
    if not reads:
        return "Reading memory could not be measured."
    rates = ", ".join(f"{read.bytes >> 20} MiB at {read.gigabytes_per_s:g} GB/s" for read in reads)
    rows = [
        (
            estimate.model,
            estimate.weights,
            size(estimate.weight_bytes),
            *(
                f"{bound:g}" if bound is not None else NONE
                for bound in (estimate.decode_at_1, estimate.decode_at_16, estimate.prefill)
            ),
        )
        for estimate in findings.estimates
    ]
    heads = ("model", "weights", "bytes", "decode at 1", "decode at 16", "prefill")
    lines = [
        f"Memory is read over and over: {rates}.",
        "Upper bounds in tokens a second (weight bytes over bandwidth, operations over layer rate; short contexts):",
    ]
    return "\n".join([*lines, _table(heads, rows)])


def _advice(findings: Findings) -> str:
    if not findings.advice:
        return "Nothing to mend."
    return "\n".join(
        textwrap.fill(sentence, WIDTH, initial_indent="* ", subsequent_indent="  ") for sentence in findings.advice
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = Table(box=None, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 or not head else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(f"  {line.rstrip()}" for line in text.splitlines())
