"""POST /v1/audio/speech/batch: up to 64 utterances in one request, one JSON answer."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from voxcpm.provenance.statement import Statement
from voxcpm.server.calls import check_new
from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.guard import key_of, request_id_of
from voxcpm.server.speech.answers import Encoding, statement_for, watermark_name, while_connected, whole_audio
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
_AUDIO = "audio_data"
"""Field of a result: bytes until the answer is rendered."""
_SLICE = 3 << 18
"""Bytes of audio that become base64 at once: 768 KiB, a multiple of three. Other threads run between two slices."""


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
        about = {"id": request_id_of(request), **counts}
        # Twenty minutes of audio take a second, in which other clients must have theirs.
        data = await asyncio.get_running_loop().run_in_executor(state.encoders, _rendered, about, results)
        return Response(data, media_type="application/json", headers=_headers(results))

    return [Route("/v1/audio/speech/batch", batch, methods=["POST"])]


def _rendered(about: dict[str, Any], results: list[dict[str, Any]]) -> bytes:
    """Return the answer as JSON. An encoder of JSON would hold the interpreter for the whole answer, base64 needs no escapes."""
    parts = [msgspec.json.encode(about)[:-1], b',"results":[']
    for index, result in enumerate(results):
        rest = msgspec.json.encode({name: value for name, value in result.items() if name != _AUDIO})
        parts.append(b"," if index else b"")
        if _AUDIO in result:
            parts += [rest[:-1], b',"audio_data":"', *_base64(result[_AUDIO]), b'"}']
        else:
            parts.append(rest)
    return b"".join((*parts, b"]}"))


def _base64(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    return (base64.b64encode(view[at : at + _SLICE]) for at in range(0, len(data), _SLICE))


def _headers(results: list[dict[str, Any]]) -> dict[str, str]:
    """Return the headers that say that the audio of a batch is synthetic. The checkpoint is named if all items have the same."""
    stated = [result for result in results if result.get("synthetic")]
    if not stated:
        return {}
    checkpoints = {result.get("checkpoint") for result in stated}
    return Statement(checkpoint=checkpoints.pop() if len(checkpoints) == 1 else None).headers()


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
    found: dict[str, Any] = {_AUDIO: audio, "media_type": encoding.encoder.media_type, "sample_rate": prepared.rate}
    found |= {"usage": speech.result.usage(), "seed": speech.result.seed}
    # Raw PCM holds no statement, and the headers are those of the whole batch.
    found |= {} if statement is None else statement.to_dict()
    found |= {} if (mark := watermark_name(state, prepared)) is None else {"watermark": mark}
    found |= {"c2pa": "embedded"} if encoding.signed else {}
    return found | ({"ignored_fields": list(prepared.ignored)} if prepared.ignored else {})
