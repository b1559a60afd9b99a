"""POST /v1/audio/speech/batch: up to 64 utterances in one request, one JSON answer."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from voxcpm.server.calls import check_new
from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.guard import key_of, request_id_of
from voxcpm.server.speech.answers import Encoding, statement_for, while_connected, whole_audio
from voxcpm.server.speech.fields import read_fields, read_json
from voxcpm.server.speech.pieces import speak_pieces
from voxcpm.server.speech.prepare import Prepared, prepare_admitted

if TYPE_CHECKING:
    from voxcpm.server.access.keys import Ticket
    from voxcpm.server.state import ServerState

MOST_ITEMS = 64
_OWN = ("items", "stream", "stream_format")
"""Fields of the request that are not defaults of the items."""


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the route of batches."""

    async def batch(request: Request) -> Response:
        """Speak all items; one that fails does not stop the others."""
        body = read_json(await request.body())
        work = asyncio.create_task(_all(state, request, body))
        try:
            if not await while_connected(request.receive, work):
                return Response(status_code=499)
            results = await work
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        succeeded = sum(result["status"] == "success" for result in results)
        counts = {"total": len(results), "succeeded": succeeded, "failed": len(results) - succeeded}
        return JSONResponse({"id": request_id_of(request), "results": results, **counts})

    return [Route("/v1/audio/speech/batch", batch, methods=["POST"])]


async def _all(state: ServerState, request: Request, body: dict[str, Any]) -> list[dict[str, Any]]:
    items = body.get("items")
    if not isinstance(items, list) or not items:
        raise invalid("items is missing: send a list of objects with input", "items")
    if len(items) > MOST_ITEMS:
        raise invalid(f"items has {len(items)} entries: send at most {MOST_ITEMS}", "items")
    check_new(state)
    defaults = {name: value for name, value in body.items() if name not in _OWN}
    # As many at once as the engine has slots: more would only fill its queue, and other clients would be refused.
    free = asyncio.Semaphore(max(1, state.link.load.slots or state.link.about.slots))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_one(state, request, index, item, defaults, free)) for index, item in enumerate(items)
        ]
    return [task.result() for task in tasks]


async def _one(
    state: ServerState, request: Request, index: int, item: Any, defaults: dict[str, Any], free: asyncio.Semaphore
) -> dict[str, Any]:
    """Return the result of one item."""
    try:
        if not isinstance(item, dict):
            raise invalid("an item must be an object with input", "items")
        given = {name: value for name, value in item.items() if value is not None}
        fields, ignored = read_fields({**defaults, **given}, state.settings.strict)
        async with free:
            key = key_of(request)
            prepared, ticket = await prepare_admitted(state, fields, ignored, key, whole=True, begun=True)
            return {"index": index, "status": "success", **await _speak(state, request, index, prepared, ticket)}
    except ApiError as error:
        return {"index": index, "status": "error", "error": error.message, "code": error.code, "param": error.param}


async def _speak(
    state: ServerState, request: Request, index: int, prepared: Prepared, ticket: Ticket
) -> dict[str, Any]:
    speech = await speak_pieces(state, prepared.call, prepared.pieces, ticket)
    try:
        statement = statement_for(state, prepared, speech.result.seed, f"{request_id_of(request)}-{index}")
        encoding = Encoding.start(state, prepared, statement)
        audio = await whole_audio(encoding, speech)
    finally:
        await speech.aclose()
    found: dict[str, Any] = {"audio_data": base64.b64encode(audio).decode(), "media_type": encoding.encoder.media_type}
    found |= {"usage": speech.result.usage(), "seed": speech.result.seed}
    return found | ({"ignored_fields": list(prepared.ignored)} if prepared.ignored else {})
