"""The levels against each other, on outputs of tests/native/outputs.cpp: with fused multiply-add all bits agree.

The Arm levels are cross-built and run under qemu-user, each on the least processor it is meant for; they are
skipped where cross-compiler or emulator are missing (Debian: apt install g++-aarch64-linux-gnu qemu-user).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tgi.kernels.native import library

ROOT = Path(__file__).resolve().parents[2]
FUSED = ("avx2", "avx2_vnni", "avx512")
ARM = {"portable": "cortex-a53", "neon": "cortex-a53", "neon_dotprod": "cortex-a76", "neon_i8mm": "max"}
"""Level -> the processor it has to run on."""
CROSS, EMULATOR, SYSROOT = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"
SEEDS = (1, 2, 3)
TYPES = {b"f": np.float32, b"d": np.float64, b"l": np.int64}
Outputs = dict[str, np.ndarray]


def link(compiler: str, level_library: Path, program: Path) -> Path:
    """The test program with one level's library."""
    source, where = ROOT / "tests/native/outputs.cpp", level_library.parent
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}", f"-Wl,-rpath,{where}"]
    subprocess.run([compiler, *flags, str(source), str(level_library), "-o", str(program)], check=True, timeout=300)
    return program


def run(command: list[str], seed: int, threads: int = 2) -> tuple[Outputs, list[str]]:
    """Outputs by name, and what the library says of its level and of the processor's."""
    result = subprocess.run([*command, str(seed), str(threads)], capture_output=True, check=True, timeout=300)
    outputs: Outputs = {}
    rest = result.stdout
    while rest:
        head, _, rest = rest.partition(b"\n")
        name, kind, count = head.split()
        dtype = np.dtype(TYPES[kind])
        size = int(count) * dtype.itemsize
        outputs[name.decode()], rest = np.frombuffer(rest[:size], dtype), rest[size:]
    return outputs, result.stderr.decode().split("\n")[:2]


def same(found: Outputs, wanted: Outputs) -> None:
    """float32 and ids bit by bit; doubles but for the C library's logarithm."""
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if values.dtype == np.float64:
            np.testing.assert_allclose(found[name], values, rtol=1e-14, atol=1e-14, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name].view(np.uint8), values.view(np.uint8), err_msg=name)


def close(found: Outputs, wanted: Outputs) -> None:
    """Without fused multiply-add there are other bits, and now and then an activation rounds to the next int8."""
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if values.dtype != np.int64:
            error = np.linalg.norm(found[name].astype(np.float64) - values) / np.linalg.norm(values)
            assert error < 5e-3, (name, error)


def meaningful(outputs: Outputs) -> None:
    """Every kernel gave numbers, and not all the same."""
    assert len(outputs) == 200 + 20 + 6 + 60
    for name, values in outputs.items():
        assert np.isfinite(values).all(), name
        assert len(values) < 5 or len(np.unique(values)) > 1, name


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Level -> the test program with its library, for the levels that run here."""
    compiler = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    levels = [level for level in ("portable", *FUSED) if level in library.runnable()]
    levels = [level for level in levels if library.path_of(level).exists()]
    if len(levels) < 2:
        pytest.skip("only one level runs here")
    place = tmp_path_factory.mktemp("host")
    return {level: [str(link(compiler, library.path_of(level), place / level))] for level in levels}


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Level -> the test program for AArch64 with its library, built as setup.py builds it there."""
    if not shutil.which(CROSS) or not shutil.which(EMULATOR):
        pytest.skip(f"{CROSS} and {EMULATOR} are needed (Debian: apt install g++-aarch64-linux-gnu qemu-user)")
    place = tmp_path_factory.mktemp("arm")
    variables = {"TGI_MACHINE": "aarch64", "CC": CROSS.replace("g++", "gcc"), "CXX": CROSS}
    command = [sys.executable, "setup.py", "-q", "build_ext", "-j2"]
    command += ["--build-lib", str(place / "lib"), "--build-temp", str(place / "temp")]
    subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True, timeout=550, capture_output=True)
    built = place / "lib/tgi/kernels/native"
    return {level: link(CROSS, built / f"libtgi_{level}.so", place / level) for level in ARM}


def emulated(program: Path, processor: str) -> list[str]:
    return [EMULATOR, "-cpu", processor, "-L", SYSROOT, str(program)]


def test_levels_with_fused_multiply_add_agree(host: dict[str, list[str]]) -> None:
    for seed in SEEDS:
        results = {}
        for level, command in host.items():
            results[level], (name, _) = run(command, seed)
            assert name == level
            meaningful(results[level])
        fused = [level for level in FUSED if level in results]
        for level in fused[1:]:
            same(results[level], results[fused[0]])
        for level in fused[:1]:
            close(results["portable"], results[level])
    again, _ = run(host[level], SEEDS[-1], threads=3)
    same(again, results[level])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_arm_has_the_same_bits(arm: dict[str, Path], host: dict[str, list[str]]) -> None:
    reference = next((level for level in FUSED if level in host), None)
    if reference is None:
        pytest.skip("no level with fused multiply-add runs here to compare with")
    for seed in SEEDS:
        wanted, _ = run(host[reference], seed)
        plain, _ = run(host["portable"], seed)
        for level, processor in ARM.items():
            found, (name, _) = run(emulated(arm[level], processor), seed)
            assert name == level
            same(found, plain if level == "portable" else wanted)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("processor", "levels"),
    [
        ("cortex-a53", "neon portable"),
        ("cortex-a76", "neon_dotprod neon portable"),
        ("max", "neon_i8mm neon_dotprod neon portable"),
    ],
)
def test_the_level_is_what_the_processor_has(arm: dict[str, Path], processor: str, levels: str) -> None:
    _, (_, told) = run(emulated(arm["portable"], processor), 1)
    assert told == levels
