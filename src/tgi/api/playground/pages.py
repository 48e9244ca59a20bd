"""Who gets a page, and the page."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tgi.api.playground import assets
from tgi.api.state import api_of


def wants_page(request: Request) -> bool:
    """A browser that opens `/`; probes and clients, which take anything, get what they always got.

    A page below `/v1`, which means `/`, would look for its files there.
    """
    raw_path: bytes = request.scope.get("raw_path", b"/")
    return (
        not api_of(request).config.disable_playground
        and "text/html" in request.headers.get("accept", "")
        and "verbose" not in request.query_params
        and not raw_path.rstrip(b"/").endswith(b"/v1")
    )


def page(name: str, request: Request) -> Response:
    """A built page; browsers ask each time whether it is still the same."""
    found = assets.asset(name)
    assert found is not None, f"{name} is not built: make web"
    return assets.answer(found, request.headers, immutable=False)
