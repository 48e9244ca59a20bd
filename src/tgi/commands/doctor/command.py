"""`tgi doctor`: what this machine has for serving, what each part is worth, and what would make it faster.

Owns gathering the facts and the advice. What needs the native libraries or torch runs in short-lived child
processes (`native_facts`, `torch_facts`); rendering is `report`, arithmetic on shapes `estimate`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from tgi import __version__, children, hardware
from tgi.commands.doctor import report as doctor_report
from tgi.commands.doctor.estimate import estimates
from tgi.commands.doctor.findings import Cores, Findings, Memory, Torch
from tgi.commands.doctor.native_facts import Native
from tgi.settings.parse import UsageError

DOCTOR_HELP = """\
Show what this machine has for serving, what each part is worth, and what would make it faster.

Usage: tgi doctor [OPTIONS]

Loads no model; takes a few seconds, in which it measures how fast memory is read and how fast each
instruction-set level multiplies.

Options:
  --json         Print the findings as JSON
  -h, --help     Print this text
  -V, --version  Print the version"""

COMPILERS = ("c++", "g++", "clang++")
OPTIONAL = {
    "opentelemetry-sdk": "traces, --otlp-endpoint; extra `otlp`",
    "opentelemetry-exporter-otlp-proto-grpc": "traces, --otlp-endpoint; extra `otlp`",
    "matplotlib": "`tgi bench --plot`; extra `plot`",
}
REQUIRED = ("torch", "transformers", "tokenizers", "safetensors")
CHILD_TIMEOUT_S = 120
GET_COMPILER = (
    "Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; Alpine: apk add g++; macOS: xcode-select --install"
)

Answer = TypeVar("Answer")


def doctor(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`tgi doctor`: exit status 0, whatever is found. Raises UsageError."""
    if "--help" in words or "-h" in words:
        print(DOCTOR_HELP)
        return 0
    if "--version" in words or "-V" in words:
        print(f"tgi {__version__}")
        return 0
    if unknown := [word for word in words if word != "--json"]:
        raise UsageError(f"unexpected argument '{unknown[0]}' found")
    findings = examine(variables)
    if "--json" in words:
        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        print(doctor_report.render(findings))
    return 0


def examine(variables: Mapping[str, str]) -> Findings:
    """Gather everything; takes a few seconds, most of them to import torch."""
    cores = Cores(
        hardware.cpu_count(),
        os.cpu_count() or 1,
        hardware.affinity_count(),
        hardware.cpu_quota(),
        round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )
    memory = Memory(hardware.available_memory_bytes(), hardware.total_memory_bytes(), hardware.machine_memory_bytes())
    native, native_problem = ask("tgi.commands.doctor.native_facts", Native)
    measured = native is not None and bool(native.reads)
    torch, torch_problem = ask("tgi.commands.doctor.torch_facts", Torch, *([] if measured else ["--read"]))
    reads = native.reads if native is not None and measured else torch.reads if torch else []
    chosen = next((level for level in native.levels if level.name == native.chosen), None) if native else None
    findings = Findings(
        version=__version__,
        python=platform.python_version(),
        system=platform.platform(),
        packages={name: _version(name) for name in (*REQUIRED, *OPTIONAL)},
        processor=hardware.cpu_name(),
        machine=platform.machine(),
        cores=cores,
        memory=memory,
        huge_pages=hardware.huge_pages(),
        gpus=list(hardware.nvidia_gpus()),
        compilers=compilers(variables),
        torch=torch,
        torch_problem=torch_problem,
        native=native,
        native_problem=native_problem,
        estimates=estimates(reads, chosen.layer_gops if chosen else {}),
    )
    findings.advice = advise(findings)
    return findings


def ask(module: str, answer: type[Answer], *arguments: str) -> tuple[Answer | None, str | None]:
    """Run a module that prints JSON: its answer, or a sentence that says why there is none."""
    command = children.python(module, *arguments)
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False)
        if child.returncode == 0:
            return msgspec.json.decode(child.stdout, type=answer), None
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        return None, f"{module} could not be asked: {error}"
    if child.returncode < 0:
        return None, f"{module} died of signal {-child.returncode}"
    lines = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
    return None, f"{module} failed: {lines[-1]}"


def compilers(variables: Mapping[str, str]) -> list[str]:
    """C++ compilers that an installation would find."""
    names = [name for name in (variables.get("CXX", "").split(" ")[0], *COMPILERS) if name and shutil.which(name)]
    if importlib.util.find_spec("ziglang"):
        names.append("ziglang")
    return list(dict.fromkeys(names))


def advise(findings: Findings) -> list[str]:
    """What would make serving here faster, a sentence each; most valuable first."""
    return [
        sentence
        for sentence in (
            _advise_torch(findings),
            _advise_kernels(findings),
            _advise_pages(findings),
            _advise_cores(findings),
            _advise_load(findings),
        )
        if sentence
    ]


def _advise_torch(findings: Findings) -> str | None:
    if findings.torch is None:
        return f"torch does not work here, and nothing can be served: {findings.torch_problem}."
    if not findings.gpus or findings.torch.devices:
        return None
    if findings.torch.cuda is None:
        return (
            "There is an NVIDIA device, but this torch is a CPU build: `make clean`, then `make install TORCH=default`."
        )
    return "There is an NVIDIA device that torch cannot use: its driver may be older than this torch's CUDA."


def _advise_kernels(findings: Findings) -> str | None:
    native = findings.native
    if native is None:
        return f"The native kernels could not be looked at ({findings.native_problem}); the torch operations serve."
    again = "install again (`make install` in a checkout, else `pip install --force-reinstall --no-deps .`)"
    if native.chosen is None and any(level.built for level in native.levels):
        return f"The native kernels do not load, everything is several times slower: {native.reason}. Please {again}."
    if native.chosen is None:
        what = "The native kernels were not built, everything is several times slower"
        if not findings.compilers:
            return f"{what}: install a C++ compiler ({GET_COMPILER}; anywhere: pip install ziglang), then {again}."
        return f"{what}: a C++ compiler is here now ({findings.compilers[0]}), so {again}."
    missing = [level.name for level in native.levels if level.runs and not level.built]
    if missing:
        return f"{', '.join(missing)} would run here but was not built: {again} with GCC 11, Clang 12 or newer."
    return None


def _advise_pages(findings: Findings) -> str | None:
    if findings.huge_pages != "never":
        return None
    return (
        "Huge pages are off; with them weights are read up to 1.4 times faster: "
        "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` as root, on the host of a container."
    )


def _advise_cores(findings: Findings) -> str | None:
    quota = findings.cores.quota
    if quota is None or quota >= findings.cores.affinity or quota == int(quota):
        return None
    return f"The CPU quota of {quota:g} cores counts as {findings.cores.usable}: a whole number wastes nothing."


def _advise_load(findings: Findings) -> str | None:
    load, usable = findings.cores.load, findings.cores.machine
    if load < 0.5 * usable:
        return None
    return f"The machine was busy (load {load:g} on {usable} cores): the rates above are lower than when it is idle."


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
