"""What `tgi doctor` finds, as `tgi doctor --json` prints it."""

from __future__ import annotations

import msgspec

from tgi.commands.doctor.estimate import Estimate
from tgi.commands.doctor.native_facts import Native, Read


class Device(msgspec.Struct):
    """A CUDA device as torch sees it."""

    name: str
    memory_bytes: int
    compute_capability: str


class Torch(msgspec.Struct):
    version: str
    cuda: str | None
    """The CUDA version it was built with; None for a CPU build."""
    cpu_capability: str
    devices: list[Device] = []
    reads: list[Read] = []
    """How fast torch reads memory, where no native library could be asked."""


class Cores(msgspec.Struct):
    usable: int
    """Threads the engine takes unless --threads says otherwise."""
    machine: int
    affinity: int
    quota: float | None
    """Of the tightest cgroup."""
    load: float
    """Load average of the last minute."""


class Memory(msgspec.Struct):
    available_bytes: int
    """What this process may still take."""
    total_bytes: int
    """Of the machine, or the tightest cgroup limit."""
    machine_bytes: int


class Findings(msgspec.Struct):
    """What `tgi doctor --json` prints."""

    version: str
    python: str
    system: str
    packages: dict[str, str | None]
    """Required and optional packages -> version."""
    processor: str
    machine: str
    cores: Cores
    memory: Memory
    huge_pages: str | None
    """Linux' transparent huge pages: always, madvise, never."""
    gpus: list[str]
    """NVIDIA devices as the driver names them."""
    compilers: list[str]
    torch: Torch | None
    torch_problem: str | None
    native: Native | None
    native_problem: str | None
    estimates: list[Estimate]
    advice: list[str] = []
