"""The KServe v2 protocol below `/v2`, as TGI speaks it.

Owns its bodies and errors. Model and version names are not checked, as in TGI.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi import __version__
from tgi.api.openapi.document import documented
from tgi.api.platforms.platform_routes import generate_text
from tgi.api.server.access import Routes
from tgi.api.server.admission import check_samples
from tgi.api.server.call import Call, ignored_header
from tgi.api.state import Api
from tgi.api.tgi.types import GenerateParameters
from tgi.api.wire.errors import WordedError
from tgi.api.wire.fields import U64, Items, RequestModel, count
from tgi.api.wire.streaming import together
from tgi.serving.types import SamplingParams

routes = Routes("KServe")
encode = msgspec.json.Encoder().encode


class Input(RequestModel):
    """A prompt as the bytes of its UTF-8 text."""

    name: str
    shape: Items[U64]
    datatype: str
    data: Items[int]


class RequestedOutput(RequestModel):
    """The name under which the text of the input at the same place is returned."""

    name: str


class InferenceRequest(RequestModel):
    """Prompts, and names for their texts."""

    id: str
    inputs: Items[Input]
    outputs: Items[RequestedOutput]
    parameters: GenerateParameters | None = None

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        inputs, outputs = count(data, "inputs"), count(data, "outputs")
        if inputs != outputs:
            raise WordedError(422, "Inputs and outputs length mismatch", "length mismatch")
        check_samples(api.permits, 1, inputs, "inputs")


class Output(msgspec.Struct):
    """A text as the bytes of its UTF-8 form."""

    name: str
    shape: list[int]
    datatype: str
    data: list[int]


class InferenceOutput(msgspec.Struct):
    """The texts of a request."""

    id: str
    outputs: list[Output]


class Live(msgspec.Struct):
    """The server answers."""

    live: bool


class ServerMetadata(msgspec.Struct):
    """This server."""

    name: str
    version: str
    extensions: list[str]


def _json(payload: Any) -> Response:
    return Response(encode(payload), media_type="application/json")


@routes.get("/v2/health/live")
@documented("kserve_health_live", None, Live, errors=())
async def live(request: Request) -> Response:
    """The server answers; `/health` looks at the engine."""
    return _json(Live(True))


@routes.get("/v2/health/ready")
@documented("kserve_health_ready", None, Live, errors=())
async def ready(request: Request) -> Response:
    """The port is only open when the model is loaded."""
    return _json(Live(True))


@routes.get("/v2")
@documented("kserve_metadata", None, ServerMetadata, errors=())
async def metadata(request: Request) -> Response:
    """Name, version and extensions of this server."""
    return _json(ServerMetadata("text-generation-inference", __version__, ["health", "models", "metrics"]))


@routes.get("/v2/models/{model}/versions/{version}")
@documented("kserve_model_metadata", None, ServerMetadata, errors=())
async def model_metadata(request: Request) -> Response:
    """The model, under the name asked for."""
    asked = request.path_params
    return _json(ServerMetadata(asked["model"], asked["version"], ["infer", "ready"]))


@routes.get("/v2/models/{model}/versions/{version}/ready")
@documented("kserve_model_ready", None, Live, errors=())
async def model_ready(request: Request) -> Response:
    """As `/v2/health/ready`."""
    return _json(Live(True))


@routes.post("/v2/models/{model}/versions/{version}/infer")
@documented("kserve_infer", InferenceRequest, InferenceOutput)
async def infer(request: Request) -> Response:
    """Generate for all inputs together."""
    async with Call(request) as call:
        body = await call.read(InferenceRequest)
        prompts = [_text(one) for one in body.inputs]
        await call.take_samples(1, len(prompts), "inputs")
        params = _sampling(body, call.ignored)
        dialect = call.api.tgi_dialect
        texts = await call.wait(together(generate_text(call, prompt, params, dialect) for prompt in prompts))
        outputs = [_output(asked.name, text) for asked, text in zip(body.outputs, texts, strict=True)]
        return call.answer(encode(InferenceOutput(body.id, outputs)), ignored_header(call.ignored))


def _sampling(body: InferenceRequest, ignored: list[str]) -> SamplingParams:
    return SamplingParams(do_sample=True) if body.parameters is None else body.parameters.sampling(ignored)


def _text(one: Input) -> str:
    try:
        return bytes(one.data).decode()
    except ValueError as error:  # a number that is no byte, or bytes that are no text
        reason = "invalid UTF-8" if isinstance(error, UnicodeDecodeError) else "data must be bytes, 0 to 255"
        raise WordedError(422, reason, "utf8") from None


def _output(name: str, text: str) -> Output:
    data = list(text.encode())
    return Output(name, [1, len(data)], "BYTES", data)
