"""`tgi doctor`: the facts of this machine, what rates mean for models, and the right advice for other machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tgi import hardware
from tgi.commands.cli import main
from tgi.commands.doctor import command as doctor
from tgi.commands.doctor import native_facts as doctor_native
from tgi.commands.doctor import report as doctor_report
from tgi.commands.doctor.command import Cores, Findings, Memory, Torch
from tgi.commands.doctor.estimate import bandwidth, estimates
from tgi.commands.doctor.native_facts import Level, Native, Read
from tgi.kernels.native import library

READS = [Read(32 << 20, 50.0), Read(128 << 20, 40.0), Read(512 << 20, 20.0)]
LAYERS = {"bfloat16": 100.0, "int8": 400.0, "int6": 200.0, "int5": 150.0, "iq4_nl": 300.0}


def findings(**changes: object) -> Findings:
    """A machine with nothing to mend, but for the changes."""
    levels = [
        Level("portable", True, True, None, 20.0, 10.0, {}),
        Level("avx2", True, True, None, 90.0, 150.0, LAYERS),
        Level("avx512", True, False),
    ]
    whole = Findings(
        version="0.1.0",
        python="3.11.0",
        system="Linux",
        packages={"torch": "2.13.0", "matplotlib": None},
        processor="Some CPU",
        machine="x86_64",
        cores=Cores(8, 8, 8, None, 0.1),
        memory=Memory(8 << 30, 16 << 30, 16 << 30),
        huge_pages="madvise",
        gpus=[],
        compilers=["g++"],
        torch=Torch("2.13.0+cpu", None, "AVX2"),
        torch_problem=None,
        native=Native(8, levels, "avx2", None, READS),
        native_problem=None,
        estimates=estimates(READS, LAYERS),
    )
    return msgspec.structs.replace(whole, **changes)


def test_rates_between_the_measured_sizes() -> None:
    assert bandwidth(READS, 1 << 20) == 50.0
    assert bandwidth(READS, 128 << 20) == 40.0
    assert bandwidth(READS, 64 << 20) == pytest.approx(45.0)
    assert bandwidth(READS, 4 << 30) == 20.0
    assert bandwidth([], 1) is None
    assert bandwidth([Read(100, 7.0)], 50) == bandwidth([Read(100, 7.0)], 200) == 7.0


def test_estimates_are_bytes_over_bandwidth_and_operations_over_rate() -> None:
    by_name = {(one.model, one.weights): one for one in estimates(READS, LAYERS)}
    assert len(by_name) == 9
    one = by_name["Llama-3.2-1B", "bfloat16"]
    parameters = 1_235_814_400
    assert one.weight_bytes == pytest.approx(1.51 * parameters, rel=0.01)  # 12 bits each
    assert one.decode_at_1 == pytest.approx(20e9 / one.weight_bytes, rel=0.01)
    assert one.decode_at_16 == pytest.approx(100e9 / (2 * parameters), rel=0.01)  # arithmetic comes first
    assert one.prefill == pytest.approx(100e9 / (2 * (parameters - 128256 * 2048)), rel=0.01)
    small = by_name["SmolLM2-135M", "int4"]
    assert small.decode_at_1 and one.decode_at_1 and small.decode_at_1 > 15 * one.decode_at_1
    numbers = {"keys": 30 * 576 * 192 * 2, "head": 49152 * 576}  # of int4: in 5 bits, with the queries, and in 6
    numbers["keys"] += 30 * 576 * 576
    layers = 106_168_320 - numbers["keys"]
    seconds = 2e-9 * (layers / 300 + numbers["keys"] / 150)
    assert small.prefill == pytest.approx(1 / seconds, rel=0.01)
    assert small.decode_at_16 == pytest.approx(1 / (seconds + 2e-9 * numbers["head"] / 200), rel=0.01)
    unknown = estimates([], {})
    assert all(each.decode_at_1 is each.decode_at_16 is each.prefill is None for each in unknown)


def test_nothing_to_mend() -> None:
    assert doctor.advise(findings()) == []
    text = doctor_report.render(findings())
    assert "Nothing to mend" in text
    assert "avx2 *" in text and "8 usable: 8 in the machine, no quota" in text and "matplotlib not installed" in text


NOTHING_BUILT = Native(2, [Level("portable", False, False), Level("avx2", False, False)], None, "not built")
UNLOADABLE = Native(2, [Level("portable", True, True, "other sources")], None, "built from other sources")
TOO_OLD = Native(2, [Level("avx2", True, True), Level("avx512_amx", False, True)], "avx2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"native": NOTHING_BUILT, "compilers": []}, ("apt install g++", "ziglang", "make install")),
        ({"native": NOTHING_BUILT}, ("a C++ compiler is here now (g++)", "make install")),
        ({"native": UNLOADABLE}, ("built from other sources", "make install")),
        ({"native": TOO_OLD}, ("avx512_amx would run here but was not built", "GCC 11")),
        ({"native": None, "native_problem": "it died of signal 4"}, ("it died of signal 4",)),
        ({"torch": None, "torch_problem": "no module named torch"}, ("no module named torch",)),
        ({"gpus": ["NVIDIA L4"]}, ("CPU build", "TORCH=default")),
        ({"gpus": ["NVIDIA L4"], "torch": Torch("2.13.0", "13.0", "AVX2")}, ("driver",)),
        ({"huge_pages": "never"}, ("transparent_hugepage",)),
        ({"cores": Cores(2, 8, 8, 2.5, 0.1)}, ("2.5 cores counts as 2",)),
        ({"cores": Cores(8, 8, 8, None, 7.5)}, ("busy", "7.5")),
    ],
)
def test_advice(changes: dict[str, object], words: tuple[str, ...]) -> None:
    found = findings(**changes)
    found.advice = doctor.advise(found)
    assert len(found.advice) == 1
    text = doctor_report.render(found)  # and whatever is missing, the report can be printed
    for word in words:
        assert word in found.advice[0]
        assert word.split()[0] in text


def test_a_whole_quota_is_no_waste() -> None:
    assert doctor.advise(findings(cores=Cores(2, 8, 8, 2.0, 0.1))) == []


def test_a_failing_child_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.ask("tgi.no_such_module", Torch)[1] is not None
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    answer, problem = doctor.ask("tgi.commands.doctor.torch_facts", Torch)
    assert answer is None and problem is not None and "could not be asked" in problem


def test_levels_of_every_kind_of_processor() -> None:
    assert set(library.levels_here("x86_64")) == {
        "portable",
        "avx2",
        "avx2_vnni",
        "avx512",
        "avx512_bf16",
        "avx512_amx",
    }
    assert library.levels_here("riscv64") == ["portable"]


def test_the_native_kernels_are_measured() -> None:
    native = doctor_native.find(1, 1)
    if native.chosen is None:
        pytest.skip("the native kernels were not built")
    assert native.chosen == library.load().level
    chosen = next(level for level in native.levels if level.name == native.chosen)
    assert chosen.built and chosen.runs and chosen.float32_gops and chosen.int8_gops
    assert set(chosen.layer_gops) == set(LAYERS) and min(chosen.layer_gops.values()) > 0
    assert [read.bytes for read in native.reads] == [32 << 20]  # no more than was allowed
    assert native.reads[0].gigabytes_per_s > 0
    for level in native.levels:
        assert (level.float32_gops is not None) == (level.built and level.runs)


def test_without_libraries_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "path_of", lambda level: tmp_path / level)
    native = doctor_native.find(1, 1)
    assert native.chosen is None and native.reads == []
    assert native.reason is not None and "not built" in native.reason
    assert not any(level.built or level.runs for level in native.levels)


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command once, with its child processes."""
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cores"]["usable"] == hardware.cpu_count()
    assert told["torch"]["version"] == told["packages"]["torch"]
    assert len(told["estimates"]) == 9
    assert all(estimate["decode_at_1"] > 0 for estimate in told["estimates"])
    report = doctor_report.render(msgspec.convert(told, Findings))
    assert "SmolLM2-135M" in report and told["processor"] in report


def test_mistakes_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--jsn"]) == 2
    assert "unexpected argument '--jsn' found" in capsys.readouterr().err
    assert main(["doctor", "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_torch_stays_out_of_this_process() -> None:
    code = "import sys, tgi.commands.doctor.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
