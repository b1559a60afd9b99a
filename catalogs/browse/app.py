"""The requests that the page makes. Each answers with JSON, or with one line of text that says what is wrong (4xx)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from catalogs.browse.catalog import Catalog, SlowQueryError
from catalogs.browse.clips import Clips
from catalogs.browse.conditions import SORTS, Asked
from catalogs.browse.marking import Marking
from catalogs.corpus.damage import DamagedFileError
from catalogs.query.views import QueryError

_HERE = Path(__file__).parent
_FILES = {
    "browse.css": "text/css",
    "browse.js": "text/javascript",
    "clip.js": "text/javascript",
    "facets.js": "text/javascript",
    "list.js": "text/javascript",
    "player.js": "text/javascript",
    "server.js": "text/javascript",
    "wavesurfer.esm.js": "text/javascript",
}
"""Files of the page. Others are not served."""
_LONGEST_ID = 200
"""Characters of the longest id: imported clips keep the ids of their source."""
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_LAST = 100_000_000
_LARGEST = 1 << 20
"""Bytes of a request: a mark with the words of five minutes has 50 kB."""
Handler = Callable[[Request], Awaitable[Response]]


class RefusedError(Exception):
    """A request that cannot be answered. status: of HTTP."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class Pages:
    """The requests by name."""

    def __init__(self, root: Path, catalog: Catalog, marking: Marking) -> None:
        self._root, self._catalog, self._marking = root, catalog, marking
        self._clips = Clips(root, catalog, marking)

    def routes(self) -> list[Route]:
        """Return what is answered."""
        made = [
            ("/", self.index, "GET"),
            ("/api/start", self.start, "GET"),
            ("/api/page", self.page, "POST"),
            ("/api/facets", self.facets, "POST"),
            ("/api/agreement", self.agreement, "GET"),
            ("/api/undo", self.undo, "POST"),
            ("/api/clip/{segment}", self.clip, "GET"),
            ("/api/clip/{segment}/context", self.context, "GET"),
            ("/api/clip/{segment}/audio", self.audio, "GET"),
            ("/api/clip/{segment}/spectrogram", self.spectrogram, "GET"),
            ("/api/clip/{segment}/mark", self.mark, "POST"),
            ("/{file}", self.file, "GET"),
        ]
        return [Route(path, answering(handler), methods=[method]) for path, handler, method in made]

    async def index(self, request: Request) -> Response:
        """The page."""
        await run_in_threadpool(self._catalog.refresh)
        page = (_HERE / "browse.html").read_text(encoding="utf-8")
        return Response(page.replace("NONCE", request.scope["nonce"]), media_type="text/html")

    async def file(self, request: Request) -> Response:
        """A script or a style."""
        name = request.path_params["file"]
        if name not in _FILES:
            raise RefusedError(404, "this page does not exist")
        return Response((_HERE / name).read_bytes(), media_type=_FILES[name])

    async def start(self, request: Request) -> Response:
        """What the page shows before anything is asked."""
        about = {
            "corpus": self._root.name,
            "by": self._marking.by,
            "made": self._marking.made,
            "columns": self._clips.columns,
            "sorts": SORTS,
        }
        return JSONResponse(about)

    async def page(self, request: Request) -> Response:
        """Rows of the list."""
        body = await _body(request)
        offset = body.get("offset", 0)
        if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset <= _LAST:
            raise RefusedError(400, "the offset is a number of segments")
        found = await run_in_threadpool(self._clips.page, Asked.parse(body), offset)
        self._clips.texts.read_ahead()
        return JSONResponse(found)

    async def facets(self, request: Request) -> Response:
        """Counts."""
        return JSONResponse(await run_in_threadpool(self._clips.facets, Asked.parse(await _body(request))))

    async def agreement(self, request: Request) -> Response:
        """People and how they agree."""
        return JSONResponse(await run_in_threadpool(self._clips.agreement))

    async def clip(self, request: Request) -> Response:
        """One segment."""
        return JSONResponse(await run_in_threadpool(self._clips.clip, _segment(request)))

    async def context(self, request: Request) -> Response:
        """What is around it."""
        return JSONResponse(await run_in_threadpool(self._clips.context, _segment(request)))

    async def audio(self, request: Request) -> Response:
        """Its audio, or a part of the file."""
        data = await run_in_threadpool(self._clips.audio, _segment(request))
        headers = {"accept-ranges": "bytes", "content-type": "audio/flac"}
        asked = request.headers.get("range")
        if asked is None:
            return Response(data, headers=headers)
        first, last = _part(asked, len(data))
        headers["content-range"] = f"bytes {first}-{last}/{len(data)}"
        return Response(data[first : last + 1], 206, headers)

    async def spectrogram(self, request: Request) -> Response:
        """Levels, one byte each, row by row."""
        levels, columns, top = await run_in_threadpool(self._clips.spectrogram, _segment(request))
        headers = {"x-columns": str(columns), "x-top-hz": f"{top:g}", "content-type": "application/octet-stream"}
        return Response(levels, headers=headers)

    async def mark(self, request: Request) -> Response:
        """Add a mark."""
        segment, body = _segment(request), await _body(request)
        said = {name: body.get(name) for name in ("verdict", "text", "words", "note")}

        def add() -> dict[str, Any]:
            unit = self._clips.unit(segment)
            row = self._marking.mark(segment, unit, **said)
            self._clips.forget(segment)
            return {"mark_id": row["mark_id"], "verdict": row["verdict"], "made": self._marking.made}

        return JSONResponse(await run_in_threadpool(add))

    async def undo(self, request: Request) -> Response:
        """Take a mark back."""
        mark = (await _body(request)).get("mark_id")
        if not isinstance(mark, str):
            raise RefusedError(400, "say which mark to undo")

        def take_back() -> dict[str, Any]:
            segment = self._marking.undo(mark)
            self._clips.forget(segment)
            return {"segment_id": segment, "verdict": self._marking.verdict(segment), "made": self._marking.made}

        return JSONResponse(await run_in_threadpool(take_back))


def answering(handler: Handler) -> Handler:
    """Turn what is wrong with a request into its answer: one line."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except RefusedError as refusal:
            return PlainTextResponse(str(refusal), refusal.status)
        except SlowQueryError as error:
            return PlainTextResponse(str(error), 408)
        except KeyError:
            return PlainTextResponse("this segment does not exist, or it has no audio", 404)
        except (QueryError, ValueError) as error:
            # Unpaired surrogates, which JSON can hold, cannot be sent.
            return PlainTextResponse(str(error).encode("utf-8", "replace").decode(), 400)
        except DamagedFileError as error:
            return PlainTextResponse(str(error), 409)
        except OSError as error:
            return PlainTextResponse(f"the mark was not written: {error.strerror or error}", 409)

    return answer


def _segment(request: Request) -> str:
    # Encoded twice by the page: an id may hold a slash, which the router would take as the end of the name.
    found = unquote(request.path_params["segment"])
    if len(found) > _LONGEST_ID or not found.isprintable():
        raise RefusedError(404, "this is not the id of a segment")
    return found


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LARGEST:
            raise RefusedError(413, "the request is too large")
    try:
        found = json.loads(bytes(data) or b"{}")
    except (ValueError, RecursionError):
        raise RefusedError(400, "the request is not JSON") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the request is not a JSON object")
    return found


def _part(asked: str, size: int) -> tuple[int, int]:
    """Return (first, last) byte of a range. Raises RefusedError if the file has no such part."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None or found.groups() == ("", ""):
        raise RefusedError(416, "ask for one range of bytes")
    if not found[1]:
        first, last = max(size - int(found[2]), 0), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
    if first > last:
        raise RefusedError(416, f"the file has {size} bytes")
    return first, last


def make_app(root: Path, catalog: Catalog, marking: Marking) -> Starlette:
    """Return the application, without its guard."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        catalog.close()

    return Starlette(routes=Pages(root, catalog, marking).routes(), lifespan=lifespan)
