"""Every number on a command line has a range, and a value outside of it is refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from tgi.commands.bench_flags import BenchFlags, BenchmarkFlags
from tgi.commands.cli import main
from tgi.commands.verify import VerifyFlags
from tgi.errors import ArgumentError
from tgi.hardware import Hardware
from tgi.hub.prepare import prepare
from tgi.settings.flags import Bytes, LauncherConfig
from tgi.settings.parse import Option, options
from tgi.settings.resolve import check, check_machine, check_ranges

HERE = Hardware(cpu_count=2, available_memory=1 << 30, cpu_name="x", total_memory=2 << 30)
NUMBERS = [
    (flags, option)
    for flags in (LauncherConfig, BenchFlags, BenchmarkFlags, VerifyFlags)
    for option in options(flags)
    if option.type in (int, float, Bytes) and option.flag.maximum is None
]


def name_of(value: object) -> str:
    return value.long if isinstance(value, Option) else getattr(value, "__name__", "")


@pytest.mark.parametrize(("flags", "option"), NUMBERS, ids=name_of)
def test_the_ends_of_every_range(flags: type, option: Option) -> None:
    within = option.flag.within
    assert within is not None, f"{option.long} takes any number"
    step = 1e-9 if option.type is float else 1
    inside = [within.low + step * within.open_low, within.high - step * within.open_high]
    outside = [within.low - step * (not within.open_low), within.high * (1 + 1e-9) + step * (not within.open_high)]
    for value in inside:
        check_ranges(flags(**{option.name: value}))
    for value in [*outside, -1e30, 1e30, float("nan"), float("inf")]:
        with pytest.raises(ArgumentError, match=f"^`{option.name}` must be "):
            check_ranges(flags(**{option.name: value}))
    default = option.default
    assert default is None or within.holds(default)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--max-total-tokens 1", "`max_total_tokens` must be >= 2"),
        ("--max-concurrent-requests 0", "`max_concurrent_requests` must be > 0"),
        ("--payload-limit 0", "`payload_limit` must be > 0"),
        ("--threads 10000", "`threads` must be >= 1 and <= 1024. Given: 10000"),
        ("--max-batch-prefill-tokens 1000000000000", "`max_batch_prefill_tokens` must be"),
        ("--max-batch-total-tokens 1000000000000", "`max_batch_total_tokens` must be"),
        ("--max-batch-size 100000000", "`max_batch_size` must be"),
        ("--memory 0", "`memory` must be > 0"),
        ("--memory 5000TiB", "`memory` must be"),
        ("--kv-cache-memory 0", "`kv_cache_memory` must be > 0"),
        ("--memory 1GiB --kv-cache-memory 2GiB", "`kv_cache_memory` must be < `memory`"),
        ("--memory 900TiB", "`memory` must be <= "),
        ("--kv-cache-memory 900TiB", "`kv_cache_memory` must be <= "),
        ("--health-timeout 0", "`health_timeout` must be > 0"),
        ("--health-timeout nan", "a finite number"),
        ("--watermark-gamma 1", "`watermark_gamma` must be > 0 and < 1"),
        ("--validation-workers 100000", "`validation_workers` must be"),
    ],
)
def test_refused_at_the_start_by_name(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words.split()]) in (1, 2)
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_refused_without_a_command_line_too() -> None:
    with pytest.raises(ArgumentError, match="`threads` must be"):
        prepare(threads=10_000)


def test_a_plan_may_be_for_a_larger_machine() -> None:
    wanted = LauncherConfig(memory=1 << 40)
    check(wanted, HERE, {})
    with pytest.raises(ArgumentError, match=r"`memory` must be <= 2\.00 GiB"):
        check_machine(wanted, HERE)
    check_machine(LauncherConfig(memory=1 << 40, device="cuda"), HERE)
    check_machine(wanted, dataclasses.replace(HERE, total_memory=0))
