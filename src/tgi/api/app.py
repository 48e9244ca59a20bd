"""The HTTP application: routes, error answers and the layers around them.

Owns how the parts of `api` are put together. Does not own the server (uvicorn, started by `launcher`) nor the engine.
"""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tgi.api.anthropic import routes as anthropic_routes
from tgi.api.openai import chat_routes, completion_routes, embedding_routes, token_routes
from tgi.api.platforms import kserve_routes, platform_routes
from tgi.api.playground import routes as playground_routes
from tgi.api.responses import kept_routes
from tgi.api.responses import routes as responses_routes
from tgi.api.server import info_routes
from tgi.api.server.admission import Permits
from tgi.api.server.cors import Cors
from tgi.api.server.paths import misses_prefix, plain_path, unknown_path, wrong_method
from tgi.api.state import Api
from tgi.api.tgi import routes as tgi_routes
from tgi.api.wire.errors import InternalError, WordedError, answer_error, error_response
from tgi.api.wire.forms import FORM, OPENAI, form_of
from tgi.api.wire.streaming import ClientGone
from tgi.errors import TgiError
from tgi.metrics import Metrics
from tgi.serving.service import Service
from tgi.settings.config import ApiConfig
from tgi.tracing import Tracer

logger = logging.getLogger("tgi.api")


def create_app(
    service: Service, config: ApiConfig, *, metrics: Metrics | None = None, tracer: Tracer | None = None
) -> Starlette:
    """The application, for uvicorn with `lifespan="off"`.

    The engine behind `service` must be ready. `metrics` defaults to `Metrics.for_engine(info)`; the engine client's
    `on_step` should be `app.state.api.observe_step`. `app.state.drain(timeout_s)` stops admission, waits for
    open generations and says whether all ended; `app.state.api` is shared by all routes.
    """
    modules = (
        tgi_routes,
        chat_routes,
        completion_routes,
        responses_routes,
        kept_routes,
        anthropic_routes,
        embedding_routes,
        token_routes,
        info_routes,
        platform_routes,
        kserve_routes,
        *(() if config.disable_playground else (playground_routes,)),
    )
    app = Starlette(
        routes=[route for module in modules for route in module.routes.routes],
        exception_handlers={TgiError: answer_error, HTTPException: _answer_http, ClientGone: _answer_nobody},
        middleware=[Middleware(Cors, origins=config.cors_allow_origin), Middleware(Guard)],
    )
    app.router.redirect_slashes = False
    info = service.engine.info
    permits = Permits(
        config.max_concurrent_requests,
        max_queue=config.max_queue,
        groups=len(config.api_keys),
        next_end=service.engine.next_end_s,
    )
    api = Api(service, config, metrics or Metrics.for_engine(info), permits, tracer or Tracer())
    app.state.api = api
    app.state.drain = api.drain
    platform_routes.add_google_routes(app, config)
    return app


async def _answer_http(request: Request, error: Exception) -> Response:
    """Unknown path or method: TGI answers without a body, we do so where no client of OpenAI can have meant it."""
    assert isinstance(error, HTTPException)
    scope, routes = request.scope, request.app.routes
    if error.status_code == 404 and misses_prefix(scope, routes):
        scope[FORM] = OPENAI
    if form_of(scope).answers_unknown_paths:
        message = (unknown_path if error.status_code == 404 else wrong_method)(scope, routes)
        response = error_response(WordedError(error.status_code, message, "not_found"), scope)
        response.headers.update(error.headers or {})
        return response
    return Response(status_code=error.status_code, headers=error.headers)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """The client has left; the status (nginx's) only shows in access logs."""
    return Response(status_code=499)


class Guard:
    """Turns our own mistakes into a 500 without details and a log entry with all of them.

    Answers HEAD as GET, and a path by what it means (`paths.plain_path`).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inner = {**scope, "method": method, "path": plain_path(scope["path"])}
        try:
            await self._app(inner, receive, watched)
        except Exception:
            logger.exception("Unexpected error in %s", scope["path"].encode("unicode_escape").decode())
            if started:
                raise  # the server closes the connection: a cut answer must not look whole
            await error_response(InternalError(), inner)(scope, receive, send)
        return None
