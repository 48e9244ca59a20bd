"""`tgi bench`: command lines, table, files, exit statuses, keys; and both commands against a real server."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.bench_server import Exchange, FakeServer, in_thread, tgi
from tests.e2e.launched import REAL, ROOT, Launched, environment
from tgi.bench import plot, report
from tgi.bench.errors import BenchError
from tgi.bench.load import Level, Load, Progress
from tgi.bench.record import Record
from tgi.bench.screen import Sweep
from tgi.bench.screen import draw as draw_sweep
from tgi.bench.summary import Figures, summarize
from tgi.bench.terminal import decode
from tgi.commands import cli
from tgi.commands.bench_flags import BenchFlags, BenchmarkFlags
from tgi.settings.parse import options


def finished(sent: float, *times: float) -> Record:
    return Record(10, len(times), sent, list(times), [1.0] * len(times), times[-1], True, len(times))


# -- command lines


def test_flags_of_the_load_generator_have_no_variables_but_the_key() -> None:
    assert {option.env for option in options(BenchFlags)} == {None, "API_KEY"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in (*options(BenchmarkFlags), *options(BenchFlags)):
        if option.env:
            monkeypatch.delenv(option.env, raising=False)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with in_thread(tgi) as server:
        yield server


Said = Callable[[], str]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    return lambda: "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("-c 0", 2, "invalid value '0' for '--concurrency': positive numbers such as 1,4,8 are needed"),
        ("-c 1,x", 2, "invalid value '1,x' for '--concurrency'"),
        ("--rate 0", 2, "invalid value '0' for '--rate'"),
        ("--rate nan", 2, "invalid value 'nan' for '--rate'"),
        ("--rate 1 -c 1", 2, "--rate and --concurrency exclude each other"),
        ("--rate 1 --arrivals burst", 2, "--rate and --arrivals burst exclude each other"),
        ("-n 0", 2, "invalid value '0' for '--requests'"),
        ("--duration 0", 2, "invalid value '0' for '--duration'"),
        ("--timeout nan", 2, "invalid value 'nan' for '--timeout'"),
        ("--prompt-tokens 5:1", 2, "invalid value '5:1' for '--prompt-tokens': a range needs"),
        ("--output-tokens x", 2, "invalid value 'x' for '--output-tokens'"),
        ("--shared-prefix 128", 2, "--shared-prefix 128 must be shorter than --prompt-tokens 128"),
        ("--prompt-ids 10", 2, "--prompt-ids needs --api openai-completions"),
        ("--prompt-ids 1 --api openai-completions", 2, "invalid value '1' for '--prompt-ids'"),
        ("--api tgii", 2, "a similar value exists: 'tgi'"),
        ("--concurency 1", 2, "a similar argument exists: '--concurrency'"),
        ("--plot figures.pdf", 1, "the name must end in .png or .svg"),
        ("--json /no/such/directory/x.json", 1, "there is no such directory"),
        ("--url ftp://x", 1, "--url ftp://x: expected something like http://127.0.0.1:8080"),
        ("--url http://127.0.0.1:1", 1, "error: cannot connect to http://127.0.0.1:1: nothing listens there"),
    ],
)
def test_bad_command_lines(words: str, status: int, sentence: str, said: Said) -> None:
    assert cli.main(["bench", *words.split()]) == status
    assert sentence in said()


def test_help_and_version(said: Said) -> None:
    assert cli.main(["bench", "--help"]) == 0 and "--concurrency" in said()
    assert cli.benchmark_main(["-h"]) == 0 and "--sequence-length" in said()
    assert cli.main(["bench", "-V"]) == 0 and re.fullmatch(r"tgi \d\S+\n", said())
    assert cli.benchmark_main(["--version"]) == 0 and said().startswith("text-generation-benchmark ")


def test_without_matplotlib_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["bench", "--plot", "x.png"]) == 1
    assert "--plot needs matplotlib: pip install 'text-generation-inference[plot]'" in said()


# -- whole runs


def test_a_sweep_prints_a_table_and_writes_files(fake: FakeServer, said: Said, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("figures.json", "figures.png", "figures.svg")}
    words = (
        f"bench --url {fake.url} -c 1,3 -n 6 --prompt-tokens 8:12 --output-tokens 5 --seed 4 --slo-ttft 60000".split()
    )
    assert cli.main([*words, "--json", str(files["figures.json"]), "--plot", str(files["figures.png"])]) == 0
    printed = said()
    assert f"fake/model at {fake.url} (tgi): prompts of 8:12 tokens, 5 new tokens, greedy, seed 4" in printed
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0][1:7]] == [
        "at once", "requests", "failed", "prefill t/s", "decode t/s", "total t/s",
    ]  # fmt: skip
    assert [[cell.strip() for cell in row[1:4]] for row in rows[2:]] == [["1", "6", "0"], ["3", "6", "0"]]
    written = json.loads(files["figures.json"].read_bytes())
    assert written["setup"]["model"] == "fake/model" and written["setup"]["seed"] == 4
    assert [(row["concurrency"], row["ok"], row["output_tokens"]) for row in written["levels"]] == [
        (1, 6, 5),
        (3, 6, 5),
    ]
    assert all(8 <= row["prompt_tokens"] <= 12 and row["goodput"] > 0 for row in written["levels"])
    assert files["figures.png"].read_bytes().startswith(b"\x89PNG")


def figures(concurrency: int | None, rate: float | None = None) -> Figures:
    records = [finished(0, 0.1, 0.2, 0.3) for _ in range(concurrency or 1)]
    return summarize(Level(Load(concurrency, rate, requests=1), records, 0, 0.3, 0.0, []))


def test_plots(tmp_path: Path) -> None:
    for name, rows in (("a.svg", [figures(1), figures(2)]), ("b.svg", [figures(None, 0.5)]), ("c.png", [figures(1)])):
        plot.save(tmp_path / name, "title", rows)
    assert "<svg" in (tmp_path / "a.svg").read_text() and (tmp_path / "c.png").stat().st_size > 1000
    with pytest.raises(BenchError):
        plot.check(Path("x.jpg"))


def test_failures_show_in_the_exit_status(said: Said) -> None:
    counted = iter(range(1000))

    async def third_fails(exchange: Exchange) -> None:
        if exchange.path == "/generate_stream" and next(counted) == 7:
            await exchange.json({"error": "Model is overloaded", "error_type": "overloaded"}, 429)
        else:
            await tgi(exchange)

    with in_thread(third_fails) as server:
        assert cli.main(["bench", "--url", server.url, "-c", "2", "-n", "8", "--output-tokens", "2"]) == 1
    assert "warning: 2: 1 of 8 failed (1 x HTTP 429): Model is overloaded" in said()


def test_a_failing_warm_up_is_the_end(said: Said) -> None:
    counted = iter(range(1000))

    async def later_fails(exchange: Exchange) -> None:
        if exchange.path == "/generate_stream" and next(counted) >= 2:
            await exchange.json({"error": "Input validation error: too long", "error_type": "validation"}, 422)
        else:
            await tgi(exchange)

    with in_thread(later_fails) as server:
        assert cli.main(["bench", "--url", server.url]) == 1
    assert "error: a request to warm up failed (HTTP 422): Input validation error: too long" in said()


# -- screens


def shown(drawing: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(drawing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_screen_of_a_sweep() -> None:
    progress = Progress(records=[finished(10, 10.5, 11, 12), Record(1, 9, 11.0)], done=1, errors=1, began=10.0)
    sweep = Sweep("model", [Load(1, requests=4), Load(8, requests=32)], [figures(1)], progress)
    for width in (80, 200):
        text = shown(draw_sweep(sweep, 12.0, width), width)
        assert "level 2 of 2   8 at once" in text and "1 of 32 requests, 1 in flight, 2 s, 1 failed" in text
        assert "TTFT p50/90/99" in text and "…" not in text
        assert re.search(r"tokens/s +1\.50", text)  # 3 in the last 2 seconds
    assert "level" not in shown(draw_sweep(Sweep("model", [], [figures(1)]), 0.0, 80))
    by_rate = Sweep("model", [Load(rate=2, duration=9)], [], Progress(began=1.0))
    assert "2/s at random moments" in shown(draw_sweep(by_rate, 3.0, 80))


def test_keys() -> None:
    assert decode(b"\x1b[C") == ["right"] and decode(b"\x1b[D") == ["left"] and decode(b"\x1b[A") == []
    assert decode(b"q\t") == ["q", "right"]


def test_numbers() -> None:
    texts = [report.number(value) for value in (0.123, 9.99, 9.996, 99.94, 99.96, 12345.6, math.nan)]
    assert texts == ["0.12", "9.99", "10.0", "99.9", "100", "12346", "-"]


# -- a terminal, and a real server


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("key", "status"), [(b"q", 0), (b"\x03", 130)])
def test_a_key_stops_a_sweep_and_the_table_is_printed(key: bytes, status: int, tmp_path: Path) -> None:
    """On a pseudo-terminal: once the second level hangs, the key is pressed."""
    import pty

    hanging, counted = threading.Event(), iter(range(1000))

    async def handler(exchange: Exchange) -> None:
        if exchange.path == "/generate_stream" and next(counted) >= 7:
            await exchange.head()
            hanging.set()
            return
        await tgi(exchange)

    parent, child = pty.openpty()
    # Ctrl-C is a signal to the foreground process of the controlling terminal, so the terminal must be that.
    program = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from tgi.commands.cli import main
sys.exit(main())
"""
    with in_thread(handler) as server:
        words = ["bench", "--url", server.url, "-c", "1,2", "-n", "3", "--warmup", "2", "--output-tokens", "2"]
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stdin=child, stdout=child, stderr=child, env=environment(tmp_path, TERM="xterm"), close_fds=True,
        )  # fmt: skip
        os.close(child)
        output = bytearray()

        def read() -> None:
            while True:
                try:
                    piece = os.read(parent, 65536)
                except OSError:  # the other side is closed
                    return
                if not piece:
                    return
                output.extend(piece)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            assert hanging.wait(60), output.decode()
            os.write(parent, key)
            assert process.wait(30) == status, output.decode()
        finally:
            process.kill()
            reader.join(10)
            os.close(parent)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode())
    assert "q or ctrl-c: stop here and print the table" in text
    after = text[text.rindex("new tokens, greedy, seed") :]
    assert re.search(r"\| +1 \| +3 \| +0 \|", after) and not re.search(r"\| +2 \| ", after)


def test_a_real_server(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.models.checkpoints import make_checkpoint

    model = make_checkpoint(tmp_path / "tiny", "llama", max_position_embeddings=512)
    arguments = ["--model-id", str(model), "--kv-cache-memory", "64MiB", "--threads", "1", "--api-key", "secret"]

    def command(main: str, *words: str) -> subprocess.CompletedProcess[str]:
        program = (
            f"import sys; from tgi.commands.cli import {main}; status = {main}(); "
            f"assert not {{'torch', 'transformers'}} & set(sys.modules); sys.exit(status)"
        )
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=ROOT, env=environment(tmp_path, API_KEY="secret"), capture_output=True, text=True, timeout=100,
        )  # fmt: skip

    with Launched(REAL, arguments, tmp_path) as server:
        server.connected()
        for api in ("auto", "openai-completions", "openai-chat"):
            target = tmp_path / f"{api}.json"
            words = f"--url {server.url} --api {api} -c 1,4 -n 8 --prompt-tokens 100 --output-tokens 30 --json {target}"
            result = command("main", "bench", *words.split(), "--seed", "7")
            assert result.returncode == 0, result.stdout + result.stderr
            written = json.loads(target.read_bytes())
            assert written["setup"]["api"] == ("tgi" if api == "auto" else api)
            for row in written["levels"]:
                assert (row["ok"], row["errors"], row["short"], row["output_tokens"]) == (8, {}, 0, 30)
                assert row["prompt_tokens"] == (100 if api == "auto" else pytest.approx(100, abs=15))
                assert row["prefill_tps"] > 0 and row["ttft_ms"]["p50"] > 0 and row["total_tps"] > 0
            # A client that got no processor meanwhile reads a whole answer at once: no time to divide by.
            assert all(row["decode_tps"] is None or row["decode_tps"] > 0 for row in written["levels"])
        result = command("benchmark_main", "--url", server.url, "-b", "1,4", "-r", "2", "-s", "40", "-d", "400")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "tokens/secs" in result.stdout and "NaN" not in result.stdout
        refused = command("main", "bench", "--url", server.url, "--api-key", "wrong")
        assert refused.returncode == 1 and "refuses the API key" in refused.stderr
