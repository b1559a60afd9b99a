"""From the fields of a request to calls of the engine and the form of the answer. It makes all checks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from voxcpm.sequence.text_pieces import split_text
from voxcpm.server.calls import SpeechCall, admit
from voxcpm.server.encode import FORMATS, HIGHEST_RATE, LOWEST_RATE
from voxcpm.server.errors import UnknownVoice, invalid, not_found, unknown
from voxcpm.server.presets import PRESETS
from voxcpm.server.process.messages import VoicePrompt
from voxcpm.server.speech.fields import STEPS, SpeechFields

if TYPE_CHECKING:
    from voxcpm.server.access.keys import Key, Ticket
    from voxcpm.server.state import ServerState

PIECE_S = 12.0
"""Longest piece of a long text, in estimated seconds of speech."""
AT_ONCE = 8192
"""Characters that are divided in the event loop; a longer text takes up to a second, and a thread does it."""
Mode = Literal["whole", "audio", "sse"]
WHOLE_BY_DEFAULT = ("wav", "flac", "m4a")
"""Formats whose header holds their length: without `stream` and `stream_format` they are sent whole, the others as made."""


@dataclass(frozen=True)
class Prepared:
    """A request that has passed all checks."""

    call: SpeechCall
    pieces: tuple[str, ...]  #: texts spoken one after the other in one voice; one, unless the text is long
    format: str
    rate: int  #: Hz of the answer
    speed: float
    mode: Mode
    model: str  #: the model's own name, or the adapter's; never an alias such as tts-1
    ignored: tuple[str, ...]  #: fields without effect


async def prepare(state: ServerState, fields: SpeechFields, ignored: list[str], mode: Mode | None = None) -> Prepared:
    """Check the fields against the server and read the voice. mode: the form of the answer whatever the fields say, as in batches.

    Raises ApiError: 404 for an unknown model or voice, 400 for everything else that cannot be done.
    """
    return await _with_voice(state, fields, await _checked(state, fields, ignored, mode))


async def prepare_admitted(
    state: ServerState,
    fields: SpeechFields,
    ignored: list[str],
    key: Key | None,
    mode: Mode | None = None,
    begun: bool = False,
) -> tuple[Prepared, Ticket]:
    """Prepare a request and admit it, before a clip is decoded and encoded for it; the ticket has to be closed.

    begun: part of a request that runs, which also a server that stops completes. Raises ApiError as `prepare` and `admit` do.
    """
    checked = await _checked(state, fields, ignored, mode)
    characters = len(fields.input) + len(_description(fields))
    ticket = await (state.keys.admit(key, characters) if begun else admit(state, key, characters))
    try:
        return await _with_voice(state, fields, checked), ticket
    except BaseException:
        ticket.close(0.0, refused=True)
        raise


async def _checked(state: ServerState, fields: SpeechFields, ignored: list[str], mode: Mode | None) -> Prepared:
    if len(fields.input) <= AT_ONCE:
        return _check(state, fields, ignored, mode)
    return await asyncio.to_thread(_check, state, fields, ignored, mode)


def _check(state: ServerState, fields: SpeechFields, ignored: list[str], mode: Mode | None) -> Prepared:
    """Make all checks that need no clip. The voice is still missing."""
    settings = state.settings
    about = state.link.about
    adapter, model = _model(state, fields.model)
    form = _format(fields.response_format or settings.default_format)
    rate = _rate(form, fields.sample_rate, settings.pcm_hertz, about.sample_rate)
    mode = mode or _mode(fields, form)
    ignored = [*ignored, *_unused(fields, mode, settings.require_consent)]
    pieces = _pieces(state, fields)
    if description := _description(fields):
        pieces = (f"({description}){pieces[0]}", *pieces[1:])
    most = max(1, int(settings.max_seconds / about.patch_seconds))
    longest = min(fields.max_new_tokens or most, most)
    if (
        "min_len" in fields.model_fields_set
        and fields.max_new_tokens is not None
        and fields.min_len > fields.max_new_tokens
    ):
        raise invalid(f"min_len {fields.min_len} is above max_new_tokens {fields.max_new_tokens}", "min_len")
    call = SpeechCall(
        text=pieces[0],
        seed=fields.seed,
        cfg=fields.cfg_value,
        steps=fields.inference_timesteps or STEPS[fields.quality],
        min_len=min(fields.min_len, longest),
        max_len=longest,
        kind="whole" if mode == "whole" else "live",
        deadline_s=None if mode == "whole" else settings.deadline,
        adapter=adapter,
        normalize=fields.normalize,
    )
    return Prepared(call, pieces, form, rate, fields.speed, mode, model, tuple(ignored))


async def _with_voice(state: ServerState, fields: SpeechFields, checked: Prepared) -> Prepared:
    """Read the voice, and make the checks that need it."""
    voice = await _voice(state, fields)
    description = _description(fields)
    _check_task(fields, description, voice)
    if description and voice is not None and voice.prompt is not None:
        raise invalid("instructions: a voice with ref_text continues a clip, which sets the style: leave one out",
                      "instructions")  # fmt: skip
    return replace(checked, call=replace(checked.call, voice=voice))


def _description(fields: SpeechFields) -> str:
    return (fields.instructions or "").strip()


def _model(state: ServerState, name: str | None) -> tuple[str | None, str]:
    """Return (adapter or None, name of the model)."""
    if name is None:
        return None, state.settings.model_name
    models = state.models
    if name not in models:
        raise not_found(unknown("model", name, models), "model", "model_not_found")
    return models[name], models[name] or state.settings.model_name


def _format(name: str) -> str:
    if name not in FORMATS:
        raise invalid(unknown("response_format", name, FORMATS), "response_format")
    return name


def _rate(form: str, asked: int | None, pcm_rate: int | None, native: int) -> int:
    """Return the sample rate of an answer, Hz."""
    rates = FORMATS[form].rates
    if asked is None:
        wanted = (pcm_rate or native) if form == "pcm" else native
        # The lowest rate that loses nothing.
        return min((rate for rate in rates if rate >= wanted), default=max(rates)) if rates else wanted
    if not LOWEST_RATE <= asked <= HIGHEST_RATE:
        raise invalid(f"sample_rate {asked} is outside {LOWEST_RATE}..{HIGHEST_RATE} Hz", "sample_rate")
    if rates and asked not in rates:
        near = min(rates, key=lambda rate: abs(rate - asked))
        raise invalid(f"sample_rate {asked}: the nearest rate that {form} has is {near}", "sample_rate")
    return asked


def _mode(fields: SpeechFields, form: str) -> Mode:
    asked = fields.stream_format or ("sse" if fields.stream else None)
    if fields.stream is False or (asked is None and form in WHOLE_BY_DEFAULT):
        return "whole"
    if asked is not None and not FORMATS[form].streams:
        raise invalid(
            f"response_format {form} cannot be streamed: leave out stream and stream_format", "response_format"
        )
    return asked or "audio"


def _unused(fields: SpeechFields, mode: Mode, require_consent: bool) -> list[str]:
    """Return the names of fields that another one, or the server's settings, make useless."""
    streams = ("stream", "stream_format") if mode == "whole" else ()
    found = [name for name in streams if getattr(fields, name)]
    clip = _clip(fields)[0] is not None
    # A consent is for a clip, and it is read by a server that checks it only.
    if fields.consent is not None and not (require_consent and clip):
        found.append("consent")
    # OpenAI's clients always send a voice: one of its names beside a clip does not contradict it, and the clip counts.
    return found + (["voice"] if clip and fields.voice_name() is not None else [])


def _pieces(state: ServerState, fields: SpeechFields) -> tuple[str, ...]:
    settings = state.settings
    most = settings.max_long_characters if fields.long else settings.max_characters
    if len(fields.input) > most:
        more = "" if fields.long else f', with "long": true {settings.max_long_characters}'
        raise invalid(f"input has {len(fields.input)} characters: at most {most} are spoken{more}", "input",
                      "string_above_max_length")  # fmt: skip
    if not any(letter.isalnum() for letter in fields.input):
        raise invalid("input holds nothing to say: send a text with letters or digits", "input")
    if not fields.long:
        return (fields.input,)
    pieces = split_text(fields.input, PIECE_S)
    return tuple(pieces)


async def _voice(state: ServerState, fields: SpeechFields) -> VoicePrompt | None:
    """Return the voice: of a clip in the request, or a stored one."""
    source, words, param = _clip(fields)
    name = fields.voice_name()
    if source is None:
        if words:
            raise invalid("ref_text: it is the words of ref_audio, which is missing", "ref_text")
        return None if name is None else await _stored(state, name)
    if state.references is None or state.settings.stored_only:
        raise invalid(f"{param}: this server takes stored voices only: name one in voice", param)
    # One of OpenAI's names is named as a field without effect (`_unused`).
    if name is not None and name.lower() not in PRESETS:
        raise invalid(f"{param}: voice {name[:64]!r} and a clip exclude each other: leave one out", param)
    if words:
        prompt = await state.references.read(source, param, "left", fields.consent)
        return VoicePrompt(prompt=prompt, prompt_text=words)
    return VoicePrompt(reference=await state.references.read(source, param, consent=fields.consent))


def _clip(fields: SpeechFields) -> tuple[str | None, str, str]:
    """Return (URL of the clip, its words, name of the field)."""
    if fields.references:
        if fields.ref_audio is not None or len(fields.references) > 1:
            raise invalid("references: one clip at most: leave out the others", "references")
        (one,) = fields.references
        return one.audio_path, (one.text or "").strip(), "references"
    source = fields.ref_audio
    if isinstance(source, list):
        if len(source) > 1:
            raise invalid("ref_audio: the model takes one clip: leave out the others", "ref_audio")
        source = source[0] if source else None
    return source or None, (fields.ref_text or "").strip(), "ref_audio"


async def _stored(state: ServerState, name: str) -> VoicePrompt | None:
    if state.voices is not None:
        return await state.voices.resolve(name)
    if name.lower() in PRESETS:
        return None
    raise UnknownVoice(name, PRESETS)


def _check_task(fields: SpeechFields, description: str, voice: VoicePrompt | None) -> None:
    """Raise ApiError if task_type says something else than the other fields."""
    if fields.task_type == "VoiceDesign" and not description:
        raise invalid("task_type VoiceDesign describes a voice: send instructions", "task_type")
    if fields.task_type == "Base" and voice is None:
        raise invalid("task_type Base clones a voice: send ref_audio", "task_type")
