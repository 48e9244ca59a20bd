"""Paths as clients write them: with slashes too many, and base URLs with or without `/v1`.

Owns which spellings mean the same path, and what is said of one that means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

PREFIX = "/v1"
"""Below it are OpenAI's routes; its clients have it in their base URL."""
LONGEST_SHOWN = 200


def plain_path(path: str) -> str:
    """Without slashes at its end and doubled ones at its start; `/v1` itself is `/`.

    Clients of TGI post to their base URL, also when it is one for OpenAI's routes.
    """
    plain = "/" + path.strip("/")
    return "/" if plain == PREFIX else plain


def misses_prefix(scope: Scope, routes: Sequence[BaseRoute]) -> bool:
    """Whether an unknown path is one of OpenAI's routes but for `/v1`."""
    path = scope["path"]
    return not path.startswith(f"{PREFIX}/") and _methods(scope, routes, PREFIX + path) is not None


def unknown_path(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    """A sentence about a path that is no route: what it may have meant."""
    path = scope["path"]
    said = f"Unknown path: {scope['method']} {_shown(path)}"
    if misses_prefix(scope, routes):
        return f"{said}; {PREFIX}{_shown(path)} is meant: let the base URL of OpenAI's clients end in {PREFIX}"
    rest = path.removeprefix(PREFIX)
    if rest != path and _methods(scope, routes, rest) is not None:
        return f"{said}; {_shown(rest)} is meant: take {PREFIX} off the end of the base URL"
    return f"{said}; here are {PREFIX}/chat/completions, {PREFIX}/completions, {PREFIX}/embeddings and {PREFIX}/models"


def wrong_method(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    """A sentence about a route that takes another method."""
    methods = _methods(scope, routes, scope["path"]) or set()
    said = f"Method not allowed: {scope['method']} {_shown(scope['path'])}"
    return f"{said} takes {' or '.join(sorted(methods))}"


def _methods(scope: Scope, routes: Sequence[BaseRoute], path: str) -> set[str] | None:
    """The methods that a path takes; None: it is no route."""
    asked = {**scope, "path": path}
    found = [route for route in routes if route.matches(asked)[0] is not Match.NONE]
    return {method for route in found for method in getattr(route, "methods", None) or ()} if found else None


def _shown(path: str) -> str:
    """As it came but for its length and what does not print."""
    shown = path[:LONGEST_SHOWN].encode("unicode_escape").decode()
    return shown if len(path) <= LONGEST_SHOWN else f"{shown}..."
