"""Benchmarks beside peers: what is asked of engines, what is read of their answers, and who is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.peer_checkpoints import tokenizer
from benchmarks.peer_engines import (
    NEW,
    PREFILL,
    PROMPT,
    Engine,
    EngineError,
    Worker,
    llama_version,
    parse_batched,
    parse_bench,
)
from benchmarks.peer_load import Others, used_by_us, wait_quiet
from benchmarks.peer_rows import OURS
from benchmarks.peer_servers import command
from benchmarks.peer_setup import Home
from benchmarks.peers import Comparison, Figures, arguments_of
from tokenizers import Tokenizer

FAKE_PEER = """
import json, sys
def say(**what): print(json.dumps(what), flush=True)
say(version="7.1")
for line in sys.stdin:
    count, prompt, new = map(int, line.split())
    if count == 16:
        say(error="MemoryError: no")
        break
    say(seconds=count * prompt / 1000 + new / 100)  # a token costs 10 ms, a prompt of 128 tokens 128 ms
"""
BATCHED = """0.00.984.440 W llama_context: n_ctx is not divisible by n_seq_max - rounding down to 8192
{"n_kv_max": 6144, "pp": 128, "tg": 64, "pl": 1, "t_tg": 0.512280, "speed_tg": 124.9, "speed": 326.9}
{"n_kv_max": 6144, "pp": 128, "tg": 64, "pl": 16, "t_tg": 18.068483, "speed_tg": 56.6, "speed": 38.5}
"""
BENCH = """ggml_cpu: something [with brackets]
[
  {
    "build_commit": "0c1e570",
    "n_prompt": 512,
    "avg_ts": 1604.177383,
    "samples_ts": [ 1604.18 ]
  }
]
"""


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker([sys.executable, "-c", FAKE_PEER], os.environ, tmp_path / "log")


def test_figures_of_a_worker(worker: Worker) -> None:
    assert worker.version == "7.1"
    assert worker.prefill() == pytest.approx(PREFILL / (0.512 + 0.01))
    assert worker.decode(4) == pytest.approx(4 * NEW / (NEW * 0.01))  # without the prompts' 512 ms
    assert worker.rss_mib() > 1
    worker.pause()
    worker.resume()
    assert worker.seconds(1, PROMPT, 1) == pytest.approx(0.138)
    worker.close()


def test_a_worker_that_fails_says_why(worker: Worker) -> None:
    with pytest.raises(EngineError, match="MemoryError: no"):
        worker.decode(16)
    with pytest.raises(EngineError, match="it ended"):
        while True:  # until the pipe knows
            worker.seconds(1, PROMPT, 1)
    worker.close()


def test_a_worker_that_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="it ended; see "):
        Worker([sys.executable, "-c", "raise SystemExit(3)"], os.environ, tmp_path / "log")


def test_llama_programs_are_read() -> None:
    assert parse_batched(BATCHED, 1) == 124.9
    assert parse_batched(BATCHED, 16) == 56.6
    assert parse_bench(BENCH) == 1604.177383
    assert llama_version("version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with GNU") == "0.5.0-dev"
    with pytest.raises(EngineError, match="no figures: out of memory"):
        parse_bench("out of memory")
    with pytest.raises(EngineError):
        parse_batched(BATCHED, 8)


def test_quiet_is_waited_for_but_not_forever() -> None:
    busy = iter([0.9, 0.4, 0.01, 0.7])
    assert wait_quiet(lambda: next(busy), limit_s=60) == 0.01
    assert wait_quiet(lambda: next(busy), limit_s=-1) == 0.7


def test_own_work_is_not_taken_for_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"all": 50.0, "us": 20.0}
    monkeypatch.setattr("benchmarks.peer_load.used_by_all", lambda: seconds["all"])
    monkeypatch.setattr("benchmarks.peer_load.used_by_us", lambda: seconds["us"])
    others = Others()
    seconds["all"] += 5
    seconds["us"] += 5
    assert others.share() == 0
    seconds["all"] += 1000
    assert others.share() > 0


def test_work_of_a_process_that_ended_is_our_own() -> None:
    before = used_by_us()
    work = "import time; sum(range(10_000_000)); print(time.process_time())"
    took = float(subprocess.run([sys.executable, "-c", work], check=True, capture_output=True).stdout)
    ticks = 4 / os.sysconf("SC_CLK_TCK")  # user and system time of process and children are each cut to whole ticks
    assert took > 2 * ticks
    assert used_by_us() - before > took - ticks


class FakeEngine:
    """Notes what happens in a log that all share."""

    version = "1"

    def __init__(self, name: str, log: list[str], speed: float, fails: bool = False) -> None:
        self._name, self._log, self._speed, self._fails = name, log, speed, fails

    def prefill(self) -> float:
        return self._speed

    def decode(self, concurrency: int) -> float:
        self._log.append(self._name)
        if self._fails and self._log.count(self._name) > 1:
            raise EngineError("it ended")
        return self._speed * concurrency

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def rss_mib(self) -> float:
        return 10.0

    def close(self) -> None:
        self._log.append(f"{self._name} closed")


def compare(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str | None = None
) -> tuple[Comparison, Figures, list[str]]:
    log: list[str] = []

    def make(peer: str, *_: object) -> Engine:
        return FakeEngine(peer, log, 20 if peer == OURS else 10, peer == broken)

    monkeypatch.setattr("benchmarks.peers.make", make)
    monkeypatch.setattr("benchmarks.peers.wait_quiet", lambda *_: 0.0)
    monkeypatch.setattr(Home, "model", lambda *_: tmp_path)
    comparison = Comparison("1", Home(tmp_path), [0], [1, 4], 2, 0.0)
    figures = Figures("1", "smollm2-135m", "int8")
    comparison.engines(figures, [OURS, "llama.cpp", "openvino"])
    return comparison, figures, log


def test_repetitions_alternate_each_begins_with_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, figures, log = compare(monkeypatch, tmp_path)
    after_warm_up = log[3:-3:2]
    assert after_warm_up == [OURS, "llama.cpp", "openvino", "llama.cpp", "openvino", OURS]
    rows = {(row.peer, row.metric, row.concurrency): row for row in figures.rows()}
    assert rows[OURS, "decode_tps", 4].values == [80, 80]
    assert rows["llama.cpp", "decode_tps", 1].weights == "Q8_0"
    assert rows["openvino", "rss_mib", 0].values == [10]


def test_a_peer_that_fails_is_left_out_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comparison, figures, log = compare(monkeypatch, tmp_path, broken="llama.cpp")
    assert comparison.notes == ["smollm2-135m int8, llama.cpp left out: it ended"]
    assert log.count("llama.cpp closed") == 1
    assert {len(row.values) for row in figures.rows() if row.peer == "openvino" and row.concurrency} == {2}


def test_missing_peers_come_with_the_command_that_installs_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for peer in ("llama.cpp", "openvino", "vllm", "ctranslate2"):
        assert (home.missing(peer) or "").endswith(f"python -m benchmarks.peer_setup {peer}")
    assert home.missing(OURS) is None


def test_servers_are_asked_for_the_same_width(tmp_path: Path) -> None:
    ours = command(OURS, Home(tmp_path), Path("model"), "int4", 1, 2)
    assert ours[ours.index("--quantize") + 1] == "int4" and ours[ours.index("--kv-cache-dtype") + 1] == "int8"
    assert "--quantize" not in command(OURS, Home(tmp_path), Path("model"), "bf16", 1, 2)


def test_flags_keep_the_order_of_tables_and_refuse_the_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    parsed = arguments_of(["--widths", "int4,bf16", "--no-http"])
    assert (parsed.widths, parsed.http, parsed.engine) == (["bf16", "int4"], False, True)
    with pytest.raises(SystemExit):
        arguments_of(["--peers", "nobody"])
    assert "nobody: none of llama.cpp" in capsys.readouterr().err


def test_ids_of_the_tokenizer_have_a_text(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer(12_000)))
    read = Tokenizer.from_file(str(path))
    assert read.get_vocab_size() == 12_000
    assert {len(read.decode([number])) for number in (300, 9_000)} == {2}
    assert len(read.decode([11_999])) == 3
