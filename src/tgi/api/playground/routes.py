"""`/dashboard`, the files of the pages, and the numbers that the live page shows.

Does not own the pages (`pages`, which `/` uses too) nor the numbers (`history`, `snapshot`).
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tgi.api.openapi.document import documented
from tgi.api.playground import assets
from tgi.api.playground.history import KEPT_SECONDS
from tgi.api.playground.pages import page
from tgi.api.playground.snapshot import Snapshot, snapshot
from tgi.api.server.access import GROUP, Routes
from tgi.api.state import api_of
from tgi.errors import ValidationError

routes = Routes()
encode = msgspec.json.Encoder().encode
SHOWN_SECONDS = 300

SECONDS = {
    "name": "seconds",
    "in": "query",
    "required": False,
    "description": f"How far back the series go, 1 to {KEPT_SECONDS}; default {SHOWN_SECONDS}.",
    "schema": {"type": "integer"},
}


@routes.get("/dashboard")
async def dashboard(request: Request) -> Response:
    """The live page; its numbers come from `/dashboard/data`."""
    if request.scope.get("raw_path", b"").endswith(b"/"):  # its files are beside it, not below
        return RedirectResponse("../dashboard")
    return page("dashboard.html", request)


@routes.get("/playground/{file}")
async def file(request: Request) -> Response:
    """A script, a style sheet or a picture of the pages; their names have a hash of the content."""
    name = request.path_params["file"]
    found = None if name.endswith(".html") else assets.asset(name)
    if found is None:
        return Response(status_code=404)
    return assets.answer(found, request.headers, immutable="-" in name)


@routes.get("/dashboard/data")
@documented("dashboard_data", None, Snapshot, errors=(422,), query=(SECONDS,))
async def data(request: Request) -> Response:
    """What runs and waits, the last minutes by seconds, and the last requests with their times; no text of them."""
    given = request.query_params.get("seconds", str(SHOWN_SECONDS))
    if not given.isdecimal() or len(given) > 6 or not 1 <= int(given) <= KEPT_SECONDS:
        raise ValidationError(f"`seconds` must be >= 1 and <= {KEPT_SECONDS}. Given: {given[:32]}", param="seconds")
    shown = snapshot(api_of(request), int(given), request.scope.get(GROUP, 0))
    return Response(encode(shown), media_type="application/json", headers={"cache-control": "no-store"})
