"""The log: lines as TGI writes them, or JSON, on standard output.

Owns format, level filter and what must never get into a line: secrets, control characters that
forge lines or steer terminals, more text than anybody reads. Called once by each process at its start.
Everyone else uses the standard `logging`; `extra={"span": ("generate", {"total_time": "1.2s"})}` puts a
span before the message.

    2026-01-31T12:00:00.123456Z  INFO text_generation_router: Connected
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from tgi.shorten import shorten

TARGETS = {
    "tgi.commands": "text_generation_launcher",
    "tgi.hub": "text_generation_launcher",
    "tgi.launcher": "text_generation_launcher",
    "tgi.memory": "text_generation_launcher",
    "tgi.settings": "text_generation_launcher",
    "tgi.api": "text_generation_router",
    "tgi.serving": "text_generation_router",
    "tgi.replicas": "text_generation_router",
}
"""Our modules -> the names TGI's users filter by; all others are `text_generation_server`."""
SERVER = "text_generation_server"

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}
_LEVEL_NAMES = {logging.WARNING: "WARN", logging.CRITICAL: "ERROR"}
_COLORS = {"DEBUG": 34, "INFO": 32, "WARN": 33, "ERROR": 31}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_HIDDEN = "***"
_SHORTEST_SECRET = 4
FIELD_LIMIT = 1024
"""Characters of one field of a span."""
MESSAGE_LIMIT = 8192
"""Characters of a message, and of a line of a traceback."""
TRACEBACK_LINES = 200


def configure(
    level: str = "info",
    *,
    json_output: bool = False,
    color: bool | None = None,
    secrets: Sequence[str | None] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up logging of this process, replacing what was there.

    `level` is `error`, `warn`, `info`, `debug`, or a filter such as `warn,text_generation_router=debug`.
    Secrets are masked wherever they turn up. Other libraries are heard from `error` on, or from their
    warnings on at `debug`.
    """
    output: TextIO = stream or sys.stdout
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="backslashreplace")  # a line with a character that it cannot say is better than none
    base, by_target = parse_filter(level)
    hidden = tuple(secret for secret in secrets if secret and len(secret) >= _SHORTEST_SECRET)
    handler = logging.StreamHandler(output)
    if json_output:
        handler.setFormatter(JsonFormatter(hidden))
    else:
        handler.setFormatter(TextFormatter(hidden, output.isatty() if color is None else color))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if base <= logging.DEBUG else logging.ERROR)
    logging.getLogger("tgi").setLevel(by_target.get(SERVER, base))
    for name, target in TARGETS.items():
        logging.getLogger(name).setLevel(by_target.get(target, base))
    logging.captureWarnings(True)  # Python warnings of libraries are for developers: logger py.warnings


def parse_filter(text: str) -> tuple[int, dict[str, int]]:
    """`info,text_generation_router=debug` -> the level and those of single targets; unknown words mean info.

    As in the filters of Rust's programs, a target may be a path (`text_generation_router::server`), and one without a
    level is heard of everything.
    """
    base, by_target = logging.INFO, {}
    for part in text.lower().split(","):
        target, equals, level = part.strip().partition("=")
        name = target.strip().split("::")[0]
        if equals or name in (SERVER, *TARGETS.values()):
            by_target[name] = LEVELS.get(level.strip(), logging.INFO) if equals else logging.DEBUG
        else:
            base = LEVELS.get(name, logging.INFO)
    return base, by_target


def escape(text: str) -> str:
    """Make control characters visible, so that a value cannot forge a line or steer a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class _Formatter(logging.Formatter):
    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def _message(self, record: logging.LogRecord) -> str:
        return shorten(self._clean(record.getMessage()), MESSAGE_LIMIT)

    def _fields(self, span: tuple[str, dict[str, Any]]) -> dict[str, str]:
        return {key: shorten(self._clean(str(value)), FIELD_LIMIT) for key, value in span[1].items()}

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    def _traceback(self, record: logging.LogRecord) -> list[str]:
        if not record.exc_info:
            return []
        lines = self.formatException(record.exc_info).splitlines()
        if (more := len(lines) - TRACEBACK_LINES) > 0:
            lines = [*lines[: TRACEBACK_LINES // 2], f"... {more} lines ...", *lines[-TRACEBACK_LINES // 2 :]]
        return [escape(shorten(self._clean(line), MESSAGE_LIMIT)) for line in lines]


class TextFormatter(_Formatter):
    """One compact line; a traceback follows on lines of its own."""

    def __init__(self, secrets: tuple[str, ...] = (), color: bool = False) -> None:
        super().__init__(secrets)
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        name = _level_name(record)
        level, when = f"{name:>5}", _timestamp(record)
        if self._color:
            level, when = f"\x1b[{_COLORS[name]}m{level}\x1b[0m", f"\x1b[2m{when}\x1b[0m"
        span = _span(record)
        before = ""
        if span is not None:
            fields = " ".join(
                f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self._fields(span).items()
            )
            before = escape(f"{span[0]}{{{fields}}}: ")
        message = escape(self._message(record))
        lines = [f"{when} {level} {before}{_target(record)}: {message}", *self._traceback(record)]
        return "\n".join(lines)


class JsonFormatter(_Formatter):
    """One JSON object a line, in the two shapes of TGI: nested for the launcher, flat for the router."""

    def format(self, record: logging.LogRecord) -> str:
        target = _target(record)
        message = self._message(record)
        line: dict[str, Any] = {"timestamp": _timestamp(record), "level": _level_name(record)}
        if target == "text_generation_router":
            line |= {"message": message, "target": target}
            line |= {"filename": record.pathname.rpartition("tgi/")[2], "line_number": record.lineno}
        else:
            line |= {"fields": {"message": message}, "target": target}
        if (span := _span(record)) is not None:
            named = self._fields(span) | {"name": span[0]}
            line |= {"span": named, "spans": [named]}
        if traceback := self._traceback(record):
            line["traceback"] = "\n".join(traceback)
        text = json.dumps(line, ensure_ascii=False)
        return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _span(record: logging.LogRecord) -> tuple[str, dict[str, Any]] | None:
    return getattr(record, "span", None)


def _target(record: logging.LogRecord) -> str:
    package = ".".join(record.name.split(".")[:2])
    if package in TARGETS:
        return TARGETS[package]
    return SERVER if package.startswith("tgi") else record.name


def _level_name(record: logging.LogRecord) -> str:
    return _LEVEL_NAMES.get(record.levelno, record.levelname)


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.created % 1 * 1e6):06}Z"
