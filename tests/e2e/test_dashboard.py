"""The live page's numbers of a server that runs: what its engine tells of an open request arrives."""

from __future__ import annotations

import httpx

from tests.e2e.conftest import Launch


def test_an_open_request_is_known_to_be_read_and_to_generate(launch: Launch) -> None:
    server = launch(SCRIPT='{"delay_s": 0.1}').connected()
    client = httpx.Client(base_url=server.url, timeout=60)
    with client, client.stream("POST", "/generate_stream", json={"inputs": "x"}) as answer:
        next(answer.iter_lines())
        (mine,) = client.get("/dashboard/data").json()["open"]
    assert 0 < mine["validated_s"] <= mine["scheduled_s"] < mine["first_token_s"]
    assert "ended_s" not in mine


def test_the_log_says_where_the_playground_is(launch: Launch) -> None:
    server = launch("--hostname", "127.0.0.1").connected()
    assert f"Playground: {server.url}\n" in server.log
    assert "Playground" not in launch("--disable-playground").connected().log
