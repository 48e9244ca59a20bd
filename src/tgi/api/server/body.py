"""From the bytes of a request to a typed model.

Owns content type, size limit, JSON syntax and the sentences about wrong shapes, each with the
status TGI's framework gives it: 415, 413, 400, 422.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, TypeVar

import msgspec
import pydantic
from starlette.requests import ClientDisconnect, Request

from tgi.api.state import api_of
from tgi.api.wire.encoding import decoder
from tgi.api.wire.fields import RequestModel, unknown_fields
from tgi.api.wire.json_pieces import decode_in_pieces
from tgi.errors import MalformedRequestError

Model = TypeVar("Model", bound=RequestModel)
MOST_UNKNOWN = 256
"""More unknown fields than anybody reads are not looked for."""


def _is_json(content_type: str) -> bool:
    """`application/json` or `application/*+json`, with any parameters."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


async def read_body(request: Request, limit: int) -> bytes:
    """All of a body of JSON, decompressed, at most `limit` bytes; a declared length beyond it is refused unread."""
    content_type = request.headers.get("content-type", "")
    if not _is_json(content_type):
        raise _wrong_content_type(content_type)
    too_large = MalformedRequestError("Failed to buffer the request body: length limit exceeded", 413)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    encoding = decoder(",".join(request.headers.getlist("content-encoding")), limit)
    body = bytearray()
    try:
        async with api_of(request).intake.body() as arriving:
            async for chunk in request.stream():
                piece = encoding.decode(chunk)
                body += piece
                arriving.add(len(chunk), len(piece))
                if len(body) > limit:
                    raise too_large
    except ClientDisconnect:
        raise MalformedRequestError("The client left before the body was complete", 400) from None
    encoding.end()
    return bytes(body)


def decode(body: bytes) -> Any:
    """The body as plain Python values; NaN, Infinity and numbers beyond a double are malformed."""
    try:
        return decode_in_pieces(body)
    except RecursionError:
        raise MalformedRequestError("Failed to parse the request body as JSON: recursion limit exceeded", 400) from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        reason = "invalid UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise MalformedRequestError(f"Failed to parse the request body as JSON: {reason}", 400) from None


def _wrong_content_type(given: str) -> MalformedRequestError:
    """TGI's sentence and what to do; curl sends the type of a form unless it is told otherwise."""
    shown = f"`{given[:64].encode('unicode_escape').decode()}`" if given else "none"
    return MalformedRequestError(
        f"Expected request with `Content-Type: application/json`. Given: {shown}; "
        "add the header, with curl by -H 'Content-Type: application/json'",
        415,
    )


def parse(model: type[Model], data: Any, ignored: list[str]) -> Model:
    """`data` as a `model`; paths of unknown fields are added to `ignored`."""
    context = {"unknown": False}
    try:
        parsed = model.model_validate(data, context=context)
    except pydantic.ValidationError as error:
        raise _wrong_shape(error, data) from None
    if context["unknown"]:
        ignored.extend(islice(unknown_fields(parsed, data), MOST_UNKNOWN))
    return parsed


def _wrong_shape(error: pydantic.ValidationError, data: Any) -> MalformedRequestError:
    """The first complaint, in the words of TGI's framework: `{path}: {sentence}`."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = _path(first["loc"], data)
    if first["type"] == "missing":
        reason = f"missing field `{first['loc'][-1]}`"
    else:
        reason = first["msg"].replace("Input should", "input should", 1)
    if first["type"] == "model_type":
        reason = "input should be a JSON object"
    place = f"{path}: " if path else ""
    message = f"Failed to deserialize the JSON body into the target type: {place}{reason}"
    return MalformedRequestError(message, 422, param=path or None)


def _path(location: tuple[int | str, ...], data: Any) -> str:
    """`messages[0].content`: of pydantic's location only what is in the body (it also names union branches)."""
    path = ""
    for step in location:
        if isinstance(step, int) and isinstance(data, list) and step < len(data):
            path, data = f"{path}[{step}]", data[step]
        elif isinstance(step, str) and isinstance(data, dict) and step in data:
            path, data = f"{path}.{step}" if path else step, data[step]
    return path
