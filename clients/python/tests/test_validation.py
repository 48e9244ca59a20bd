"""What the client refuses before sending, and what it leaves to the server."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Talk
from fake_server import FakeServer, json_answer

from text_generation.errors import ValidationError
from text_generation.types import Parameters, Request

NAN = float("nan")
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"best_of": 0}, "`best_of` must be strictly positive"),
    ({"best_of": 2, "seed": 1, "do_sample": True}, "`seed` must not be set when `best_of` is > 1"),
    ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
    ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
    ({"temperature": -0.1}, "`temperature` must be positive"),
    ({"temperature": NAN}, "`temperature` must be positive"),
    ({"top_k": 0}, "`top_k` must be strictly positive"),
    ({"truncate": 0}, "`truncate` must be strictly positive"),
    ({"top_n_tokens": -1}, "`top_n_tokens` must be positive"),
    ({"seed": -1}, "`seed` must be positive"),
    ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0"),
    ({"top_p": NAN}, "`top_p` must be > 0.0 and < 1.0"),
    ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
    ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ({"grammar": {"type": "regex", "value": ""}}, "`value` cannot be empty for `regex` grammar"),
    ({"grammar": {"type": "json", "value": {}}}, "`value` cannot be empty for `json` grammar"),
]
ACCEPTED: list[dict[str, Any]] = [
    {"temperature": 0},
    {"frequency_penalty": -2.0},
    {"frequency_penalty": 0},
    {"frequency_penalty": 2},
    {"top_n_tokens": 0},
    {"best_of": 1, "seed": 3},
    {"best_of": 2, "top_k": 5},
    {"seed": 0},
    {"max_new_tokens": None},
    {"top_p": 0.999, "typical_p": 0.001},
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=str)
def test_refused_without_a_request(server: FakeServer, talk: Talk, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match="^" + message.replace(".", r"\.") + "$"):
        talk("generate", "Hi", **arguments)
    assert server.received == []


def test_empty_prompt(server: FakeServer, talk: Talk) -> None:
    for method in ("generate", "generate_stream"):
        with pytest.raises(ValidationError, match="`inputs` cannot be empty"):
            talk(method, "")
    assert server.received == []


@pytest.mark.parametrize("arguments", ACCEPTED, ids=str)
def test_left_to_the_server(server: FakeServer, talk: Talk, shapes: dict[str, Any], arguments: dict[str, Any]) -> None:
    server.answers["/"] = json_answer([shapes["generate_details_greedy"]])
    talk("generate", "Hi", **arguments)
    sent = server.received[0].body["parameters"]
    assert {key: sent.get(key) for key in arguments} == arguments


def test_best_of_does_not_stream() -> None:
    parameters = Parameters(best_of=2, do_sample=True)
    with pytest.raises(ValidationError, match="not supported when `stream`"):
        Request(inputs="Hi", parameters=parameters, stream=True)
    assert Request(inputs="Hi", parameters=Parameters(best_of=1), stream=True).stream
