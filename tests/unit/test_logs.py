"""Log lines as scripts expect them, and what must never get into one."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest

from tgi import logs

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z +(TRACE|DEBUG|INFO|WARN|ERROR) (.*)$")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_a_line_as_tgi_writes_it(stream: io.StringIO) -> None:
    logs.configure("info", stream=stream)
    logging.getLogger("tgi.launcher.supervisor").info("Starting %s", "shard")
    logging.getLogger("tgi.serving.router").info("Connected")
    logging.getLogger("tgi.engine").warning("slow")
    lines = stream.getvalue().splitlines()
    assert [LINE.match(line).groups() for line in lines] == [  # type: ignore[union-attr]
        ("INFO", "text_generation_launcher: Starting shard"),
        ("INFO", "text_generation_router: Connected"),
        ("WARN", "text_generation_server: slow"),
    ]
    assert "Z  INFO " in lines[0]


def test_spans_come_before_the_message(stream: io.StringIO) -> None:
    logs.configure("info", stream=stream)
    logging.getLogger("tgi.api").info("Success", extra={"span": ("generate", {"total_time": "1.2s", "seed": None})})
    assert 'generate{total_time="1.2s" seed="None"}: text_generation_router: Success' in stream.getvalue()


def test_json_in_both_shapes(stream: io.StringIO) -> None:
    logs.configure("info", json_output=True, stream=stream)
    logging.getLogger("tgi.launcher").info("one")
    logging.getLogger("tgi.api").info("two", extra={"span": ("generate", {"seed": 5})})
    launcher, router = map(json.loads, stream.getvalue().splitlines())
    assert launcher["fields"] == {"message": "one"}
    assert (launcher["level"], launcher["target"]) == ("INFO", "text_generation_launcher")
    assert (router["message"], router["target"], router["level"]) == ("two", "text_generation_router", "INFO")
    assert router["span"] == {"seed": "5", "name": "generate"}
    assert isinstance(router["line_number"], int)


@pytest.mark.parametrize("json_output", [False, True])
def test_a_value_cannot_forge_a_line_or_steer_a_terminal(stream: io.StringIO, json_output: bool) -> None:
    logs.configure("info", json_output=json_output, stream=stream)
    evil = "x\n2026-01-01T00:00:00.000000Z  INFO text_generation_router: Connected\r\x1b[2J\u2028\x9b1m\x00"
    logging.getLogger("tgi.api").info("Success %s", evil, extra={"span": ("generate", {"prompt": evil})})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not set(text[:-1]) & set("\n\r\x1b\u2028\x9b\x00")
    if json_output:
        assert evil in json.loads(text)["message"]


def test_secrets_are_masked_everywhere(stream: io.StringIO) -> None:
    logs.configure("info", secrets=("hunter22", None, ""), stream=stream)
    try:
        raise ValueError("key hunter22 is wrong")
    except ValueError:
        logging.getLogger("tgi.api").exception("failed: %s", "hunter22", extra={"span": ("s", {"k": "hunter22"})})
    assert "hunter22" not in stream.getvalue()
    assert stream.getvalue().count("***") == 4  # span, message, source line and message of the traceback


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("warn,text_generation_router=debug", "router"),
        ("error,text_generation_server=info", "server"),
        ("off,text_generation_launcher::download=trace", "launcher"),
        ("off, text_generation_router", "router"),
        ("INFO,text_generation_launcher=off,text_generation_router=Error", "server"),
    ],
)
def test_targets_are_filtered_apart(stream: io.StringIO, level: str, heard: str) -> None:
    logs.configure(level, stream=stream)
    for name in (
        "tgi.launcher.supervisor",
        "tgi.hub.download",
        "tgi.api",
        "tgi.serving.x",
        "tgi.engine",
        "tgi.models.y",
    ):
        logging.getLogger(name).info("line")
    assert len(stream.getvalue().splitlines()) == 2
    assert stream.getvalue().count(f"text_generation_{heard}: line") == 2


def test_other_libraries_are_quiet(stream: io.StringIO) -> None:
    logs.configure("info", stream=stream)
    logging.getLogger("uvicorn.error").warning("chatter")
    logging.getLogger("py.warnings").warning("DeprecationWarning")
    logging.getLogger("httpx").error("broken")
    assert "chatter" not in stream.getvalue()
    assert "Deprecation" not in stream.getvalue()
    assert "broken" in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "base", "by_target"),
    [
        ("info", logging.INFO, {}),
        ("WARN", logging.WARNING, {}),
        ("nonsense", logging.INFO, {}),
        ("error,text_generation_router=debug", logging.ERROR, {"text_generation_router": logging.DEBUG}),
        ("text_generation_router::server=warn", logging.INFO, {"text_generation_router": logging.WARNING}),
    ],
)
def test_filters(text: str, base: int, by_target: dict[str, int]) -> None:
    assert logs.parse_filter(text) == (base, by_target)


def test_a_filter_for_one_target(stream: io.StringIO) -> None:
    logs.configure("error,text_generation_router=info", stream=stream)
    logging.getLogger("tgi.launcher").info("no")
    logging.getLogger("tgi.serving").info("yes")
    assert "no" not in stream.getvalue()
    assert "yes" in stream.getvalue()


def test_colour_only_when_told_or_on_a_terminal(stream: io.StringIO) -> None:
    logs.configure("info", stream=stream)
    logging.getLogger("tgi.api").info("plain")
    assert "\x1b" not in stream.getvalue()
    logs.configure("info", color=True, stream=stream)
    logging.getLogger("tgi.api").info("coloured")
    assert "\x1b[32m INFO\x1b[0m" in stream.getvalue()


def test_standard_output_is_the_default(stream: io.StringIO) -> None:
    logs.configure("info")
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    assert handler.stream is sys.stdout


@pytest.mark.parametrize("json_output", [False, True])
def test_long_values_are_cut_where_they_are_logged(stream: io.StringIO, json_output: bool) -> None:
    """Messages, fields, lines of tracebacks and their number; a secret is masked before anything is cut."""
    logs.configure("info", json_output=json_output, secrets=("hunter22",), stream=stream)
    long = "\n\x1b" * 1_000_000
    logger = logging.getLogger("tgi.api")
    logger.info("%s", long, extra={"span": ("generate", {"parameters": long, "seed": 1})})
    logger.info("x" * (logs.MESSAGE_LIMIT - 4) + "hunter22", extra={"span": ("s", {"k": "hunter22" * 1000})})
    try:
        raise ValueError(long + "x" * 1_000_000)
    except ValueError:
        logger.exception("failed")
    text = stream.getvalue()
    assert len(text) < 1_000_000 if json_output else len(text) < 500_000
    assert "(2,000,000 characters)" in text
    assert "hunt" not in text
    assert "failed" in text
    if json_output:
        assert all(json.loads(line) for line in text.splitlines())
