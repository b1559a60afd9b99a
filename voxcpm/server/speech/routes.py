"""The routes of speech: make it, ask how a request ended, cancel it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from voxcpm.server.errors import ApiError, cancelled, not_found
from voxcpm.server.guard import is_admin, key_of, owner_of, request_id_of
from voxcpm.server.process.result import SpeechResult
from voxcpm.server.speech.answers import (
    Encoding,
    StreamedAnswer,
    answer_headers,
    audio_parts,
    sse_parts,
    statement_for,
    usage_headers,
    while_connected,
    whole_audio,
)
from voxcpm.server.speech.fields import SpeechFields, read_fields
from voxcpm.server.speech.forms import read_speech
from voxcpm.server.speech.pieces import speak_pieces
from voxcpm.server.speech.prepare import prepare_admitted

if TYPE_CHECKING:
    from voxcpm.server.state import Recorded, ServerState


@dataclass
class _Waiting:
    """A request that waits for its key's turn, its voice or the engine. Its answer has not begun."""

    work: asyncio.Task[Response]
    result: SpeechResult

    def cancel(self) -> None:
        """End the wait: the request gets the status 499."""
        error = cancelled()
        self.result.ending, self.result.error = "cancelled", error.message
        self.result.total_s = time.time() - self.result.asked_at
        self.work.cancel()


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the routes around a state."""

    async def speech(request: Request) -> Response:
        """Speak a text."""
        fields, ignored = read_fields(await read_speech(request), state.settings.strict)
        _check_free(state, request)
        work = asyncio.create_task(_start(state, request, fields, ignored))
        place = owner_of(request), request_id_of(request)
        state.waiting[place] = waiting = _Waiting(work, SpeechResult(0, fields.seed or 0, waits=True))
        answered = False
        try:
            # The client may go away while its clip is encoded, the call waits for a slot, or for its first audio.
            answered = await while_connected(request.receive, work)
            if work.cancelled():
                state.remember(*place, waiting)
                raise cancelled()
            return await work if answered else Response(status_code=499)
        finally:
            if state.waiting.get(place) is waiting:
                del state.waiting[place]
            if not answered:
                work.cancel()
                (made,) = await asyncio.gather(work, return_exceptions=True)
                if isinstance(made, StreamedAnswer):
                    await made.close()

    async def ended(request: Request) -> Response:
        """Tell how a request stands or ended, which a stream of raw audio cannot say."""
        return JSONResponse({"id": request.path_params["request_id"], **_record(state, request).result.json()})

    async def cancel(request: Request) -> Response:
        """Cancel a request that runs or waits."""
        record = _record(state, request)
        running = record.result.ending is None
        record.cancel()
        return JSONResponse({"id": request.path_params["request_id"], "cancelled": running})

    return [
        Route("/v1/audio/speech", speech, methods=["POST"]),
        Route("/v1/audio/speech/{request_id}", ended, methods=["GET"]),
        Route("/v1/audio/speech/{request_id}", cancel, methods=["DELETE"]),
    ]


def _check_free(state: ServerState, request: Request) -> None:
    """Raise ApiError (409) if the client uses the id of a request that still runs."""
    place = owner_of(request), request_id_of(request)
    earlier = state.waiting.get(place) or state.records.get(place)
    if earlier is not None and earlier.result.ending is None:
        raise ApiError(
            409, "a request with this X-Request-Id still runs: send another id", code="request_id_in_use", retry=False
        )


def _record(state: ServerState, request: Request) -> Recorded:
    request_id = request.path_params["request_id"]
    place = owner_of(request), request_id
    found = state.waiting.get(place) or state.records.get(place)
    if found is None and is_admin(request, state):
        # An admin sees the requests of all keys: the latest one with this id.
        latest = reversed([*state.records.items(), *state.waiting.items()])
        found = next((one for (_, known), one in latest if known == request_id), None)
    if found is None:
        raise not_found("no request with this id: the last 1024 are remembered", "request_id")
    return found


async def _start(state: ServerState, request: Request, fields: SpeechFields, ignored: list[str]) -> Response:
    """Have a request spoken: return the whole answer, or one that has its first part."""
    prepared, ticket = await prepare_admitted(state, fields, ignored, key_of(request))
    speech = await speak_pieces(state, prepared.call, prepared.pieces, ticket)
    try:
        request_id = request_id_of(request)
        state.waiting.pop((owner_of(request), request_id), None)
        state.remember(owner_of(request), request_id, speech)
        statement = statement_for(state, prepared, speech.result.seed, request_id)
        encoding = Encoding.start(state, prepared, statement, speech.result.seed, *prepared.pieces)
        headers = answer_headers(state, prepared, speech.result.seed, statement)
        media_type = encoding.encoder.media_type
        if prepared.mode == "whole":
            body = await whole_audio(encoding, speech)
            signed = {"X-C2PA": "embedded"} if encoding.signed else {}
            return Response(body, media_type=media_type, headers=headers | usage_headers(speech) | signed)
        if prepared.mode == "sse":
            parts, media_type = sse_parts(encoding, speech), "text/event-stream"
        else:
            parts = audio_parts(encoding, speech)
        first = await anext(parts)
        return StreamedAnswer(state, speech, first, parts, media_type, headers)
    except BaseException as error:
        await speech.aclose()
        if isinstance(error, StopAsyncIteration):
            raise ApiError(500, "no audio was made: try another text", "server_error", code="no_audio") from None
        raise
