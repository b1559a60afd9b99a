"""/v1/audio/voice_consents, in OpenAI's dialect."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from voxcpm.errors import AudioError
from voxcpm.server.errors import ApiError, invalid, not_found
from voxcpm.server.guard import require_admin
from voxcpm.server.references.decode import decode_clip
from voxcpm.server.speech.forms import file_of, read_body, text_of, whole_number
from voxcpm.server.state import ServerState
from voxcpm.server.voices.consent import MOST_NAME, Consent
from voxcpm.server.voices.routes import checks_of, consents_of, library_of

_CHECK_RATE = 16_000
"""Hz at which a recording is decoded to see that it can be."""


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the routes of consents."""

    def found(request: Request) -> Consent:
        consent = consents_of(state).find(request.path_params["consent"])
        if consent is None:
            raise not_found("no consent has this id: see GET /v1/audio/voice_consents", "consent_id")
        return consent

    async def list_consents(request: Request) -> Response:
        """List the consents, latest first."""
        require_admin(request, state)
        limit = whole_number(dict(request.query_params), "limit")
        limit = 20 if limit is None else limit
        if not 1 <= limit <= 100:
            raise invalid("limit must be 1 to 100", "limit")
        consents = consents_of(state).all()
        after = request.query_params.get("after")
        if after:
            ids = [consent.id for consent in consents]
            consents = consents[ids.index(after) + 1 :] if after in ids else []
        page = [consent.json() for consent in consents[:limit]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return JSONResponse({"object": "list", "data": page, **ends, "has_more": len(consents) > limit})

    async def add_consent(request: Request) -> Response:
        """Store the recording of a consent."""
        require_admin(request, state)
        folder = consents_of(state)
        fields = await read_body(request)
        name, language = text_of(fields, "name", required=True), text_of(fields, "language", required=True)
        recording, kind = file_of(fields, "recording")
        challenge = text_of(fields, "challenge")
        if challenge and not checks_of(state).has_challenge(challenge):
            raise invalid("no sentence has this id: get one at POST /v1/audio/voice_consents/sentence", "challenge")
        try:
            await asyncio.to_thread(decode_clip, recording, _CHECK_RATE, "the recording")
            about = (name[:MOST_NAME], language[:64], recording, kind, challenge)
            consent = await asyncio.to_thread(folder.add, *about)
        except (AudioError, ValueError) as error:
            raise invalid(str(error), "recording", "invalid_audio") from None
        except OSError:
            raise ApiError(
                507, "the consent cannot be stored: the server's disk is full or not writable", "server_error"
            ) from None
        return JSONResponse(consent.json())

    async def add_sentence(request: Request) -> Response:
        """Return a sentence that a speaker has to read for a consent that is checked."""
        require_admin(request, state)
        checks = checks_of(state)
        fields = await read_body(request)
        speaker, recipient = text_of(fields, "speaker", required=True), text_of(fields, "recipient", required=True)
        language, purpose = text_of(fields, "language") or "en", text_of(fields, "purpose") or "cloning"
        for text in (speaker, recipient, language, purpose):
            if not text.isprintable():
                raise invalid("speaker, recipient, language and purpose are texts of one line")
        made = await checks.sentence(speaker, recipient, language, [purpose])
        about = {name: made[name] for name in ("speaker", "recipient", "purposes", "language", "sentence", "words")}
        return JSONResponse(
            {"object": "audio.voice_consent.sentence", "challenge": made["id"], "expires": made["expires"], **about}
        )

    async def one_consent(request: Request) -> Response:
        """Describe a consent."""
        require_admin(request, state)
        return JSONResponse(found(request).json())

    async def rename_consent(request: Request) -> Response:
        """Change the label of a consent."""
        require_admin(request, state)
        name = text_of(await read_body(request), "name", required=True)
        return JSONResponse(consents_of(state).rename(found(request), name[:MOST_NAME]).json())

    async def delete_consent(request: Request) -> Response:
        """Delete a consent that no voice depends on."""
        require_admin(request, state)
        consent = found(request)
        used = [voice.name for voice in library_of(state).stored() if voice.consent == consent.id]
        if used:
            raise ApiError(
                409, f"voices depend on this consent ({', '.join(used[:8])}): delete them first", code="consent_in_use"
            )
        consents_of(state).delete(consent)
        await asyncio.to_thread(checks_of(state).forget, consent)
        return JSONResponse({"object": "audio.voice_consent", "id": consent.id, "deleted": True})

    return [
        Route("/v1/audio/voice_consents", list_consents, methods=["GET"]),
        Route("/v1/audio/voice_consents", add_consent, methods=["POST"]),
        Route("/v1/audio/voice_consents/sentence", add_sentence, methods=["POST"]),
        Route("/v1/audio/voice_consents/{consent}", one_consent, methods=["GET"]),
        Route("/v1/audio/voice_consents/{consent}", rename_consent, methods=["POST"]),
        Route("/v1/audio/voice_consents/{consent}", delete_consent, methods=["DELETE"]),
    ]
