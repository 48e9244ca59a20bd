"""Routes of hosting platforms: SageMaker's `/invocations`, Google's `/vertex` and `AIP_*` paths.

Owns how their bodies map onto the other routes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from pydantic import Discriminator, Field, Tag
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openai.chat_answer_types import ChatCompletion, ChatCompletionChunk
from tgi.api.openai.chat_routes import chat_answer, chat_conversation, chat_dialect
from tgi.api.openai.chat_types import ChatRequest
from tgi.api.openai.completion_routes import completion_answer
from tgi.api.openai.completion_types import Chunk, CompletionFinal, CompletionRequest
from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes, TaggedRoute
from tgi.api.server.admission import check_samples
from tgi.api.server.call import Call, ignored_header
from tgi.api.server.info_routes import health
from tgi.api.server.paths import plain_path
from tgi.api.state import Api
from tgi.api.tgi.routes import compat_answer
from tgi.api.tgi.types import CompatGenerateRequest, GenerateParameters, GenerateResponse, StreamResponse
from tgi.api.wire.errors import WordedError
from tgi.api.wire.fields import Items, RequestModel, count
from tgi.api.wire.streaming import together
from tgi.errors import GenerationError, IncompleteGenerationError, MalformedRequestError, OverloadedError
from tgi.serving.chat.plan import plan_chat
from tgi.serving.dialect import Dialect
from tgi.serving.types import SamplingParams
from tgi.settings.config import ApiConfig

routes = Routes()
encode = msgspec.json.Encoder().encode


@routes.post("/invocations")
@documented(
    "sagemaker_compatibility",
    (CompatGenerateRequest, ChatRequest, CompletionRequest),
    (list[GenerateResponse], ChatCompletion, CompletionFinal),
    (StreamResponse, ChatCompletionChunk, Chunk),
)
async def sagemaker_compatibility(request: Request) -> Response:
    """Generate; the body is that of `/` (has `inputs`), of chat (`messages`) or of completions (`prompt`)."""
    async with Call(request) as call:
        data = await call.read_json()
        names = data if isinstance(data, dict) else {}
        if "inputs" in names:
            return await compat_answer(call, await call.parse(CompatGenerateRequest, data))
        if "messages" in names:
            call.speak_openai()
            return await chat_answer(call, await call.parse(ChatRequest, data))
        if "prompt" in names:
            call.speak_openai()
            return await completion_answer(call, await call.parse(CompletionRequest, data))
        raise MalformedRequestError(
            "Failed to deserialize the JSON body into the target type: "
            "data did not match any variant: none of `inputs`, `messages`, `prompt` is there"
        )


class GenerateVertexInstance(RequestModel):
    """A prompt; of its parameters only `max_new_tokens` and `seed` count."""

    inputs: str
    parameters: GenerateParameters | None = None


def _instance_kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return "generate" if "inputs" in value else "chat"


VertexInstance = Annotated[
    Annotated[GenerateVertexInstance, Tag("generate")] | Annotated[ChatRequest, Tag("chat")],
    Discriminator(_instance_kind, custom_error_type="instance", custom_error_message="expected a JSON object"),
]


class VertexRequest(RequestModel):
    """Prompts and conversations to be answered together."""

    instances: Items[VertexInstance] = Field(description="Prompts (`inputs`) or chat requests (`messages`).")

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        check_samples(api.permits, 1, count(data, "instances"), "instances")


class VertexResponse(msgspec.Struct):
    """The texts, in the order of the instances."""

    predictions: list[str]


@routes.post("/vertex")
@documented("vertex_compatibility", VertexRequest, VertexResponse)
async def vertex(request: Request) -> Response:
    """Generate for all instances together; `stream` is ignored."""
    async with Call(request) as call:
        body = await call.read(VertexRequest)
        if not body.instances:
            raise WordedError(422, "Input validation error", "Input validation error")
        await call.take_samples(1, len(body.instances), "instances")
        texts = await call.wait(together(_predict(call, *numbered) for numbered in enumerate(body.instances)))
        return call.answer(encode(VertexResponse(texts)), ignored_header(call.ignored))


_WHOLE_TEXT = {"n": 1, "stream": False, "stream_options": None, "logprobs": False}
"""What a prediction is, one text, in the words of a chat request; asking for another thing has no effect."""


async def _predict(call: Call, number: int, instance: GenerateVertexInstance | ChatRequest) -> str:
    ignored: list[str] = []
    dialect = call.api.tgi_dialect
    if isinstance(instance, ChatRequest):
        dialect = replace(dialect, param_names=chat_dialect(instance).param_names, exact_messages=True)
        plan = await plan_chat(call.api.service, await chat_conversation(call, instance, ignored))
        prompt = plan.prompt
        ignored += plan.ignored
        params = replace(await call.unhurried(instance.chat_sampling, ignored, call.api.service.openai_defaults), n=1)
        params, dialect = plan.sampling(params), plan.dialect(dialect)
        ignored += (name for name in _WHOLE_TEXT if getattr(instance, name) not in (None, _WHOLE_TEXT[name]))
    else:
        prompt, params = instance.inputs, _vertex_params(instance, ignored)
    call.ignored += (f"instances.{number}.{name}" for name in ignored)
    return await generate_text(call, prompt, params, dialect, add_special_tokens=not isinstance(instance, ChatRequest))


def _vertex_params(instance: GenerateVertexInstance, ignored: list[str]) -> SamplingParams:
    given = instance.parameters
    if given is None:
        return SamplingParams(do_sample=True)
    defaults = {name: field.default for name, field in GenerateParameters.model_fields.items()} | {"do_sample": True}
    others = sorted(given.model_fields_set - {"max_new_tokens", "seed"})
    ignored += (f"parameters.{name}" for name in others if getattr(given, name) != defaults[name])
    return SamplingParams(do_sample=True, max_new_tokens=given.max_new_tokens, seed=given.seed)


async def generate_text(
    call: Call, prompt: str, params: SamplingParams, dialect: Dialect, *, add_special_tokens: bool = True
) -> str:
    """One text; a failure of ours is TGI's `Incomplete generation`."""
    try:
        prepared = await call.prepare(prompt, params, dialect, add_special_tokens=add_special_tokens)
        (completion,) = await call.complete(prepared)
    except (GenerationError, IncompleteGenerationError, OverloadedError) as error:
        call.failed(error)
        raise WordedError(500, "Incomplete generation", "Incomplete generation") from error
    return completion.text


def add_google_routes(app: Starlette, config: ApiConfig) -> None:
    """The paths that Google's platform names in the environment."""
    if config.aip_predict_route:
        app.router.routes.append(TaggedRoute(plain_path(config.aip_predict_route), vertex, "POST", protected=True))
    if config.aip_health_route:
        app.router.routes.append(TaggedRoute(plain_path(config.aip_health_route), health, "GET", protected=False))
