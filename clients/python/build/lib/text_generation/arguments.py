"""The arguments of the four calls, written once: each function here turns them into a request.

`accepts` gives a client's method the arguments of one of these functions, so that the sync and the
async client cannot drift apart. Order, names and defaults up to the `*` are those of version 0.7.0;
what is new is keyword-only. Does no input or output.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from text_generation.types import (
    ChatRequest,
    CompletionRequest,
    Grammar,
    Message,
    Parameters,
    Prompt,
    Request,
    Tool,
)

P = ParamSpec("P")
R = TypeVar("R")
B = TypeVar("B")
S = TypeVar("S")


def accepts(builder: Callable[P, B]) -> Callable[[Callable[[S, B], R]], Callable[Concatenate[S, P], R]]:
    """Decorator: the method takes the arguments of `builder` and receives what `builder` makes of them."""

    def decorate(method: Callable[[S, B], R]) -> Callable[Concatenate[S, P], R]:
        if inspect.iscoroutinefunction(method):
            # The request is built inside the coroutine: a wrong argument is raised where it is awaited.
            @wraps(method)
            async def call_async(self: S, *args: P.args, **kwargs: P.kwargs) -> Any:
                return await method(self, builder(*args, **kwargs))

            wrapper = cast("Callable[Concatenate[S, P], R]", call_async)
        else:

            @wraps(method)
            def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
                return method(self, builder(*args, **kwargs))

            wrapper = call
        own = inspect.signature(method)
        parameters = [next(iter(own.parameters.values())), *inspect.signature(builder).parameters.values()]
        wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        details = inspect.cleandoc(builder.__doc__ or "").partition("\n")[2]
        wrapper.__doc__ = f"{inspect.cleandoc(method.__doc__ or '')}\n{details}"
        return wrapper

    return decorate


def generate_arguments(
    prompt: str,
    do_sample: bool = False,
    max_new_tokens: int | None = 20,
    best_of: int | None = None,
    repetition_penalty: float | None = None,
    frequency_penalty: float | None = None,
    return_full_text: bool = False,
    seed: int | None = None,
    stop_sequences: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    truncate: int | None = None,
    typical_p: float | None = None,
    watermark: bool = False,
    decoder_input_details: bool = False,
    top_n_tokens: int | None = None,
    grammar: Grammar | dict[str, Any] | None = None,
    *,
    adapter_id: str | None = None,
    extra_parameters: Mapping[str, Any] | None = None,
) -> Request:
    """Arguments of `generate`.

    Args:
        prompt: Text to continue.
        do_sample: Sample instead of taking the most likely token. A temperature other than 1, top_k,
            top_p or typical_p switch sampling on too.
        max_new_tokens: Upper limit of generated tokens; None is the rest of the context.
        best_of: Generate so many samples and return the one with the highest mean log-probability.
        repetition_penalty: 1 is none; above 1 makes tokens already present less likely.
        frequency_penalty: 0 is none; -2 to 2, applied once per earlier occurrence.
        return_full_text: Put the prompt before the generated text.
        seed: Seed of the sampling; the same seed gives the same text.
        stop_sequences: Stop after any of these strings; it stays in the text.
        temperature: Divides the logits; 0 is greedy.
        top_k: Sample among the k most likely tokens.
        top_p: Sample among the most likely tokens that together reach this probability, between 0 and 1.
        truncate: Keep only so many tokens at the end of the prompt.
        typical_p: Typical decoding mass, between 0 and 1.
        watermark: Watermark the text (arXiv:2301.10226).
        decoder_input_details: Return the prompt's tokens with their log-probabilities.
        top_n_tokens: Return the n most likely tokens at each position.
        grammar: Constrain the text to a JSON schema or a regular expression.
        adapter_id: Name of a LoRA adapter of the server.
        extra_parameters: Further keys for the request's `parameters`, passed on as they are.

    Raises:
        ValidationError: An argument breaks a rule, found here or by the server.
        OverloadedError: The server has no free slot; see its `retry_after`.
        TextGenerationError: Any other answer but success.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("prompt", "extra_parameters")}
    return _request(prompt, arguments, extra_parameters, stream=False)


def generate_stream_arguments(
    prompt: str,
    do_sample: bool = False,
    max_new_tokens: int | None = 20,
    repetition_penalty: float | None = None,
    frequency_penalty: float | None = None,
    return_full_text: bool = False,
    seed: int | None = None,
    stop_sequences: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    truncate: int | None = None,
    typical_p: float | None = None,
    watermark: bool = False,
    top_n_tokens: int | None = None,
    grammar: Grammar | dict[str, Any] | None = None,
    *,
    adapter_id: str | None = None,
    extra_parameters: Mapping[str, Any] | None = None,
) -> Request:
    """Arguments of `generate_stream`.

    The arguments, and the errors, are those of `generate`, without `best_of` and
    `decoder_input_details`, which do not stream.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("prompt", "extra_parameters")}
    return _request(prompt, arguments, extra_parameters, stream=True)


def _request(prompt: str, arguments: dict[str, Any], extra: Mapping[str, Any] | None, *, stream: bool) -> Request:
    stop: str | Sequence[str] = arguments.pop("stop_sequences") or ()
    arguments["stop"] = [stop] if isinstance(stop, str) else list(stop)
    merged: dict[str, Any] = {**arguments, **(extra or {}), "details": True}
    return Request(inputs=prompt, parameters=Parameters(**merged), stream=stream)


def chat_arguments(
    messages: Sequence[Message | dict[str, Any]],
    repetition_penalty: float | None = None,
    frequency_penalty: float | None = None,
    logit_bias: Sequence[float] | Mapping[int, float] | Mapping[str, float] | None = None,
    logprobs: bool | None = None,
    top_logprobs: int | None = None,
    max_tokens: int | None = None,
    n: int | None = None,
    presence_penalty: float | None = None,
    stream: bool = False,
    seed: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    tools: Sequence[Tool | dict[str, Any]] | None = None,
    tool_choice: str | dict[str, Any] | None = None,
    tool_prompt: str | None = None,
    stop: str | Sequence[str] | None = None,
    *,
    model: str = "tgi",
    max_completion_tokens: int | None = None,
    response_format: Grammar | dict[str, Any] | None = None,
    stream_options: dict[str, Any] | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> ChatRequest:
    """Arguments of `chat`.

    Args:
        messages: The conversation, `Message` objects or dicts with `role` and `content`.
        repetition_penalty: 1 is none.
        frequency_penalty: 0 is none; -2 to 2.
        logit_bias: Token id to a number added to its logit.
        logprobs: Return the log-probabilities of the tokens.
        top_logprobs: Return the n most likely tokens at each position.
        max_tokens: Upper limit of generated tokens; None is the rest of the context.
        n: Number of answers.
        presence_penalty: 0 is none; -2 to 2.
        stream: Return an iterator of chunks instead of a whole answer.
        seed: Seed of the sampling.
        temperature: Divides the logits; 0 is greedy.
        top_p: Sample among the most likely tokens that together reach this probability.
        tools: Functions the model may call.
        tool_choice: `auto`, `none`, `required`, a tool's name or OpenAI's object.
        tool_prompt: Text put before the tools.
        stop: Stop before any of these strings.
        model: `tgi` for the served model, or the name of an adapter.
        max_completion_tokens: OpenAI's newer name of `max_tokens`.
        response_format: `{"type": "json_object"}`, OpenAI's `json_schema` form or a `Grammar`.
        stream_options: Such as `{"include_usage": True}`.
        extra_body: Further keys for the request body, passed on as they are.

    Raises:
        ValidationError: The server refuses an argument.
        OverloadedError: The server has no free slot; see its `retry_after`.
        TextGenerationError: Any other answer but success.
    """
    arguments = {name: value for name, value in locals().items() if name != "extra_body"}
    return ChatRequest(**{**arguments, **(extra_body or {})})


def completion_arguments(
    prompt: Prompt,
    frequency_penalty: float | None = None,
    max_tokens: int | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    stream: bool = False,
    temperature: float | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    *,
    model: str = "tgi",
    n: int | None = None,
    best_of: int | None = None,
    echo: bool | None = None,
    logprobs: int | None = None,
    logit_bias: Mapping[int, float] | Mapping[str, float] | None = None,
    presence_penalty: float | None = None,
    stream_options: dict[str, Any] | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> CompletionRequest:
    """Arguments of `completion`.

    Args:
        prompt: A text, a list of texts, token ids or a list of lists of token ids.
        frequency_penalty: 0 is none; -2 to 2.
        max_tokens: Upper limit of generated tokens per prompt; None is the rest of the context.
        repetition_penalty: 1 is none.
        seed: Seed of the sampling.
        stream: Return an iterator of chunks instead of a whole answer.
        temperature: Divides the logits; 0 is greedy.
        top_p: Sample among the most likely tokens that together reach this probability.
        stop: Stop before any of these strings.
        model: `tgi` for the served model, or the name of an adapter.
        n: Number of answers per prompt.
        best_of: Generate so many, return the `n` best.
        echo: Put the prompt before the text.
        logprobs: Return the n most likely tokens at each position.
        logit_bias: Token id to a number added to its logit.
        presence_penalty: 0 is none; -2 to 2.
        stream_options: Such as `{"include_usage": True}`.
        extra_body: Further keys for the request body, passed on as they are.

    Raises:
        ValidationError: The server refuses an argument.
        OverloadedError: The server has no free slot; see its `retry_after`.
        TextGenerationError: Any other answer but success.
    """
    arguments = {name: value for name, value in locals().items() if name != "extra_body"}
    return CompletionRequest(**{**arguments, **(extra_body or {})})
