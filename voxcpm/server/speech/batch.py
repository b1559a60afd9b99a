"""POST /v1/audio/speech/batch: up to 64 utterances in one request, one JSON answer."""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from voxcpm.server.calls import check_new
from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.guard import key_of, request_id_of
from voxcpm.server.speech.answers import Encoding, statement_for, while_connected, whole_audio
from voxcpm.server.speech.fields import read_fields
from voxcpm.server.speech.forms import json_of
from voxcpm.server.speech.pieces import speak_pieces
from voxcpm.server.speech.prepare import Prepared, prepare_admitted

if TYPE_CHECKING:
    from voxcpm.server.access.keys import Ticket
    from voxcpm.server.state import ServerState

log = logging.getLogger("voxcpm.server")

MOST_ITEMS = 64
MOST_S = 1_200.0
"""Seconds of audio of a batch after which no further item is begun."""
_OWN = ("items", "stream", "stream_format")
"""Fields of the request that are not defaults of the items."""
_VOICE = ("voice", "speaker")
"""Two names of one field."""


@dataclass
class _Batch:
    """What the items of a batch share. free: places for items that are spoken at once."""

    state: ServerState
    request: Request
    defaults: dict[str, Any]
    free: asyncio.Semaphore
    seconds: float = 0.0  #: of audio that was made


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the route of batches."""

    async def batch(request: Request) -> Response:
        """Speak all items; one that fails does not stop the others."""
        body = await json_of(request)
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
    batch = _Batch(state, request, defaults, free)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_one(batch, index, item)) for index, item in enumerate(items)]
    return [task.result() for task in tasks]


async def _one(batch: _Batch, index: int, item: Any) -> dict[str, Any]:
    """Return the result of one item. Whatever goes wrong is this item's error."""
    try:
        return {"index": index, "status": "success", **await _spoken(batch, index, item)}
    except ApiError as error:
        fault = error
    except Exception as error:
        log.exception("item %d of request %s failed: %s", index, request_id_of(batch.request), type(error).__name__)
        fault = ApiError(500, "internal error", "server_error", code="internal_error")
    return {"index": index, "status": "error", "error": fault.message, "code": fault.code, "param": fault.param}


async def _spoken(batch: _Batch, index: int, item: Any) -> dict[str, Any]:
    """Check and speak one item. Raises ApiError."""
    if not isinstance(item, dict):
        raise invalid("an item must be an object with input", "items")
    given = {name: value for name, value in item.items() if value is not None}
    # The other name of an item's voice must not come from the defaults.
    hidden = _VOICE if any(name in given for name in _VOICE) else ()
    defaults = {name: value for name, value in batch.defaults.items() if name not in hidden}
    fields, ignored = read_fields({**defaults, **given}, batch.state.settings.strict)
    if fields.long:
        raise invalid("long: a batch has no long texts: send each of them to /v1/audio/speech", "long")
    async with batch.free:
        if batch.seconds >= MOST_S:
            raise invalid(
                f"the batch has {MOST_S:g} s of audio already: send the rest in another one", "items", "batch_too_long"
            )
        key = key_of(batch.request)
        prepared, ticket = await prepare_admitted(batch.state, fields, ignored, key, "whole", begun=True)
        return await _speak(batch, index, prepared, ticket)


async def _speak(batch: _Batch, index: int, prepared: Prepared, ticket: Ticket) -> dict[str, Any]:
    state, request = batch.state, batch.request
    speech = await speak_pieces(state, prepared.call, prepared.pieces, ticket)
    try:
        statement = statement_for(state, prepared, speech.result.seed, f"{request_id_of(request)}-{index}")
        encoding = Encoding.start(state, prepared, statement, speech.result.seed, *prepared.pieces)
        audio = await whole_audio(encoding, speech)
    finally:
        await speech.aclose()
        batch.seconds += speech.result.seconds
    found: dict[str, Any] = {"audio_data": base64.b64encode(audio).decode(), "media_type": encoding.encoder.media_type}
    found |= {"usage": speech.result.usage(), "seed": speech.result.seed}
    return found | ({"ignored_fields": list(prepared.ignored)} if prepared.ignored else {})
