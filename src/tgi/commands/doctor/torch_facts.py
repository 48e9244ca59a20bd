"""`python -m tgi.commands.doctor.torch_facts [--read]`: what torch finds here, as JSON.

A short-lived process of its own, because the launcher never imports torch. With `--read` it also measures how
fast torch reads memory, for machines without the native kernels.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from tgi import hardware

READ_BYTES = 256 << 20


def facts(*, read: bool) -> dict[str, Any]:
    """Fields of `doctor.Torch`."""
    result: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "devices": [],
        "reads": [],
    }
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            result["devices"].append(
                {
                    "name": properties.name,
                    "memory_bytes": properties.total_memory,
                    "compute_capability": f"{properties.major}.{properties.minor}",
                }
            )
    if read:
        result["reads"].append({"bytes": READ_BYTES, "gigabytes_per_s": _read_rate()})
    return result


def _read_rate() -> float:
    torch.set_num_threads(hardware.cpu_count())
    memory = torch.ones(READ_BYTES // 4)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        memory.sum()
        best = min(best, time.perf_counter() - began)
    return round(READ_BYTES / best / 1e9, 1)


if __name__ == "__main__":
    print(json.dumps(facts(read="--read" in sys.argv[1:])))
