"""The live page's numbers of a server that runs: what its engine tells of an open request arrives."""

from __future__ import annotations

import httpx

from tests.e2e.conftest import Launch
from tests.e2e.launched import Launched


def test_an_open_request_is_known_to_be_read_and_to_generate(server: Launched) -> None:
    body = {"prompt": "Hello", "max_tokens": 1500, "n": 8, "ignore_eos": True, "stream": True}
    client = httpx.Client(base_url=server.url, timeout=60)
    with client, client.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_lines())
        shown = client.get("/dashboard/data").json()
    assert shown["open"], "the answer ended too soon"
    mine = shown["open"][-1]
    assert 0 < mine["validated_s"] <= mine["scheduled_s"] <= mine["first_token_s"]
    assert "ended_s" not in mine


def test_the_log_says_where_the_playground_is(launch: Launch) -> None:
    server = launch("--hostname", "127.0.0.1").connected()
    assert f"Playground: {server.url}\n" in server.log
    assert "Playground" not in launch("--disable-playground").connected().log
