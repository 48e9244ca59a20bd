"""Reading about the server: health, info, models, metrics, documentation. None of it does work.

Owns their shapes. Does not own the verdict on health (`serving.service`) nor the schema (`openapi`).
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from fastapi.openapi.docs import get_swagger_ui_html
from msgspec import UNSET, UnsetType
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from tgi import __version__
from tgi.api.openai.types import NAMELESS_MODELS
from tgi.api.openapi.document import document, documented
from tgi.api.playground.pages import page, wants_page
from tgi.api.server.access import Routes
from tgi.api.state import Api, api_of
from tgi.errors import ModelNotFoundError, UnhealthyError
from tgi.grammar import MAX_TEXT
from tgi.messages import MemoryPlan
from tgi.metrics import CONTENT_TYPE
from tgi.serving.grammars.build import KINDS, MAX_CHOICES
from tgi.serving.grammars.checks import SECONDS
from tgi.serving.grammars.expressible import KNOWN_FORMATS
from tgi.serving.service import Service

routes = Routes()
encode = msgspec.json.Encoder().encode


VERBOSE = {
    "name": "verbose",
    "in": "query",
    "required": False,
    "description": "`1`: a JSON body tells what runs and waits, how full the cache is, and how much was computed.",
    "schema": {"type": "string"},
}


class EngineState(msgspec.Struct):
    """What the engine does, as `/health?verbose=1` tells it; with TGI's error when it is not healthy."""

    last_step_age_s: float
    steps: int
    running: int
    waiting: int
    open_requests: int
    queued_tokens: int
    """Prompt tokens of requests that have no token of their answer yet."""
    cache_usage: float
    """Share of the KV cache that sequences hold."""
    cache_tokens: int
    """Tokens that the KV cache holds."""
    computed_tokens: int
    """Tokens computed since the start; this and the next two are counters for routers."""
    prefix_query_tokens: int
    prefix_hit_tokens: int
    error: str | UnsetType = UNSET
    error_type: str | UnsetType = UNSET


class EndToken(msgspec.Struct):
    """A token that ends answers."""

    id: int
    text: str
    sources: list[str]
    """The files that name it, or "tokenizer" or "chat template"."""


class GenerationDefaultsInfo(msgspec.Struct):
    """How generation_config.json would sample; null: it does not say."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    applied: bool
    """On the OpenAI routes, where a request leaves these open (`--generation-defaults model`)."""


class ToolCallsInfo(msgspec.Struct):
    """How the model writes calls of tools, and reasoning."""

    format: str
    """A name of `--tool-call-parser`."""
    found_by: str
    """"flag", "response template", "chat template", or "none": then calls are asked for as JSON."""
    template_knows_tools: bool
    """Else tools are described in the system prompt."""
    reasoning: str | None
    """What begins reasoning; null: the model has none."""


class GrammarsInfo(msgspec.Struct):
    """What forms answers may be given, and up to which size."""

    kinds: tuple[str, ...]
    max_characters: int
    """Of a schema, pattern or grammar."""
    max_choices: int
    max_compile_s: float
    formats: list[str]
    """Formats of strings that are kept; others in a schema have no effect, and are named in `x-tgi-ignored`."""


class Runtime(msgspec.Struct):
    """What TGI's `/info` does not say: device, numbers format, cache, memory, end tokens."""

    model_type: str
    dtype: str
    device: str
    quantize: str | None
    activation_dtype: str | None
    parameters: int
    block_size: int
    num_blocks: int
    max_batch_prefill_tokens: int
    max_batch_total_tokens: int
    max_batch_size: int
    prefix_caching: bool
    kernels: dict[str, str]
    memory: MemoryPlan
    ineffective_flags: dict[str, str]
    end_tokens: list[EndToken]
    default_max_new_tokens: int | None
    """Of a request that does not say how many; null: up to the end of the context."""
    generation_defaults: GenerationDefaultsInfo
    tool_calls: ToolCallsInfo
    structured_output: GrammarsInfo
    max_queue: int
    """Requests that may wait while all permits are out; more are refused."""
    waiting: int
    """Requests and samples that wait now, for a permit or for their first step."""
    max_top_n_tokens: int
    """Most alternatives of a token."""
    max_stop_sequence_length: int
    max_stop_token_ids: int
    vocab_size: int
    grammars: bool
    """Whether requests may say what an answer must look like."""
    chat_template: bool
    """Whether the model has one; without, it is for completions."""
    api_key: bool
    """Whether routes that do work want a key."""
    raw_logprobs: bool
    """Whether TGI's routes report the model's own log-probabilities, not those after penalties and warpers."""


class Info(msgspec.Struct):
    """TGI's keys, all always there, and `runtime`."""

    model_id: str
    model_sha: str | None
    model_pipeline_tag: str | None
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    sha: str | None
    docker_label: str | None
    runtime: Runtime | UnsetType = UNSET


class ModelInfo(msgspec.Struct):
    """A model as OpenAI lists it, and what it can do here."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int
    """Tokens of a prompt and its answer together; vLLM's name."""
    capabilities: list[str]
    """Of "completions", "chat", "tools", "structured_output", "embeddings"."""


class ModelsInfo(msgspec.Struct):
    """The model of this server, under each of its names."""

    object: str
    data: list[ModelInfo]


async def health(request: Request) -> Response:
    """Healthy when the engine advances or has nothing to do; puts no work into it.

    With `?verbose=1` the body tells the age of the last step and what runs and waits.
    """
    api = api_of(request)
    state = api.service.health()
    problem = UnhealthyError() if api.permits.draining or not state.ok else None
    if request.query_params.get("verbose", "0") in ("0", "", "false"):
        if problem is not None:
            raise problem
        return Response()
    body = engine_state(api)
    if problem is None:
        return Response(encode(body), media_type="application/json")
    body.error, body.error_type = problem.text, problem.error_type
    return Response(encode(body), problem.status, media_type="application/json")


def engine_state(api: Api) -> EngineState:
    """What is known of the engine without asking it."""
    state, engine, count = api.service.health(), api.service.engine, api.metrics.value
    blocks = engine.info.num_blocks
    return EngineState(
        last_step_age_s=state.last_step_age_s,
        steps=state.steps,
        running=state.running,
        waiting=api.waiting,
        open_requests=state.open_requests,
        queued_tokens=engine.queued_tokens,
        cache_usage=1 - engine.stats.free_blocks / blocks if blocks and state.steps else 0.0,
        cache_tokens=blocks * engine.info.block_size,
        computed_tokens=int(count("tgi_prefill_tokens") + count("tgi_decode_tokens")),
        prefix_query_tokens=int(count("tgi_prefix_cache_query_tokens")),
        prefix_hit_tokens=int(count("tgi_prefix_cache_hit_tokens")),
    )


@routes.get("/")
@documented("health_root", errors=(503,), query=(VERBOSE,))
async def health_root(request: Request) -> Response:
    """The playground for browsers (`Accept: text/html`), else as `/health`."""
    return page("index.html", request) if wants_page(request) else await health(request)


@routes.get("/ping")
@documented("ping", errors=(503,), query=(VERBOSE,))
async def ping(request: Request) -> Response:
    """As `/health`, for SageMaker."""
    return await health(request)


routes.get("/health")(documented("health", errors=(503,), query=(VERBOSE,))(health))


@routes.get("/info")
@documented("get_model_info", None, Info, errors=())
async def info(request: Request) -> Response:
    """Model, limits, version, device and memory."""
    api = api_of(request)
    await asyncio.to_thread(lambda: api.service.family)  # which may render a conversation
    return Response(encode(model_info(api)), media_type="application/json")


def tool_calls(service: Service) -> ToolCallsInfo:
    family = service.family
    reasoning = None if family.tags is None else family.tags.open
    return ToolCallsInfo(family.format.name, family.found_by, family.template_knows_tools, reasoning)


def grammars() -> GrammarsInfo:
    formats = sorted(KNOWN_FORMATS - {"unknown"})
    return GrammarsInfo(KINDS, MAX_TEXT, MAX_CHOICES, SECONDS, formats)


def model_info(api: Api) -> Info:
    config, engine = api.config, api.service.engine.info
    return Info(
        model_id=config.model_id,
        model_sha=config.model_sha,
        model_pipeline_tag=config.pipeline_tag,
        max_concurrent_requests=config.max_concurrent_requests,
        max_best_of=min(config.max_best_of, config.max_concurrent_requests),
        max_stop_sequences=config.max_stop_sequences,
        max_input_tokens=engine.max_input_tokens,
        max_total_tokens=engine.max_total_tokens,
        validation_workers=config.validation_workers,
        max_client_batch_size=config.max_client_batch_size,
        router="text-generation-router",
        version=__version__,
        sha=None,
        docker_label=None,
        runtime=Runtime(
            model_type=engine.model_type,
            dtype=engine.dtype,
            device=engine.device,
            quantize=engine.quantize,
            activation_dtype=engine.activation_dtype,
            parameters=engine.parameters,
            block_size=engine.block_size,
            num_blocks=engine.num_blocks,
            max_batch_prefill_tokens=engine.max_batch_prefill_tokens,
            max_batch_total_tokens=engine.max_batch_total_tokens,
            max_batch_size=engine.max_batch_size,
            prefix_caching=engine.prefix_caching,
            kernels=engine.kernels,
            memory=engine.memory,
            ineffective_flags=config.ineffective_flags,
            end_tokens=end_tokens(api.service),
            default_max_new_tokens=config.default_max_new_tokens,
            generation_defaults=generation_defaults(api.service),
            tool_calls=tool_calls(api.service),
            structured_output=grammars(),
            max_queue=config.max_queue,
            waiting=api.waiting,
            raw_logprobs=config.raw_logprobs,
            max_top_n_tokens=config.max_top_n_tokens,
            max_stop_sequence_length=config.max_stop_sequence_length,
            max_stop_token_ids=config.max_stop_token_ids,
            vocab_size=engine.vocab_size,
            grammars=not config.disable_grammar_support,
            chat_template=bool(api.service.chat_template),
            api_key=bool(config.api_keys),
        ),
    )


def generation_defaults(service: Service) -> GenerationDefaultsInfo:
    found, applied = service.generation_defaults, service.config.generation_defaults == "model"
    return GenerationDefaultsInfo(found.temperature, found.top_p, found.top_k, found.repetition_penalty, applied)


def end_tokens(service: Service) -> list[EndToken]:
    text_of, named = service.tokenizer.token_text, service.end_tokens
    return [EndToken(id, text_of(id), list(named[id])) for id in service.eos_token_ids]


@routes.get("/v1/models")
@documented("openai_get_model_info", None, ModelsInfo, errors=())
async def models(request: Request) -> Response:
    """The served model under each of its names (`--served-model-name`), in OpenAI's form."""
    api = api_of(request)
    listed = [_served(name, api.service) for name in dict.fromkeys(api.model_names)]
    return Response(encode(ModelsInfo("list", listed)), media_type="application/json")


@routes.get("/v1/models/{model:path}")
@documented("openai_retrieve_model", None, ModelInfo, errors=(404,))
async def model(request: Request) -> Response:
    """The served model, by the names that requests may give it."""
    api, model = api_of(request), request.path_params["model"]
    if model not in (*api.known_names, *NAMELESS_MODELS):
        message = f"The model `{model[:200]}` does not exist: `{api.served_model_id}` is served"
        raise ModelNotFoundError(message, param="model", code="model_not_found")
    name = model if model in api.model_names else api.served_model_id
    return Response(encode(_served(name, api.service)), media_type="application/json")


def _served(name: str, service: Service) -> ModelInfo:
    limit = service.engine.info.max_total_tokens
    return ModelInfo(name, "model", 0, name, max_model_len=limit, capabilities=capabilities(service))


def capabilities(service: Service) -> list[str]:
    """What requests may ask of the model; the rest is refused."""
    chats, constrains = bool(service.chat_template), not service.config.disable_grammar_support
    said = {
        "completions": True,
        "chat": chats,
        "tools": chats and constrains,
        "structured_output": constrains,
        "embeddings": service.embedder.problem is None,
    }
    return [name for name, can in said.items() if can]


@routes.get("/metrics")
@documented("metrics", None, "text/plain", errors=())
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    api = api_of(request)
    if api.permits.waiting:  # steps, and idle heartbeats, tell of the engine's own queue alone
        api.metrics.set("tgi_queue_size", api.waiting)
    return Response(api.metrics.render(), headers={"content-type": CONTENT_TYPE})


@routes.get("/api-doc/openapi.json")
async def openapi(request: Request) -> Response:
    """This interface as an OpenAPI document."""
    return Response(_document(request.app), media_type="application/json")


@cache
def _document(app: Starlette) -> bytes:
    return encode(document(app))


@routes.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI over the document; its files come from this server, so it works offline."""
    # Relative, for proxies that serve us below a path of theirs; for `/docs/` a step further up.
    above = "../" if request.scope.get("raw_path", b"").endswith(b"/") else ""
    return get_swagger_ui_html(
        openapi_url=f"{above}api-doc/openapi.json",
        title="Text Generation Inference",
        swagger_js_url=f"{above}docs/swagger-ui-bundle.js",
        swagger_css_url=f"{above}docs/swagger-ui.css",
        swagger_favicon_url=f"{above}docs/favicon.png",
    )


DOCS_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@routes.get("/docs/{file}")
async def docs_file(request: Request) -> Response:
    """A file of Swagger UI, from the package that brings them."""
    file = request.path_params["file"]
    if file not in DOCS_FILES:
        return Response(status_code=404)
    content: Any = files("fastapi_offline").joinpath("static", file).read_bytes()
    return Response(content, media_type=DOCS_FILES[file], headers={"cache-control": "max-age=86400"})
