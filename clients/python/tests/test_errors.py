"""Status and body to exception: TGI's errors, OpenAI's objects, and bodies that are not JSON."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from conftest import Talk
from fake_server import Answer, FakeServer, json_answer

from text_generation import errors
from text_generation.errors import TextGenerationError, parse_error

BY_ERROR_TYPE = [
    (422, "validation", errors.ValidationError),
    (400, "validation", errors.ValidationError),
    (424, "generation", errors.GenerationError),
    (429, "overloaded", errors.OverloadedError),
    (500, "incomplete_generation", errors.IncompleteGenerationError),
    (200, "incomplete_generation_stream", errors.IncompleteGenerationError),
    (422, "template_error", errors.ValidationError),
    (422, "tool_error", errors.ValidationError),
    (401, "unauthorized", errors.AuthenticationError),
    (404, "model_not_found", errors.NotFoundError),
    (503, "shutting_down", errors.ServiceUnavailableError),
]
BY_STATUS = [
    (400, errors.BadRequestError),
    (401, errors.AuthenticationError),
    (403, errors.ShardNotReadyError),
    (404, errors.NotFoundError),
    (422, errors.ValidationError),
    (424, errors.ShardNotReadyError),
    (429, errors.RateLimitExceededError),
    (500, errors.UnknownError),
    (502, errors.UnknownError),
    (503, errors.ServiceUnavailableError),
    (504, errors.ShardTimeoutError),
]


@pytest.mark.parametrize(("status", "error_type", "expected"), BY_ERROR_TYPE)
def test_tgi_error(status: int, error_type: str, expected: type[TextGenerationError]) -> None:
    error = parse_error(status, {"error": "what", "error_type": error_type})
    assert type(error) is expected
    assert (str(error), error.status_code, error.error_type) == ("what", status, error_type)


@pytest.mark.parametrize(("status", "expected"), BY_STATUS)
@pytest.mark.parametrize("payload", [{"error": "what"}, {"message": "what"}, {"detail": "what"}, "what", "what\n"])
def test_status_alone(status: int, expected: type[TextGenerationError], payload: Any) -> None:
    error = parse_error(status, payload)
    assert type(error) is expected
    assert str(error) == "what"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"message": "m", "type": "invalid_request_error"}, errors.BadRequestError),
        (404, {"message": "m", "type": "invalid_request_error", "code": "model_not_found"}, errors.NotFoundError),
        (429, {"message": "m", "type": "rate_limit_error"}, errors.RateLimitExceededError),
        (429, {"message": "Model is overloaded", "type": "rate_limit_error"}, errors.OverloadedError),
        (200, {"message": "m", "type": "invalid_request_error", "code": None}, errors.ValidationError),
        (200, {"message": "m", "type": "server_error"}, errors.GenerationError),
        (200, {"message": "m", "code": 404}, errors.NotFoundError),
        (200, {"message": "m", "http_status_code": 422}, errors.ValidationError),
        (200, {"message": "Request failed during generation: x", "http_status_code": 422}, errors.GenerationError),
        (200, {"message": "Incomplete generation", "http_status_code": 422}, errors.IncompleteGenerationError),
        (200, {}, errors.UnknownError),
    ],
)
def test_openai_error_object(status: int, body: dict[str, Any], expected: type[TextGenerationError]) -> None:
    error = parse_error(status, {"error": body})
    assert type(error) is expected
    assert str(error) == body.get("message", "HTTP status 200")


def test_error_type_beside_an_openai_object_wins() -> None:
    body = {"error": {"message": "m", "type": "rate_limit_error"}, "error_type": "overloaded"}
    assert type(parse_error(429, body)) is errors.OverloadedError


@pytest.mark.parametrize("payload", ["", "<html><h1>502</h1></html>", {}, {"error": None}])
def test_nothing_to_say(payload: Any) -> None:
    assert str(parse_error(502, payload)) == "HTTP status 502"


@pytest.mark.parametrize("payload", [None, [], 3])
def test_json_that_is_no_object(payload: Any) -> None:
    assert type(parse_error(404, payload)) is errors.NotFoundError


@pytest.mark.parametrize("method", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (Answer(401), errors.AuthenticationError, "HTTP status 401"),
        (Answer(404), errors.NotFoundError, "HTTP status 404"),
        (Answer(502, [b"<html>Bad Gateway</html>"], "text/html"), errors.UnknownError, "HTTP status 502"),
        (
            Answer(422, [b"Failed to deserialize the JSON body: x"], "text/plain"),
            errors.ValidationError,
            "Failed to deserialize the JSON body: x",
        ),
        (Answer(500, [b"\xff\xfe"], "application/json"), errors.UnknownError, "\ufffd\ufffd"),
    ],
)
def test_bodies_over_the_network(
    server: FakeServer, talk: Talk, method: str, answer: Answer, expected: type[Exception], message: str
) -> None:
    server.answers["/"] = answer
    with pytest.raises(expected) as caught:
        talk(method, "Hi")
    assert type(caught.value) is expected
    assert str(caught.value) == message


def test_retry_after(server: FakeServer, talk: Talk) -> None:
    server.answers["/"] = json_answer(
        {"error": "Model is overloaded", "error_type": "overloaded"}, 429, Retry_After="1.5"
    )
    with pytest.raises(errors.OverloadedError) as caught:
        talk("generate", "Hi")
    assert caught.value.retry_after == 1.5


def test_retry_after_as_a_date_or_nonsense() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = parse_error(503, "", headers={"Retry-After": later}).retry_after
    assert seconds is not None and 90 < seconds <= 100
    assert parse_error(503, "", headers={"Retry-After": "-3"}).retry_after == 0
    assert parse_error(503, "", headers={"Retry-After": "soon"}).retry_after is None
    assert parse_error(503, "").retry_after is None


def test_the_new_classes_are_caught_as_the_old_ones() -> None:
    # Before 1.0 these statuses ended as UnknownError, where their body was JSON at all.
    assert issubclass(errors.AuthenticationError, errors.UnknownError)
    assert issubclass(errors.ServiceUnavailableError, errors.UnknownError)


def test_errors_can_be_made_from_a_message_and_pickled() -> None:
    error = pickle.loads(pickle.dumps(parse_error(429, "slow down", headers={"Retry-After": "2"})))
    assert (str(error), error.status_code, error.retry_after) == ("slow down", 429, 2)
    assert str(errors.ValidationError("m")) == "m"
    assert "`org/model`" in str(errors.NotSupportedError("org/model"))
