"""What the log tells of a request at `debug`: its text and what was made of it, as in TGI."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tgi import logs
from tgi.api.server.request_log import parameters
from tgi.messages import Grammar
from tgi.serving.types import SamplingParams

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    names = ("tgi", *logs.TARGETS)
    before = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    yield io.StringIO()
    root.handlers[:], root.level = before[:2]
    for name, level in zip(names, before[2], strict=True):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)


def texts(stream: io.StringIO) -> list[str]:
    """Lines that have text of the request, without their time."""
    return re.findall(r"^\S+ DEBUG (\w+\{\}: \w+: (?:Input|Output): .*)$", stream.getvalue(), re.MULTILINE)


ROUTES: list[tuple[str, dict[str, Any], str, str]] = [
    ("/generate", {"inputs": "ab"}, "generate", "ab"),
    ("/generate_stream", {"inputs": "ab"}, "generate_stream", "ab"),
    ("/", {"inputs": "ab"}, "compat_generate", "ab"),
    ("/v1/chat/completions", {"messages": HI}, "chat_completions", "[user]Hi[assistant]"),
    ("/v1/chat/completions", {"messages": HI, "stream": True}, "chat_completions", "[user]Hi[assistant]"),
    ("/v1/completions", {"prompt": [65, 66]}, "completions", "[65, 66]"),
    ("/vertex", {"instances": [{"inputs": "ab"}]}, "vertex", "ab"),
    ("/v1/responses", {"input": "Hi"}, "responses", "[user]Hi[assistant]"),
    ("/v1/messages", {"messages": HI, "max_tokens": 99}, "messages", "[user]Hi[assistant]"),
]


@pytest.mark.parametrize("level", ["debug", "trace", "warn,text_generation_router=debug", "text_generation_router"])
@pytest.mark.parametrize(("path", "body", "name", "prompt"), ROUTES)
async def test_input_and_output(
    client: httpx.AsyncClient, stream: io.StringIO, level: str, path: str, body: dict[str, Any], name: str, prompt: str
) -> None:
    logs.configure(level, stream=stream)
    assert (await client.post(path, json=body)).status_code == 200
    target = f"{name}{{}}: text_generation_router"
    assert texts(stream) == [f"{target}: Input: {prompt}", f"{target}: Output: Hello world"]


ROUTER = "text_generation_router"


@pytest.mark.parametrize("level", ["info", "", f"debug,{ROUTER}=info", f"debug,{ROUTER}::server=warn"])
async def test_no_text_by_default(client: httpx.AsyncClient, stream: io.StringIO, level: str) -> None:
    logs.configure(level, stream=stream)
    assert (await client.post("/generate", json={"inputs": "secret"})).status_code == 200
    assert "secret" not in stream.getvalue() and "Hello" not in stream.getvalue()


async def test_long_texts_are_cut(client: httpx.AsyncClient, stream: io.StringIO) -> None:
    logs.configure("debug", stream=stream)
    for body in ({"inputs": "x\n" * 500_000}, {"inputs": "y" * 1_000_000, "parameters": {"truncate": 5}}):
        await client.post("/generate", json=body)
    await client.post("/v1/completions", json={"prompt": [65] * 200_000, "truncate": 5})
    lines = texts(stream)
    assert [line for line in lines if "Input" in line and len(line) < 2_300 and re.search(r"\d,000 c|\d,936 m", line)]
    assert len([line for line in lines if "Input" in line]) == 3 and max(map(len, lines)) < 2_300


def test_grammars_show_their_beginning() -> None:
    said = parameters(SamplingParams(grammar=Grammar("lark", "start: " + "x" * 500_000)))
    assert "'kind': 'lark', 'text': 'start: xxx" in said
    assert len(said) < 2_000


@pytest.mark.parametrize(("given", "logged"), [("abc-1", "abc-1"), ("x" * 500, "x" * 200), (None, None)])
async def test_the_id_of_a_request_is_logged(
    client: httpx.AsyncClient, stream: io.StringIO, given: str | None, logged: str | None
) -> None:
    """A router's or a client's, so that one request is found in all logs."""
    logs.configure("info", stream=stream)
    await client.post("/generate", json={"inputs": "ab"}, headers={} if given is None else {"x-request-id": given})
    found = re.findall(r'Success|request_id="([^"]*)"', stream.getvalue())
    assert "Success" in stream.getvalue()
    assert [one for one in found if one] == ([] if logged is None else [logged])
