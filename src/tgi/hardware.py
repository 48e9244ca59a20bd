"""What this process may use of the machine: memory, CPU cores, instruction sets, GPUs.

Limits of a container count, not what the host has: the smallest of cgroup limits (v1 and v2, with
all their parents), CPU affinity and the machine itself. Standard library only, so that both the
HTTP process and the engine call it. Every function takes `root`, a directory that stands for `/`,
so that tests can describe machines. Does not decide anything: `engine.budget` does.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2^63


@dataclass(frozen=True)
class Hardware:
    """The facts that the launcher resolves flags with, gathered once at start."""

    cpu_count: int
    available_memory: int
    """Bytes that this process can still take without being killed or swapped."""
    cpu_name: str
    gpus: tuple[str, ...] = ()
    """Names of NVIDIA GPUs, by their number."""
    total_memory: int = 0
    """Bytes that this process could have at most; 0: unknown."""


def detect(root: Path = ROOT) -> Hardware:
    """Gather all facts; takes milliseconds, or a second where `nvidia-smi` has to be asked."""
    return Hardware(
        cpu_count=cpu_count(root),
        available_memory=available_memory_bytes(root),
        cpu_name=cpu_name(root),
        gpus=nvidia_gpus(root),
        total_memory=total_memory_bytes(root),
    )


def available_memory_bytes(root: Path = ROOT) -> int:
    """Bytes free to this process: free memory of the machine, or what its cgroups leave, if that is less.

    Page cache counts as free, since the kernel gives it up; swap does not count.
    """
    amounts = [_machine_available(root)]
    for directory in _cgroup_directories(root, "memory"):
        limit = _number(directory / "memory.max") or _number(directory / "memory.limit_in_bytes")
        if limit is None or limit >= _UNLIMITED:
            continue
        used = _number(directory / "memory.current") or _number(directory / "memory.usage_in_bytes") or 0
        statistics = _fields(directory / "memory.stat")
        cache = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
        amounts.append(max(0, limit - max(0, used - cache)))
    return min(amounts)


def total_memory_bytes(root: Path = ROOT) -> int:
    """Bytes this process could have at most: the machine's memory or the smallest cgroup limit."""
    amounts = [machine_memory_bytes(root)]
    for directory in _cgroup_directories(root, "memory"):
        limit = _number(directory / "memory.max") or _number(directory / "memory.limit_in_bytes")
        if limit is not None and limit < _UNLIMITED:
            amounts.append(limit)
    return min(amounts)


def machine_memory_bytes(root: Path = ROOT) -> int:
    """What is built in, whatever this process may have of it."""
    return _fields(root / "proc/meminfo").get("MemTotal", 0) * 1024 or _physical_memory()


def cpu_count(root: Path = ROOT) -> int:
    """Cores this process can keep busy, at least 1: affinity mask and CPU quota count.

    A quota of 2.5 cores counts as 2: a third thread would be throttled, and the others wait for it
    at the end of every operation.
    """
    quota = cpu_quota(root)
    return max(1, affinity_count() if quota is None else min(affinity_count(), int(quota)))


def affinity_count() -> int:
    """Cores that this process is allowed to run on; a quota may leave less of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores that the tightest cgroup quota is worth, 2.5 for instance; None without a quota."""
    quotas = []
    for directory in _cgroup_directories(root, "cpu"):
        words = _text(directory / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            quota, period = int(words[0]), int(words[1])
        else:
            quota = _number(directory / "cpu.cfs_quota_us") or 0
            period = _number(directory / "cpu.cfs_period_us") or 0
        if quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def huge_pages(root: Path = ROOT) -> str | None:
    """Linux' setting for transparent huge pages: `always`, `madvise` or `never`; None where there is none."""
    text = _text(root / "sys/kernel/mm/transparent_hugepage/enabled")
    return text.partition("[")[2].partition("]")[0] or None


def cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """Instruction-set flags as Linux names them (`avx2`, `avx512_bf16`, `asimd`, ...); empty elsewhere."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_name(root: Path = ROOT) -> str:
    """The processor in words."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def nvidia_gpus(root: Path = ROOT) -> tuple[str, ...]:
    """Names of the NVIDIA GPUs of this machine, none when there is no driver. Loads no CUDA library."""
    if not (root / "proc/driver/nvidia/version").exists() and not (root / "dev/nvidiactl").exists():
        return ()
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def _machine_available(root: Path) -> int:
    meminfo = _fields(root / "proc/meminfo")
    if "MemAvailable" in meminfo:
        return meminfo["MemAvailable"] * 1024
    return _physical_memory() // 2  # macOS does not say in a file: half of what is built in


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_directories(root: Path, controller: str) -> list[Path]:
    """Directories that hold this process's limits of a controller, innermost first, parents included.

    A container often sees a path of the host that does not exist in its own tree; the tree's root
    then is the container's own group, which is why every parent is read whether or not the inner
    directories exist.
    """
    directories = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
            top = top if top.is_dir() else root / "sys/fs/cgroup" / controller
        else:
            continue
        inner = top / path.lstrip("/")
        directories += [inner, *(parent for parent in inner.parents if parent == top or top in parent.parents)]
    return [directory for directory in directories if directory.is_dir()]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """A file that holds one number; None when it is missing or says `max`."""
    try:
        return int(_text(path).strip())
    except ValueError:
        return None


def _fields(path: Path) -> dict[str, int]:
    """A file of lines `name number` or `name: number kB`."""
    fields = {}
    for line in _text(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            fields[words[0]] = int(words[1])
    return fields
