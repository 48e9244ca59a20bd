"""Which routes need the API key, and the check of it.

Owns the two lists; a route that is in neither cannot be registered. Keys are compared exactly and
in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tgi.api.state import api_of
from tgi.errors import UnauthorizedError

GROUP = "tgi.group"
"""Where the scope of a request has the number of its key."""

OPEN = frozenset(
    {
        ("GET", "/"),
        ("GET", "/dashboard"),
        ("GET", "/playground/{file}"),
        ("GET", "/health"),
        ("GET", "/ping"),
        ("GET", "/info"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model:path}"),
        ("GET", "/docs"),
        ("GET", "/docs/{file}"),
        ("GET", "/api-doc/openapi.json"),
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/{model}/versions/{version}"),
        ("GET", "/v2/models/{model}/versions/{version}/ready"),
    }
)
"""Reading about the server is free; all that does work is not."""

PROTECTED = frozenset(
    {
        ("POST", "/"),
        ("POST", "/generate"),
        ("POST", "/generate_stream"),
        ("POST", "/tokenize"),
        ("POST", "/chat_tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/tokenizer_info"),
        ("GET", "/dashboard/data"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/{response_id}"),
        ("DELETE", "/v1/responses/{response_id}"),
        ("GET", "/v1/responses/{response_id}/input_items"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/embeddings"),
        ("POST", "/invocations"),
        ("POST", "/vertex"),
        ("POST", "/v2/models/{model}/versions/{version}/infer"),
    }
)


def is_protected(method: str, path: str) -> bool:
    """Raises KeyError for a route nobody has classified."""
    if (method, path) in PROTECTED:
        return True
    if (method, path) in OPEN:
        return False
    raise KeyError(f"{method} {path} is neither open nor protected: add it to tgi.api.server.access")


def check_key(request: Request) -> None:
    """`Authorization: Bearer <key>` or `x-api-key: <key>`, if the server has keys; raises UnauthorizedError.

    Leaves the number of the key in the scope, for whoever shares something among keys.
    """
    keys = api_of(request).config.api_keys
    if not keys:
        return
    found = find_key(request.headers.raw, keys)
    if found is None:
        raise UnauthorizedError("Missing or wrong API key: send the header `Authorization: Bearer KEY`")
    request.scope[GROUP] = found


def find_key(headers: Iterable[tuple[bytes, bytes]], keys: Sequence[str]) -> int | None:
    """The number of the key that a request has; None: it has none of them."""
    # As the bytes that came: compare_digest refuses text beyond ASCII.
    given = dict[bytes, bytes]()
    for name, value in headers:
        if name in (b"authorization", b"x-api-key"):
            given.setdefault(name, value)
    tried = [one for one in (_bearer(given.get(b"authorization", b"")), given.get(b"x-api-key")) if one]
    # All of them are compared, so that the time does not tell which it was.
    found = [number for number, key in enumerate(keys) for one in tried if hmac.compare_digest(one, key.encode())]
    return found[0] if found else None


def _bearer(authorization: bytes) -> bytes | None:
    """The credentials of the scheme Bearer, whose name may be written in any case (RFC 9110, 11.1); None: another."""
    scheme, _, credentials = authorization.partition(b" ")
    return credentials.strip(b" ") if scheme.lower() == b"bearer" else None


Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
AnyEndpoint = TypeVar("AnyEndpoint", bound=Endpoint)


class Routes:
    """The routes of one module, gathered by decorators: `@routes.post("/generate")`."""

    def __init__(self, tag: str = "Text Generation Inference") -> None:
        self.tag = tag
        """Under which `/docs` lists them."""
        self.routes: list[TaggedRoute] = []

    def get(self, path: str) -> Callable[[AnyEndpoint], AnyEndpoint]:
        return self._add("GET", path)

    def post(self, path: str) -> Callable[[AnyEndpoint], AnyEndpoint]:
        return self._add("POST", path)

    def delete(self, path: str) -> Callable[[AnyEndpoint], AnyEndpoint]:
        return self._add("DELETE", path)

    def _add(self, method: str, path: str) -> Callable[[AnyEndpoint], AnyEndpoint]:
        def add(endpoint: AnyEndpoint) -> AnyEndpoint:
            self.routes.append(TaggedRoute(path, endpoint, method, self.tag, protected=is_protected(method, path)))
            return endpoint

        return add


class TaggedRoute(Route):
    """A route of one method that is open or protected; the latter looks at the key before anything else."""

    def __init__(
        self, path: str, endpoint: Endpoint, method: str, tag: str = "Text Generation Inference", *, protected: bool
    ) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.methods = {method}  # HEAD is answered as GET before it gets here
        self.tag = tag
        self.protected = protected

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.protected and scope["method"] in (self.methods or ()):
            check_key(Request(scope))
        await super().handle(scope, receive, send)
