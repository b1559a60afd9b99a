"""Messages of a session: vLLM-Omni's, and ours. Limits of their size, and the session's own options."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.speech.fields import read_json
from voxcpm.server.websocket.text_units import Granularity

CONFIG_S = 10.0
"""Seconds until the first session.config must have arrived."""
IDLE_S = 60.0
"""Seconds without a message and without audio after which a session is closed."""
MOST_MESSAGE = 64 * 1024
"""Bytes of a message other than session.config, which may carry a clip."""
MOST_TEXT = 1 << 20
"""Bytes of all messages of a session other than session.config."""
MOST_DELAY_MS = 60_000
MOST_SESSIONS = 256
"""Sessions at once."""

Action = Literal["fix", "retry", "discard", "close"]
"""What an error asks for: another message, the same text again, dropping a unit's audio, or a new session."""

CLIENT = ("session.config", "input.text", "input.commit", "input.done", "input.cancel", "session.close")
"""Types of a client's messages."""
_WITHOUT_EFFECT = ("stream", "stream_format", "long", "input")
"""Fields of /v1/audio/speech that a session has no use for."""


class SessionOptions(BaseModel):
    """Fields of session.config that /v1/audio/speech does not have."""

    model_config = ConfigDict(extra="ignore")

    split_granularity: Granularity = Field(
        "none", description="Where units end: none (at input.done), sentence, clause."
    )
    stream_audio: bool = Field(False, description="Send audio as it is made; otherwise one binary frame per unit.")
    carry: bool = Field(True, description="Each unit continues the one before: its words and its sound.")
    max_buffer_delay_ms: int | None = Field(
        None, ge=0, le=MOST_DELAY_MS, description="Speak the whole words that have waited this long. Default: never."
    )


def parse_message(raw: str, most_config: int) -> dict[str, Any]:
    """Return a client's message. most_config: bytes of a session.config. Raises ApiError (400, 413)."""
    size = len(raw.encode("utf-8", "surrogatepass"))
    if size > most_config:
        raise _too_long(size, most_config)
    message = _read(raw.encode("utf-8", "surrogatepass"))
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in CLIENT:
        raise invalid(f"the type of a message must be one of {', '.join(CLIENT)}", "type")
    if kind != "session.config" and size > MOST_MESSAGE:
        raise _too_long(size, MOST_MESSAGE)
    if kind == "input.text" and not isinstance(message.get("text"), str):
        raise invalid("input.text: text must be a string", "text")
    return message


def _read(raw: bytes) -> dict[str, Any]:
    """Return a message. A client that divides a text between any two 16-bit units sends halves of surrogate pairs."""
    try:
        return read_json(raw)
    except ApiError:
        if len(raw) > MOST_MESSAGE or b"\\u" not in raw:
            raise
        message = read_json(raw, halves=True)
        if message.get("type") != "input.text" or message.keys() != {"type", "text"}:
            raise
        return message


def _too_long(size: int, most: int) -> ApiError:
    return ApiError(413, f"the message has {size} bytes: send at most {most}", code="message_too_long")


def split_config(message: dict[str, Any]) -> tuple[SessionOptions, dict[str, Any], list[str]]:
    """Return (the session's options, fields of /v1/audio/speech, names without effect). Raises ApiError for a wrong value."""
    try:
        options = SessionOptions.model_validate(message)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise invalid(f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}", name) from None
    own = {"type", *SessionOptions.model_fields, *_WITHOUT_EFFECT}
    fields = {name: value for name, value in message.items() if name not in own}
    fields.setdefault("response_format", "pcm" if options.stream_audio else "wav")
    return options, fields, [name for name in _WITHOUT_EFFECT if name in message]


def error_message(error: ApiError, action: Action, partial_audio: bool = False, **place: int) -> dict[str, Any]:
    """Return the message about an error. action: what the client can do; place: of the unit that it is about."""
    about = {"message": error.message, "error_type": error.kind, "param": error.param, "code": error.code}
    return {"type": "error", **about, "partial_audio": partial_audio, "action": action, **place}
