"""The routes of the page. Its policy allows nothing that does not come from this server."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from voxcpm.server.errors import not_found
from voxcpm.server.state import ServerState

_HERE = Path(__file__).parent
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = {path.name: _TYPES[path.suffix] for path in sorted(_HERE.iterdir()) if path.suffix in _TYPES}
"""Files of the page by name, with their media types. Others are not served."""
INDEX = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; img-src 'self' data:; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cache-control": "no-cache",
}


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the routes of the page."""

    async def index(request: Request) -> Response:
        """Return the page."""
        return _file(INDEX)

    async def file(request: Request) -> Response:
        """Return one of the page's files."""
        name = request.path_params["name"]
        if name not in FILES:
            raise not_found("the page has no such file")
        return _file(name)

    return [Route("/", index, methods=["GET"]), Route("/page/{name}", file, methods=["GET"], include_in_schema=False)]


def _file(name: str) -> Response:
    return FileResponse(_HERE / name, media_type=f"{FILES[name]}; charset=utf-8", headers=HEADERS)
