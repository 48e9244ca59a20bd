"""Container limits must count: machines are described as trees of /proc and /sys files."""

from __future__ import annotations

import os
from pathlib import Path

from tgi import hardware

GIB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
    files = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n"} | files
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, {})
    assert hardware.available_memory_bytes(root) == 8 * GIB
    assert hardware.total_memory_bytes(root) == 16 * GIB
    assert hardware.cpu_count(root) == len(os.sched_getaffinity(0))


def test_cgroup_v2_limit_less_use_plus_cache(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": str(4 * GIB),
        "sys/fs/cgroup/memory.current": str(3 * GIB),
        "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {GIB}\n",
    }
    root = machine(tmp_path, files)
    assert hardware.available_memory_bytes(root) == 2 * GIB
    assert hardware.total_memory_bytes(root) == 4 * GIB


def test_cgroup_v2_a_parent_may_be_the_tighter_one(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/slice/service\n",
        "sys/fs/cgroup/slice/memory.max": str(GIB),
        "sys/fs/cgroup/slice/memory.current": "0",
        "sys/fs/cgroup/slice/service/memory.max": "max\n",
        "sys/fs/cgroup/slice/service/memory.current": "0",
    }
    assert hardware.available_memory_bytes(machine(tmp_path, files)) == GIB


def test_cgroup_v2_path_of_the_host_is_not_in_the_container(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/system.slice/docker-abc.scope\n",
        "sys/fs/cgroup/memory.max": str(2 * GIB),
        "sys/fs/cgroup/memory.current": "0",
    }
    assert hardware.available_memory_bytes(machine(tmp_path, files)) == 2 * GIB


def test_cgroup_v1(tmp_path: Path) -> None:
    memory = "sys/fs/cgroup/memory/docker/abc"
    files = {
        "proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n",
        f"{memory}/memory.limit_in_bytes": str(3 * GIB),
        f"{memory}/memory.usage_in_bytes": str(2 * GIB),
        f"{memory}/memory.stat": f"total_inactive_file {GIB // 2}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(9223372036854771712),
        "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
    }
    root = machine(tmp_path, files)
    assert hardware.available_memory_bytes(root) == 3 * GIB // 2
    assert hardware.cpu_count(root) == 1


def test_cgroup_v1_without_quota(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "2:cpu,cpuacct:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert hardware.cpu_count(machine(tmp_path, files)) == len(os.sched_getaffinity(0))


def test_cpu_quota_is_rounded_down_but_never_to_zero(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}
    assert hardware.cpu_count(machine(tmp_path, files)) == 1
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
    assert hardware.cpu_count(tmp_path) == len(os.sched_getaffinity(0))


def test_quota_and_huge_pages_as_they_are(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "250000 100000\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    }
    root = machine(tmp_path, files)
    assert hardware.cpu_quota(root) == 2.5
    assert hardware.huge_pages(root) == "madvise"
    assert hardware.cpu_quota(tmp_path / "nothing") is None
    assert hardware.huge_pages(tmp_path / "nothing") is None


def test_a_used_up_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000",
        "sys/fs/cgroup/memory.current": "2000",
    }
    assert hardware.available_memory_bytes(machine(tmp_path, files)) == 0


def test_cpu_flags_and_name(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/cpuinfo": "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\n"})
    assert hardware.cpu_flags(root) == {"fpu", "avx2", "avx512f"}
    assert hardware.cpu_name(root) == "Some CPU"
    assert hardware.cpu_flags(tmp_path / "nothing") == frozenset()


def test_no_driver_no_gpu(tmp_path: Path) -> None:
    assert hardware.nvidia_gpus(tmp_path) == ()


def test_this_machine_has_something() -> None:
    facts = hardware.detect()
    assert facts.cpu_count >= 1
    assert facts.available_memory > 0
