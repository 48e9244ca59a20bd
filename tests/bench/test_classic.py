"""`text-generation-benchmark`: TGI's flags and tables, what it asks of a server, and its screen."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from tests.bench.bench_server import Exchange, in_thread, tgi
from tgi.bench.classic import LOREM, Batch, Settings, State, Texts
from tgi.bench.classic_screen import View, draw, histogram
from tgi.bench.classic_tables import tables
from tgi.bench.record import Record
from tgi.commands import cli
from tgi.commands.bench_flags import BenchmarkFlags
from tgi.settings.parse import options

Said = Callable[[], str]

TABLES = """\
| Parameter          | Value     |
|--------------------|-----------|
| Model              | org/name  |
| Sequence Length    | 10        |
| Decode Length      | 3         |
| Top N Tokens       | Some(5)   |
| N Runs             | 2         |
| Warmups            | 1         |
| Temperature        | Some(0.5) |
| Top K              | None      |
| Top P              | None      |
| Typical P          | None      |
| Repetition Penalty | Some(1.0) |
| Frequency Penalty  | None      |
| Watermark          | false     |
| Do Sample          | true      |

| Step           | Batch Size | Average   | Lowest    | Highest   | p50       | p90       | p99       |
|----------------|------------|-----------|-----------|-----------|-----------|-----------|-----------|
| Prefill        | 1          | 150.00 ms | 100.00 ms | 200.00 ms | 200.00 ms | 200.00 ms | 200.00 ms |
|                | 2          | 510.00 ms | 510.00 ms | 510.00 ms | 510.00 ms | 510.00 ms | 510.00 ms |
| Decode (token) | 1          | 22.50 ms  | 20.00 ms  | 25.00 ms  | 25.00 ms  | 25.00 ms  | 25.00 ms  |
|                | 2          | 22.50 ms  | 20.00 ms  | 30.00 ms  | 20.00 ms  | 30.00 ms  | 30.00 ms  |
| Decode (total) | 1          | 45.00 ms  | 40.00 ms  | 50.00 ms  | 50.00 ms  | 50.00 ms  | 50.00 ms  |
|                | 2          | 50.00 ms  | 50.00 ms  | 50.00 ms  | 50.00 ms  | 50.00 ms  | 50.00 ms  |

| Step    | Batch Size | Average           | Lowest            | Highest            |
|---------|------------|-------------------|-------------------|--------------------|
| Prefill | 1          | 75.00 tokens/secs | 50.00 tokens/secs | 100.00 tokens/secs |
|         | 2          | 39.22 tokens/secs | 39.22 tokens/secs | 39.22 tokens/secs  |
| Decode  | 1          | 45.00 tokens/secs | 40.00 tokens/secs | 50.00 tokens/secs  |
|         | 2          | 70.00 tokens/secs | 70.00 tokens/secs | 70.00 tokens/secs  |
"""
SETTINGS = Settings((1, 2, 4), 10, 3, 2, 1, temperature=0.5, repetition_penalty=1.0, do_sample=True, top_n_tokens=5)


def finished(sent: float, *times: float) -> Record:
    return Record(10, len(times), sent, list(times), [1.0] * len(times), times[-1], True, len(times))


def batches() -> list[Batch]:
    """One stream at 20 and 25 ms a token; two whose first tokens are 10 ms apart; one size not begun."""
    one, two = Batch(1), Batch(2)
    one.add([finished(0, 0.1, 0.12, 0.14)], 10)
    one.add([finished(5, 5.2, 5.225, 5.25)], 10)
    two.add([finished(0, 0.5, 0.52, 0.54), finished(0, 0.51, 0.53, 0.56)], 10)
    return [one, two, Batch(4)]


def test_tables_are_tgis() -> None:
    assert tables("org/name", SETTINGS, batches()) == TABLES


def test_a_token_before_the_end_of_prefill_is_not_decode() -> None:
    """Of the first stream's tokens half of one is made while the second still waits for its first."""
    assert batches()[1].decode_tps == [pytest.approx(3.5 / 0.05)]


def test_a_single_token_has_no_decode() -> None:
    batch = Batch(1)
    batch.add([finished(0, 0.1)], 10)
    assert "| Decode  | 1          | NaN tokens/secs" in tables("m", SETTINGS, [batch])


def test_texts_are_lorem_ipsum_in_another_order_each_time() -> None:
    texts = Texts(random.Random(0))
    first, second = texts(150).split(), texts(150).split()
    assert len(first) == len(second) == 150 and first[:5] != second[:5]
    assert sorted(first[: len(LOREM.split())]) == sorted(LOREM.split())


def test_names_and_defaults_of_the_benchmark_are_tgis() -> None:
    known = {option.name: option for option in options(BenchmarkFlags)}
    ours = {"url", "api_key"}
    shorts = {name: option.flag.short for name, option in known.items() if option.flag.short}
    assert shorts == {
        "tokenizer_name": "-t", "batch_size": "-b", "sequence_length": "-s", "decode_length": "-d", "runs": "-r",
        "warmups": "-w", "master_shard_uds_path": "-m",
    }  # fmt: skip
    defaults = {name: option.default for name, option in known.items() if name not in ours and option.default}
    assert defaults == {
        "sequence_length": 10, "decode_length": 8, "runs": 10, "warmups": 1, "revision": "main",
        "master_shard_uds_path": "/tmp/text-generation-server-0",
    }  # fmt: skip
    assert known.keys() - ours == shorts.keys() | {
        "revision", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "frequency_penalty",
        "watermark", "do_sample", "top_n_tokens",
    }  # fmt: skip
    assert known["batch_size"].env is None and known["decode_length"].env == "DECODE_LENGTH"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options(BenchmarkFlags):
        if option.env:
            monkeypatch.delenv(option.env, raising=False)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("-b 0", "invalid value '0' for '--batch-size'"),
        ("-r 0", "invalid value '0' for '--runs': at least 1 is needed"),
        ("-s 0", "invalid value '0' for '--sequence-length'"),
        ("-d 0", "invalid value '0' for '--decode-length'"),
    ],
)
def test_bad_command_lines_of_the_benchmark(words: str, sentence: str, said: Said) -> None:
    assert cli.benchmark_main(words.split()) == 2
    assert sentence in said()


def test_the_benchmark_asks_as_tgi_does_and_prints_its_tables(monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
    bodies = []

    async def listening(exchange: Exchange) -> None:
        bodies.append(exchange.body)
        await tgi(exchange)

    monkeypatch.setenv("DECODE_LENGTH", "4")
    with in_thread(listening) as server:
        words = f"--url {server.url} -t org/name -b 1 -b 3 -r 2 -w 1 -s 12 --top-k 7 --do-sample -m /tmp/x".split()
        assert cli.benchmark_main(words) == 0
    printed = said()
    assert "warning: --master-shard-uds-path has no effect: requests go over HTTP, to --url" in printed
    assert re.search(r"\| Model +\| org/name", printed) and re.search(r"\| Top K +\| Some\(7\)", printed)
    assert re.search(r"\| Prefill +\| 1 +\|.*ms.*\n\| +\| 3 +\|.*ms", printed)
    runs = [body for body in bodies if body and "truncate" in body["parameters"]]
    assert len(runs) == 3 * (1 + 3)
    assert all(
        body["parameters"]
        == {
            "max_new_tokens": 4, "ignore_eos": True, "details": True, "seed": 0, "watermark": False, "do_sample": True,
            "top_k": 7, "truncate": 12,
        }
        for body in runs
    )  # fmt: skip
    assert len({body["inputs"] for body in runs}) == len(runs)  # nothing for a prefix cache


def test_the_benchmark_refuses_a_server_that_stops_early(said: Said) -> None:
    async def short(exchange: Exchange) -> None:
        if exchange.body:
            exchange.body["parameters"]["max_new_tokens"] = 1
        await tgi(exchange)

    with in_thread(short) as server:
        assert cli.benchmark_main(["--url", server.url]) == 1
    printed = said()
    assert "batch size 1: a request had 10 prompt and 1 new tokens where 10 and 8 were asked for" in printed
    assert "| Step" not in printed


def shown(drawing: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(drawing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_screen_of_the_benchmark() -> None:
    view = View("model", SETTINGS, State(batches()[:2]))
    assert re.search(r"Decode \(total\) +50\.00 ms", shown(draw(view)))
    view.press("left")
    assert re.search(r"Decode \(total\) +45\.00 ms", shown(draw(view)))
    view.press("left")
    assert "Prefill: nothing yet" in shown(draw(view))  # batch size 4 has not begun
    view.press("right")
    assert view.tab == 0 and not view.state.progress.stop.is_set()
    view.press("q")
    assert view.state.progress.stop.is_set()


def test_histogram() -> None:
    assert histogram([1, 1, 1, 1, 2], 2) == "█▂" and histogram([3.0], 4) == "█   "
