"""Fixtures: a fake server, TGI's shapes, and `talk`, which runs each test with both clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, running_server

from text_generation import AsyncClient, Client

Talk = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def shapes() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "data" / "tgi-shapes.json").read_text(encoding="utf-8"))


@pytest.fixture(params=["sync", "async"])
def talk(request: pytest.FixtureRequest, server: FakeServer) -> Talk:
    """`talk("generate", "Hello", seed=1)`: the result of the call, a list if it streams."""

    def call(method: str, *args: Any, client_options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        options = {"base_url": server.url, **(client_options or {})}
        if request.param == "async":
            return asyncio.run(call_async(options, method, args, kwargs))
        with Client(**options) as client:
            result = getattr(client, method)(*args, **kwargs)
            return list(result) if isinstance(result, Generator) else result

    async def call_async(options: dict[str, Any], method: str, args: Any, kwargs: Any) -> Any:
        async with AsyncClient(**options) as client:
            result = getattr(client, method)(*args, **kwargs)
            if not isinstance(result, AsyncGenerator):
                result = await result
            return [event async for event in result] if isinstance(result, AsyncGenerator) else result

    return call
