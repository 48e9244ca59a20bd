"""The router as a Serve deployment: the same as that of `tgi route`, whose replicas are those of the directory."""

# Ray is not in every environment that checks this; without it this package's own name is found.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tgi.replicas.discovery import DiscoveryError, follow
from tgi.replicas.router import Router
from tgi.replicas.starts import Starts

logger = logging.getLogger("tgi.ray")

LOOK_EVERY_S = 0.5
PATIENCE_S = 5.0


class RouterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What the routers of a deployment have in common; keys of `args` in a Serve config file."""

    models: dict[str, str] = {}
    """Names of models -> their Serve applications, the first one first; also those that have no replica yet."""
    salt: str = ""
    api_key: tuple[str, ...] = ()
    start_timeout: float = 600.0
    payload_limit: int = 2_000_000
    routers: int = 1


class _WithoutId:
    """The application, whose answers do not have the request's id: Serve adds it by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.lower() != b"x-request-id"]
                message = {**message, "headers": kept}
            await send(message)

        await self._app(scope, receive, without_id)


class RoutingActor:
    """The class of a Serve deployment; `directory`: a handle of it."""

    async def __init__(self, settings: RouterSettings, directory: Any) -> None:
        self._settings, self._directory = settings, directory
        self._models = settings.models
        self._router = Router(
            api_keys=settings.api_key,
            salt=settings.salt,
            payload_limit=settings.payload_limit,
            starts=Starts(settings.start_timeout, self._wake),
        )
        self._router.models.expect(settings.models)
        self._tasks = [
            asyncio.create_task(self._router.run()),
            asyncio.create_task(follow(self._router.replicas, [], [self._look], LOOK_EVERY_S)),
        ]

    def __serve_build_asgi_app__(self) -> Any:
        return _WithoutId(self._router)

    async def check_health(self) -> None:
        """Asked by Serve: a router without its heartbeat or its list is of no use."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise RuntimeError("the router's heartbeat has ended")

    async def _look(self) -> list[str]:
        """Raises DiscoveryError."""
        try:
            entries, models = await asyncio.wait_for(self._directory.known.remote(), PATIENCE_S)
        except Exception as error:  # whatever Ray raises: it starts the directory again
            raise DiscoveryError(f"the directory does not answer ({type(error).__name__})") from None
        if models and models != self._models:
            self._models = models
            self._router.models.expect(models)
        if entries is None:
            raise DiscoveryError("the directory has just started")
        return [entry["url"] for entry in entries]

    async def _wake(self, model: str) -> None:
        """Ask Serve for a replica: a request that waits for one is what it starts the first one for.

        Raises what Serve does, such as KeyError for a model that has no application.
        """
        from ray import serve

        handle = serve.get_deployment_handle("Engine", self._models[model])
        with contextlib.suppress(TimeoutError):
            url = await asyncio.wait_for(handle.where.remote(), self._settings.start_timeout)
            self._router.replicas.add(url)


def settings_of(arguments: Mapping[str, Any]) -> RouterSettings:
    """Raises msgspec.ValidationError."""
    return msgspec.convert(dict(arguments), RouterSettings, strict=False)
