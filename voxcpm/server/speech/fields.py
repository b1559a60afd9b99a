"""Fields of a speech request: OpenAI's, vLLM-Omni's, and ours."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, Literal, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.settings import DEFAULT_VOICE

Quality = Literal["quality", "balanced", "fast"]
STEPS: dict[str, int] = {"quality": 10, "balanced": 6, "fast": 4}
"""Solver steps of each `quality`. Fewer steps are faster; the model was made for 10."""
DEPTH = 32
"""Deepest nesting of a JSON body."""
MOST_VALUES = 20_000
"""Values in a JSON body: those of all objects and lists."""
LONG_STRING = 1_024
"""Bytes of a string from which it counts as a text or a clip."""
MOST_BESIDE = 2**20
"""Bytes of a JSON body beside its texts and clips; also the most backslashes in it. They bound the time of reading it."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)

UNSUPPORTED = {
    "speaker_embedding": "voices are clips here: send ref_audio",
    "x_vector_only_mode": "voices are clips here: leave it out",
    "ref_audio_2": "the model takes one reference: leave it out",
    "ambient_sound": "the model has no ambient sound: leave it out",
    "duration_seconds": "the model chooses the length; max_new_tokens limits it (160 ms per patch)",
    "word_timestamps": "times of words are not available: leave it out",
}
"""Fields of vLLM-Omni for other models. They would change the audio, so that they are refused and not ignored."""
WITHOUT_EFFECT = ("language", "initial_codec_chunk_frames", "non_streaming_mode", "extra_params")
"""Known fields that change nothing here; they are named in X-Ignored-Fields."""


class VoiceId(BaseModel):
    """A voice by its id."""

    id: str = Field(max_length=128)


class Reference(BaseModel):
    """A clip with its words, the other form of `ref_audio` and `ref_text`."""

    audio_path: str = Field(description="A data: URL, or https: if the server allows it. Never a path.")
    text: str | None = None


class SpeechFields(BaseModel):
    """The JSON body of POST /v1/audio/speech."""

    model_config = ConfigDict(extra="allow", title="SpeechRequest")

    input: str = Field(description="The text to speak.")
    model: str | None = Field(None, description="A name of /v1/models: the model's, an adapter's, or OpenAI's tts-1.")
    voice: str | VoiceId | None = Field(
        None,
        validation_alias=AliasChoices("voice", "speaker"),
        description="Name or id of a voice of /v1/audio/voices.",
    )
    instructions: str | None = Field(None, max_length=1000, description="The voice or the style in words.")
    response_format: str | None = Field(
        None, description="mp3 (default), opus, aac, flac, wav, pcm (16-bit) or m4a; mono."
    )
    sample_rate: int | None = Field(None, description="Hz of the audio. Default: 24000 for pcm, otherwise the model's.")
    speed: float = Field(1.0, ge=0.25, le=4.0, description="Tempo; the pitch stays.")
    stream_format: Literal["sse", "audio"] | None = Field(None, description="Send audio as it is made.")
    stream: bool | None = Field(None, description="true: as stream_format, by default sse; false: one whole answer.")
    task_type: Literal["CustomVoice", "VoiceDesign", "Base"] | None = Field(
        None, description="Checked against the other fields: VoiceDesign needs instructions, Base needs ref_audio."
    )
    language: str | None = Field(None, description="Without effect: the model takes it from the text.")
    ref_audio: str | list[str] | None = Field(None, description="A clip whose voice is used: a data: URL.")
    ref_text: str | None = Field(
        None, max_length=4096, description="The words of ref_audio: the speech then continues the clip."
    )
    consent: str | None = Field(
        None, max_length=64, description="Id of the speaker's consent to use ref_audio, for servers that require it."
    )
    references: list[Reference] | None = Field(None, description="ref_audio and ref_text in another form; at most one.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="The same seed gives the same audio.")
    max_new_tokens: int | None = Field(None, ge=1, description="Most patches of 160 ms.")
    cfg_value: float = Field(2.0, ge=0.1, le=10.0, description="Guidance.")
    inference_timesteps: int | None = Field(None, ge=1, le=100, description="Solver steps. Default: those of quality.")
    quality: Quality = Field("quality", description="Solver steps: quality 10, balanced 6, fast 4.")
    min_len: int = Field(2, ge=0, le=2000, description="Stop decisions count after this patch.")
    normalize: bool = Field(False, description="Write out numbers and the like first.")
    long: bool = Field(False, description="A long text: spoken piece by piece in one voice.")
    strict: bool = Field(False, description="An unknown field is an error.")
    x_vector_only_mode: bool | None = None
    speaker_embedding: list[float] | None = None
    ref_audio_2: str | None = None
    ambient_sound: str | None = None
    duration_seconds: float | None = None
    word_timestamps: bool | None = None
    initial_codec_chunk_frames: int | None = None
    non_streaming_mode: bool | None = None
    extra_params: dict[str, Any] | None = None

    def voice_name(self) -> str | None:
        """Return the name or id of the voice; None for none."""
        name = self.voice.id if isinstance(self.voice, VoiceId) else self.voice
        return None if name is None or name.strip().lower() in ("", DEFAULT_VOICE) else name


KNOWN = (*SpeechFields.model_fields, "speaker")
assert set(STEPS) == set(get_args(Quality))


def read_json(raw: bytes, halves: bool = False) -> dict[str, Any]:
    """Return a JSON body. Raises ApiError: 400 if it is not an object or nested too deeply, 413 if it holds too much.

    halves: take halves of surrogate pairs, which another message may complete.
    """
    if _holds_too_much(raw):
        raise _too_full(f"{MOST_BESIDE // 2**20} MiB beside its texts and clips")
    try:
        body = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse)
        if b"\\u" in raw and not halves:
            # Half of a surrogate pair is JSON, but no text: it cannot be encoded.
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise invalid('the body is not JSON: send an object such as {"input": "Hello"}') from None
    if not isinstance(body, dict):
        raise invalid('the body is not a JSON object: send one such as {"input": "Hello"}')
    _check_values(body)
    return body


def _too_full(what: str) -> ApiError:
    return ApiError(413, f"the body has more than {what}: leave out what has no effect", code="body_too_large")


def _holds_too_much(raw: bytes) -> bool:
    """Return True if a body has too many bytes beside its long strings, before it costs the time of reading it."""
    if len(raw) <= MOST_BESIDE:
        return False
    if raw.count(b"\\") > MOST_BESIDE:
        return True
    beside = end = 0
    for string in _STRING.finditer(raw):
        length = string.end() - string.start()
        beside += string.start() - end + (length if length < LONG_STRING else 0)
        end = string.end()
        if beside > MOST_BESIDE:
            return True
    return beside + len(raw) - end > MOST_BESIDE


def _refuse(name: str) -> None:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(name)


def _check_values(body: dict[str, Any]) -> None:
    """Raise ApiError if a body is nested too deeply or has too many values."""
    level: list[Any] = [body]
    count = 0
    for _ in range(DEPTH):
        inner: list[Any] = []
        for value in level:
            count += len(value)
            if count > MOST_VALUES:
                raise _too_full(f"{MOST_VALUES:,} values")
            inner += (
                one for one in (value.values() if isinstance(value, dict) else value) if isinstance(one, dict | list)
            )
        if not inner:
            return
        level = inner
    raise invalid(f"the body is nested more than {DEPTH} deep")


def read_fields(body: dict[str, Any], strict: bool = False) -> tuple[SpeechFields, list[str]]:
    """Return the fields of a body, and the names of those that have no effect.

    Raises ApiError (400) for a wrong value, a field that the model cannot obey, and, if `strict` here or in the body, for an
    unknown field; it names the nearest known one.
    """
    # Clients that fill in all fields send null for those that they do not use, also for numbers.
    body = {name: value for name, value in body.items() if value is not None or name not in KNOWN}
    try:
        fields = SpeechFields.model_validate(body)
    except ValidationError as error:
        raise _wrong_value(error) from None
    unknown = list(fields.model_extra or {})
    if unknown and (strict or fields.strict):
        name = unknown[0][:64]
        near = difflib.get_close_matches(name, KNOWN, 1, 0.5)
        hint = f": did you mean {near[0]!r}?" if near else ": leave it out"
        raise invalid(f"unknown field {name!r}{hint}", name, "unknown_field")
    for name, words in UNSUPPORTED.items():
        if getattr(fields, name):
            raise invalid(f"{name}: {words}", name, "unsupported_field")
    return fields, [*unknown, *(name for name in WITHOUT_EFFECT if getattr(fields, name) is not None)]


def _wrong_value(error: ValidationError) -> Exception:
    """Return the first fault as one line. The value is not repeated: it may be a text or a clip."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in fault["loc"] if not (isinstance(part, str) and part[:1].isupper())) or "body"
    name = name.removesuffix(".str").removesuffix(".list[str]")
    if fault["type"] == "missing":
        return invalid(f"{name} is missing: send the text to speak" if name == "input" else f"{name} is missing", name)
    return invalid(f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}", name)
