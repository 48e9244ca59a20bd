"""The arguments of every call, compared with those of version 0.7.0, written down here as data."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

import text_generation
from text_generation import (
    AsyncClient,
    Client,
    InferenceAPIAsyncClient,
    InferenceAPIClient,
    errors,
    inference_api,
    types,
)
from text_generation.options import ChatOptions, CompletionOptions

REQUIRED = inspect.Parameter.empty

GENERATE: list[tuple[str, Any]] = [
    ("prompt", REQUIRED),
    ("do_sample", False),
    ("max_new_tokens", 20),
    ("best_of", None),
    ("repetition_penalty", None),
    ("frequency_penalty", None),
    ("return_full_text", False),
    ("seed", None),
    ("stop_sequences", None),
    ("temperature", None),
    ("top_k", None),
    ("top_p", None),
    ("truncate", None),
    ("typical_p", None),
    ("watermark", False),
    ("decoder_input_details", False),
    ("top_n_tokens", None),
    ("grammar", None),
]
CHAT: list[tuple[str, Any]] = [
    ("messages", REQUIRED),
    ("repetition_penalty", None),
    ("frequency_penalty", None),
    ("logit_bias", None),
    ("logprobs", None),
    ("top_logprobs", None),
    ("max_tokens", None),
    ("n", None),
    ("presence_penalty", None),
    ("stream", False),
    ("seed", None),
    ("temperature", None),
    ("top_p", None),
    ("tools", None),
    ("tool_choice", None),
    # Not in the published 0.7.0, only in later source of that number, where tool_prompt came before tool_choice.
    ("tool_prompt", None),
    ("stop", None),
]
COMPLETION: list[tuple[str, Any]] = [
    ("prompt", REQUIRED),
    ("frequency_penalty", None),
    ("max_tokens", None),
    ("repetition_penalty", None),
    ("seed", None),
    ("stream", False),
    ("temperature", None),
    ("top_p", None),
    ("stop", None),
]
NOT_STREAMING = ("best_of", "decoder_input_details")
SIGNATURES: dict[str, list[tuple[str, Any]]] = {
    "__init__": [("base_url", REQUIRED), ("headers", None), ("cookies", None), ("timeout", 10)],
    "generate": GENERATE,
    "generate_stream": [(name, default) for name, default in GENERATE if name not in NOT_STREAMING],
    "chat": CHAT,
    "completion": COMPLETION,
}
FUNCTIONS: list[tuple[Any, list[tuple[str, Any]]]] = [
    (InferenceAPIClient, [("repo_id", REQUIRED), ("token", None), ("timeout", 10)]),
    (InferenceAPIAsyncClient, [("repo_id", REQUIRED), ("token", None), ("timeout", 10)]),
    (inference_api.deployed_models, [("headers", None)]),
    (inference_api.check_model_support, [("repo_id", REQUIRED), ("headers", None)]),
]
TYPES = [
    "GrammarType",
    "Grammar",
    "Parameters",
    "Request",
    "InputToken",
    "Token",
    "FinishReason",
    "BestOfSequence",
    "Details",
    "Response",
    "StreamDetails",
    "StreamResponse",
    "DeployedModel",
    "Message",
    "Chunk",
    "Tool",
    "ToolCall",
    "Function",
    "ChoiceDeltaToolCall",
    "ChoiceDelta",
    "Choice",
    "CompletionRequest",
    "CompletionComplete",
    "Completion",
    "ChatRequest",
    "ChatCompletionComplete",
    "ChatComplete",
    "ChatCompletionChunk",
]
ERRORS = [
    "ValidationError",
    "GenerationError",
    "OverloadedError",
    "IncompleteGenerationError",
    "BadRequestError",
    "ShardNotReadyError",
    "ShardTimeoutError",
    "NotFoundError",
    "RateLimitExceededError",
    "NotSupportedError",
    "UnknownError",
]


def positional(function: Any) -> list[tuple[str, Any]]:
    parameters = inspect.signature(function).parameters.values()
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("method", SIGNATURES)
def test_arguments_and_defaults_are_those_of_0_7_0(client: type, method: str) -> None:
    assert positional(getattr(client, method))[1:] == SIGNATURES[method]  # [0] is self


@pytest.mark.parametrize(("function", "expected"), FUNCTIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_inference_api_arguments(function: Any, expected: list[tuple[str, Any]]) -> None:
    assert positional(function) == expected


@pytest.mark.parametrize("method", SIGNATURES)
def test_both_clients_take_the_same(method: str) -> None:
    ours, theirs = (inspect.signature(getattr(client, method)).parameters for client in (Client, AsyncClient))
    assert list(ours.values()) == list(theirs.values())


@pytest.mark.parametrize(
    ("method", "options", "besides"),
    [("chat", ChatOptions, {"messages", "stream"}), ("completion", CompletionOptions, {"prompt", "stream"})],
)
def test_typed_options_equal_the_signature(method: str, options: type, besides: set[str]) -> None:
    parameters = set(inspect.signature(getattr(Client, method)).parameters) - {"self"} - besides
    assert set(get_type_hints(options)) == parameters


def test_every_name_can_be_imported() -> None:
    assert [name for name in TYPES if not hasattr(types, name)] == []
    assert [name for name in ERRORS if not issubclass(getattr(errors, name), Exception)] == []
    for name in ("Client", "AsyncClient", "InferenceAPIClient", "InferenceAPIAsyncClient", "__version__"):
        assert hasattr(text_generation, name)
    from text_generation.client import AsyncClient as from_the_old_place

    assert from_the_old_place is AsyncClient


def test_methods_document_their_arguments() -> None:
    for method in ("generate", "chat", "completion"):
        documentation = getattr(Client, method).__doc__
        for name, _ in SIGNATURES[method]:
            assert f"    {name}: " in documentation, name


def test_wrong_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="max_tokens"):
        Client("http://127.0.0.1:1").generate("x", max_tokens=1)  # pyright: ignore
