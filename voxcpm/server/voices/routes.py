"""/v1/audio/voices in OpenAI's and vLLM-Omni's dialects at once: an answer has the fields of both."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.guard import is_admin, key_of, require_admin
from voxcpm.server.presets import PRESETS, Design
from voxcpm.server.speech.forms import file_of, read_body, text_of, whole_number
from voxcpm.server.state import ServerState
from voxcpm.server.voices.checks import ConsentChecks
from voxcpm.server.voices.consent import ConsentFolder
from voxcpm.server.voices.library import VoiceLibrary
from voxcpm.server.voices.store import Voice


def library_of(state: ServerState) -> VoiceLibrary:
    """Return the state's voices."""
    assert isinstance(state.voices, VoiceLibrary)
    return state.voices


def consents_of(state: ServerState) -> ConsentFolder:
    """Return the folder of consents. Raises ApiError if the server stores none."""
    if state.settings.voices is None:
        raise ApiError(403, "this server stores no consents: start it with --voices FOLDER", code="voices_not_stored")
    return ConsentFolder(state.settings.voices / "consents")


def checks_of(state: ServerState) -> ConsentChecks:
    """Return the checks of consents. Raises ApiError if the server stores none."""
    consents_of(state)
    checks = library_of(state).checks
    assert checks is not None
    return checks


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the routes of voices."""

    async def list_voices(request: Request) -> Response:
        """List the voices that a request may name; with format=objects, `voices` holds objects, as Open WebUI reads them."""
        consents = is_admin(request, state)
        names_only = request.query_params.get("format") != "objects"
        stored = library_of(state).stored()
        names = {voice.name for voice in stored}
        presets = [_preset(name, design) for name, design in PRESETS.items() if name not in names]
        return JSONResponse(
            {
                "object": "list",
                "voices": [name if names_only else {"id": name, "name": name} for name in library_of(state).names()],
                "uploaded_voices": [uploaded(voice, consents) for voice in stored if voice.kind == "uploaded"],
                "data": [*(described(voice) for voice in stored), *presets],
                "has_more": False,
            }
        )

    async def add_voice(request: Request) -> Response:
        """Store a voice: a clip with consent, or a description from which one is designed."""
        require_admin(request, state)
        fields = await read_body(request)
        make = _kind_of(fields)
        voice = await make(request, fields)
        return JSONResponse({**described(voice), "success": True, "voice": uploaded(voice)})

    def _kind_of(fields: dict[str, Any]) -> Callable[..., Any]:
        kind = fields.get("type") or (
            "audio_sample" if "audio_sample" in fields or "prompt" not in fields else "prompt"
        )
        if fields.get("speaker_embedding") is not None:
            raise invalid("VoxCPM2 has no speaker embeddings: send the clip as audio_sample", "speaker_embedding")
        makers = {"audio_sample": _upload, "prompt": _design}
        if not isinstance(kind, str) or kind not in makers:
            raise invalid("type must be audio_sample or prompt", "type")
        return makers[kind]

    async def _upload(request: Request, fields: dict[str, Any]) -> Voice:
        consent = text_of(fields, "consent", required=True)
        if consent.startswith("cons_") and consents_of(state).find(consent) is None:
            raise invalid("no consent has this id: see GET /v1/audio/voice_consents", "consent", "consent_missing")
        name = text_of(fields, "name", required=True)
        clip, kind = file_of(fields, "audio_sample")
        text, description = text_of(fields, "ref_text"), text_of(fields, "speaker_description")
        return await library_of(state).upload(name, clip, consent, text, description, kind)

    async def _design(request: Request, fields: dict[str, Any]) -> Voice:
        name, prompt = text_of(fields, "name", required=True), text_of(fields, "prompt", required=True)
        if "(" in prompt or ")" in prompt:
            raise invalid("a description has no parentheses", "prompt")
        seed = whole_number(fields, "seed")
        design = Design(prompt, secrets.randbelow(2**31) if seed is None else seed, text_of(fields, "script_hint"))
        return await library_of(state).design(name, design, key_of(request))

    async def delete_voice(request: Request) -> Response:
        """Delete a stored voice."""
        require_admin(request, state)
        voice = await library_of(state).delete(request.path_params["name"])
        done = {"object": "audio.voice.deleted", "id": voice.id, "deleted": True}
        return JSONResponse({**done, "success": True, "message": f"voice {voice.name} was deleted"})

    return [
        Route("/v1/audio/voices", list_voices, methods=["GET"]),
        Route("/v1/audio/voices", add_voice, methods=["POST"]),
        Route("/v1/audio/voices/{name}", delete_voice, methods=["DELETE"]),
    ]


def _preset(name: str, design: Design) -> dict[str, Any]:
    about = {"object": "audio.voice", "id": name, "name": name, "created_at": 0}
    return {**about, "type": "prompt", "prompt": design.description}


def described(voice: Voice) -> dict[str, Any]:
    """Return OpenAI's object of a voice, and what else is known of it."""
    found: dict[str, Any] = {
        "object": "audio.voice",
        "id": voice.id,
        "name": voice.name,
        "created_at": voice.created_at,
        "type": "prompt" if voice.kind == "designed" else "audio_sample",
        "seconds": voice.seconds,
    }
    if voice.kind == "designed":
        found |= {"prompt": voice.description, "seed": voice.seed}
    return found


def uploaded(voice: Voice, consent: bool = True) -> dict[str, Any]:
    """Return vLLM-Omni's entry of a voice. consent: with the speaker's statement, which may hold a name and an address."""
    found: dict[str, Any] = {
        "name": voice.name,
        **({"consent": voice.consent} if consent else {}),
        "created_at": voice.created_at,
        "file_size": voice.file_size,
        "mime_type": voice.mime_type,
    }
    texts = {"ref_text": voice.ref_text, "speaker_description": voice.speaker_description}
    return found | {name: text for name, text in texts.items() if text}
