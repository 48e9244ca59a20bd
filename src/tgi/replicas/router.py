"""The router as an ASGI application: one address in front of replicas that come and go.

Owns what it answers itself (health, models, metrics, keys, errors) and which model a path or a body means. Stateless:
what it knows it learns from its own choices and the replicas' figures, so any number of routers may stand side by side.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import uuid
from collections.abc import Iterable
from urllib.parse import quote

import msgspec
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Message, Receive, Scope, Send

from tgi.api.server.access import OPEN, find_key
from tgi.api.server.cors import Cors
from tgi.api.server.paths import plain_path
from tgi.api.wire.encoding import decoder
from tgi.api.wire.errors import InternalError, error_response
from tgi.api.wire.forms import FORM, OPENAI
from tgi.api.wire.streaming import ClientGone, until_gone
from tgi.errors import MalformedRequestError, TgiError, UnauthorizedError, UnhealthyError
from tgi.metrics import CONTENT_TYPE
from tgi.replicas.blocks import key_of
from tgi.replicas.choice import Chooser
from tgi.replicas.figures import Figures, Fleet
from tgi.replicas.homes import Homes
from tgi.replicas.index import PrefixIndex
from tgi.replicas.models import Model, Models
from tgi.replicas.prompt import ask, read
from tgi.replicas.relay import HOP_BY_HOP, Relay, Request
from tgi.replicas.replica import Replica
from tgi.replicas.roster import Roster
from tgi.replicas.router_metrics import RouterMetrics
from tgi.replicas.starts import Starts
from tgi.tracing import LONGEST_ID, identity

logger = logging.getLogger("tgi.replicas")

OPEN_PATHS = tuple(compile_path(path)[0] for method, path in sorted(OPEN) if method == "GET")
"""What needs no key; everything else does, routes of replicas that this router does not know included."""
HEALTH = frozenset(("/health", "/ping", "/v2/health/live", "/v2/health/ready"))
RESPONSE = re.compile(r"/v1/responses/[^/]+(/input_items)?")
_ANSWER = "tgi.answer"


class Router:
    """Use `run` beside the server: it is the heartbeat of the replicas."""

    def __init__(
        self,
        urls: Iterable[str] = (),
        *,
        api_keys: tuple[str, ...] = (),
        salt: str = "",
        payload_limit: int = 2_000_000,
        cors_allow_origin: tuple[str, ...] = (),
        index_blocks: int = 1 << 19,
        starts: Starts | None = None,
    ) -> None:
        """salt: makes the hashes of prompts; routers of one deployment have the same, so that they choose alike.

        starts: how long requests wait for a replica where none can be used; by default not at all.
        """
        self.models = Models()
        self.chooser = Chooser(Fleet(0), PrefixIndex(0, blocks=index_blocks), Homes())
        self.replicas = Roster(self.chooser, self._on_news, self._on_gone)
        self.metrics = RouterMetrics(self.replicas)
        self._starts = starts or Starts()
        self._relay = Relay(self.replicas, self.chooser, self.metrics, self._starts)
        self._keys = api_keys
        self._salt = key_of((salt or secrets.token_hex(16)).encode(), 0)
        self._payload_limit = payload_limit
        self._own = Cors(_answer_own, origins=cors_allow_origin)
        self._states: list[tuple[str, bool, tuple[str, ...]]] = []
        self.draining = False
        """The router is about to end: it says that it is not healthy, and goes on until then."""
        self.open_requests = 0
        self._idle = asyncio.Event()
        for url in urls:
            self.replicas.add(url)

    async def drain(self) -> None:
        """Say that the router is not healthy, and wait until no request is open."""
        self.draining = True
        while self.open_requests:
            self._idle.clear()
            await self._idle.wait()

    async def run(self) -> None:
        """The heartbeat of all replicas, until cancelled."""
        await self.replicas.run()

    def _on_news(self, replica: Replica, figures: Figures | None) -> None:
        if figures is not None:
            self.chooser.fleet.tell(replica.number, figures)
        states = [(one.url, one.up, tuple(one.models)) for one in self.replicas]
        if states != self._states:
            self._states = states
            self.models.refresh(list(self.replicas))
            self._starts.tell()

    def _on_gone(self, replica: Replica) -> None:
        self.metrics.forget(replica)
        self._on_news(replica, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        scope = {**scope, "path": plain_path(scope["path"])}
        self.open_requests += 1
        try:
            own = await self._handle(scope, receive, watched)
        except ClientGone:
            own = None if started else Response(status_code=499)
        except TgiError as error:
            own = error_response(error, scope)
        except Exception:
            if started:
                raise
            logger.exception("Unexpected error in the router")
            own = error_response(InternalError(), scope)
        finally:
            self.open_requests -= 1
            if not self.open_requests:
                self._idle.set()
        if own is not None and not started:
            await self._own({**scope, _ANSWER: own}, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """The router's own answer; None: it was passed on."""
        arrived = time.monotonic()
        if scope["method"] == "OPTIONS":
            return Response()  # `Cors` answers it
        path = scope["path"]
        found = self.models.of_path(path)
        if found is not None:
            path = scope["path"] = plain_path(found[1])
        reading = scope["method"] in ("GET", "HEAD")
        if not (reading and any(pattern.match(path) for pattern in OPEN_PATHS)):
            self._check_key(scope)
        if reading and found is None and (own := self._about(scope, path)) is not None:
            return own
        body = await self._read_body(scope, receive)
        model, request = self._prepare(scope, body, None if found is None else found[0], arrived)
        if logger.isEnabledFor(logging.DEBUG):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
            logger.debug("Request %s goes to `%s`", " ".join(identity(headers).values()), model.name)
        await until_gone(receive, self._relay.answer(request, send))
        return None

    def _about(self, scope: Scope, path: str) -> Response | None:
        """What the router answers about itself and its models."""
        browser = any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
        if path in HEALTH or (path == "/" and not browser):
            if self.draining or not self.usable:
                raise UnhealthyError()
            return Response()
        if path == "/metrics":
            return Response(self.metrics.render(), headers={"content-type": CONTENT_TYPE})
        if path == "/v1/models":
            body = msgspec.json.encode({"object": "list", "data": self.models.entries})
            return Response(body, media_type="application/json")
        if path.startswith("/v1/models/"):
            entry = self.models.entry(path.removeprefix("/v1/models/"))
            return Response(msgspec.json.encode(entry), media_type="application/json")
        return None

    @property
    def usable(self) -> bool:
        """Whether any replica can be used, or is started when a request comes."""
        return any(replica.up for replica in self.replicas) or self._starts.on_demand

    def _check_key(self, scope: Scope) -> None:
        """Raises UnauthorizedError. The replica checks it again."""
        if self._keys and find_key(scope["headers"], self._keys) is None:
            raise UnauthorizedError("Missing or wrong API key: send the header `Authorization: Bearer KEY`")

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        """All of it, as it came. Raises MalformedRequestError, ClientGone."""
        too_large = MalformedRequestError("Failed to buffer the request body: length limit exceeded", 413)
        declared = _header(scope, b"content-length") or b""
        if declared.isdigit() and int(declared) > self._payload_limit:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > self._payload_limit:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)

    def _prepare(self, scope: Scope, body: bytes, model: Model | None, arrived: float) -> tuple[Model, Request]:
        path, below = scope["path"], model is not None
        plain = _decoded(scope, body, self._payload_limit)
        fields = read(plain) if plain else None
        if path == "/invocations" and fields is not None and fields.in_words_of_openai:
            scope[FORM] = OPENAI
        if model is None:
            model = self.models.find(fields.model_name if fields is not None else None)
        request_id = (_header(scope, b"x-request-id") or b"")[:LONGEST_ID] or uuid.uuid4().hex.encode()
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
        if _header(scope, b"x-request-id") is None:
            headers.append((b"x-request-id", request_id))
        if body and _header(scope, b"content-length") is None:
            headers.append((b"content-length", str(len(body)).encode()))
        target = quote(path).encode() if below else scope.get("raw_path", path.encode())
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        seek = RESPONSE.fullmatch(path) is not None or bool(fields is not None and fields.previous_response_id)
        wanted = ask(fields, plain, key_of(model.name.encode(), self._salt))
        return model, Request(scope, target, headers, body, wanted, model, arrived, request_id, seek)


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


def _decoded(scope: Scope, body: bytes, limit: int) -> bytes:
    """The body without its compression, for reading alone; as it is where that cannot be undone."""
    encoding = _header(scope, b"content-encoding")
    if not body or encoding is None:
        return body
    try:
        return decoder(encoding.decode("latin-1"), limit).decode(body)
    except TgiError:
        return body


async def _answer_own(scope: Scope, receive: Receive, send: Send) -> None:
    await scope[_ANSWER](scope, receive, send)
