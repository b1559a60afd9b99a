"""The voices that a request may name: stored ones, and OpenAI's names, which are designed when they are first asked for."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxcpm.errors import AudioError
from voxcpm.server.access.keys import Ticket
from voxcpm.server.calls import SpeechCall, speak
from voxcpm.server.errors import ApiError, UnknownVoice, invalid
from voxcpm.server.presets import DESIGN_PATCHES, PRESETS, Design
from voxcpm.server.process.messages import Clip, Latents, VoicePrompt
from voxcpm.server.references.cache import ClipCache
from voxcpm.server.voices.checks import HOW, ConsentChecks, read_checked
from voxcpm.server.voices.files import Tensors
from voxcpm.server.voices.store import Voice, VoiceFolder, clean_name

if TYPE_CHECKING:
    from voxcpm.server.access.keys import Key
    from voxcpm.server.state import ServerState

log = logging.getLogger("voxcpm.server")


class VoiceLibrary:
    """Stored voices and presets. Without a folder, presets are designed again after a restart, and nothing can be stored."""

    def __init__(self, state: ServerState, clips: ClipCache, checks: ConsentChecks | None = None) -> None:
        """checks: of consents; None without a folder of voices."""
        self._state, self._clips, self.checks = state, clips, checks
        folder: Path | None = state.settings.voices
        self.folder = VoiceFolder(folder) if folder is not None else None
        self._presets: dict[str, VoicePrompt] = {}
        self._designing: dict[str, asyncio.Task[VoicePrompt]] = {}

    def names(self) -> list[str]:
        """Return the names of all voices."""
        return sorted({*PRESETS, *(voice.name for voice in self.stored())})

    def stored(self) -> list[Voice]:
        """Return the records of the stored voices by name."""
        return self.folder.all() if self.folder is not None else []

    async def resolve(self, name: str) -> VoicePrompt:
        """Return a voice by its name or id. A preset is designed first if it was not yet. Raises ApiError."""
        voice = self.folder.find(name) if self.folder is not None else None
        lower = name.strip().lower()
        if lower in PRESETS and (voice is None or self._is_outdated(voice)):
            return await self._preset(lower)
        if voice is None or self.folder is None:
            raise UnknownVoice(name, self.names())
        await self._check_consent(voice)
        try:
            tensors = self.folder.latents(voice)
        except ValueError as error:
            raise ApiError(
                500, f"voice {voice.name}: {error}", "server_error", "voice", "voice_damaged", retry=False
            ) from None
        found = {name: _message(value) for name, value in tensors.items()}
        prompt = found.get("audio_feat")
        reference = found.get("ref_audio_feat")
        if prompt is not None and not self._state.link.about.takes_references:
            reference = None
        return VoicePrompt(reference, prompt, voice.ref_text if prompt is not None else "")

    async def usable(self) -> list[str]:
        """Return the names of `names` without stored voices whose consent is required and does not count today."""
        return await asyncio.to_thread(
            lambda: sorted({*PRESETS, *(voice.name for voice in self.stored() if self._has_consent(voice))})
        )

    def _has_consent(self, voice: Voice) -> bool:
        """Return True if a request may use a stored voice today: this server requires no consent of it, or its consent counts."""
        checks = self.checks
        if not self._state.settings.require_consent or voice.kind != "uploaded" or checks is None:
            return True
        found = read_checked(checks.folder, voice.consent_record)
        return found is not None and found.covers(voice.clip_sha256)

    async def _check_consent(self, voice: Voice) -> None:
        """Raise ApiError (403) if this server requires a consent and an uploaded voice has none that counts today."""
        if not await asyncio.to_thread(self._has_consent, voice):
            words = f"voice {voice.name} has no checked consent that counts today: delete it, {HOW}, and add the voice again"
            raise ApiError(403, words, "permission_error", "voice", "consent_required")

    def _is_outdated(self, voice: Voice) -> bool:
        """Return True if a preset was designed by another checkpoint."""
        return voice.kind == "designed" and voice.checkpoint != self._state.link.about.digest

    async def _preset(self, name: str) -> VoicePrompt:
        """Design a preset, once for all who ask at the same time."""
        if name in self._presets:
            return self._presets[name]
        if name not in self._designing:
            self._designing[name] = asyncio.create_task(self._make_preset(name))
            self._designing[name].add_done_callback(lambda done: self._made(name, done))
        return await asyncio.shield(self._designing[name])

    def _made(self, name: str, done: asyncio.Task[VoicePrompt]) -> None:
        del self._designing[name]
        if not done.cancelled():
            done.exception()  # Retrieved: all who waited may have been cancelled.

    async def _make_preset(self, name: str) -> VoicePrompt:
        design = PRESETS[name]
        # Part of a request that was admitted.
        made = await self._design(design, None, Ticket())
        self._presets[name] = made
        if self.folder is not None:
            voice = self._designed(name, design, made)
            try:
                await asyncio.to_thread(self.folder.add, voice, _tensors(made), True)
            except (OSError, ValueError) as error:
                # Requests use the voice in memory; it is designed again after a restart.
                log.warning(
                    "voice %s is not kept: the voices folder is full or not writable (%s)", name, type(error).__name__
                )
        return made

    async def design(self, name: str, design: Design, key: Key | None = None) -> Voice:
        """Design a voice and store it. Raises ApiError."""
        folder, name = self._writable(name)
        if not self._state.link.about.takes_references:
            raise invalid("this checkpoint is VoxCPM 0.5B or VoxCPM1.5, which designs no voices from words: upload a clip with "
                          "ref_text, or use VoxCPM2", "prompt")  # fmt: skip
        made = await self._design(design, key)
        voice = self._designed(name, design, made)
        await _add(folder, voice, _tensors(made))
        return voice

    def _designed(self, name: str, design: Design, made: VoicePrompt) -> Voice:
        return Voice(
            name,
            "designed",
            ref_text=made.prompt_text,
            seconds=self._seconds(*_parts(made).values()),
            description=design.description,
            seed=design.seed,
            checkpoint=self._state.link.about.digest,
        )

    async def _design(self, design: Design, key: Key | None, ticket: Ticket | None = None) -> VoicePrompt:
        """Speak the design's text and encode what was spoken.

        A model without references also reads no descriptions: the seed alone makes its voice, which is a prompt with its words.
        """
        link = self._state.link
        referred = link.about.takes_references
        text = design.prompt if referred else design.words
        call = SpeechCall(text, seed=design.seed, max_len=DESIGN_PATCHES, kind="whole")
        async with await speak(self._state, call, key, ticket) as speech:
            samples = [part async for part in speech]
        clip = Clip(link.about.sample_rate, np.concatenate(samples).astype("<f4").tobytes())
        if referred:
            return VoicePrompt(reference=await link.encode(clip))
        return VoicePrompt(prompt=await link.encode(clip, "left"), prompt_text=text)

    async def upload(
        self,
        name: str,
        clip: bytes,
        consent: str,
        ref_text: str = "",
        speaker_description: str = "",
        mime_type: str = "",
    ) -> Voice:
        """Encode a clip and store it as a voice. consent: a statement or the id of a consent. Raises ApiError."""
        folder, name = self._writable(name)
        if not consent.strip():
            raise invalid(
                "a voice needs consent: the speaker's statement, or the id of a consent", "consent", "consent_missing"
            )
        record, checks = "", self.checks
        try:
            if self._state.settings.require_consent and checks is not None:
                record = (await checks.require(consent.strip(), clip, "audio_sample")).id
            reference = await self._clips.latents(clip, "right")
            tensors = _arrays(reference)
            if ref_text:
                tensors = {**tensors, "audio_feat": _array(await self._clips.latents(clip, "left"))}
        except AudioError as error:
            raise invalid(str(error), "audio_sample", "invalid_audio") from None
        voice = Voice(
            name,
            "uploaded",
            consent=consent.strip(),
            clip_sha256=hashlib.sha256(clip).hexdigest(),
            consent_record=record,
            ref_text=ref_text,
            speaker_description=speaker_description,
            mime_type=mime_type,
            file_size=len(clip),
            seconds=self._seconds(reference),
            checkpoint=self._state.link.about.digest,
        )
        await _add(folder, voice, tensors)
        return voice

    async def delete(self, name: str) -> Voice:
        """Delete a stored voice by its name or id. Raises ApiError if there is none."""
        voice = await asyncio.to_thread(self.folder.delete, name) if self.folder is not None else None
        if voice is None:
            raise UnknownVoice(name, (stored.name for stored in self.stored()))
        self._presets.pop(voice.name, None)
        return voice

    def _seconds(self, latents: Latents) -> float:
        return round(latents.shape[0] * self._state.link.about.patch_seconds, 3)

    def _writable(self, name: str) -> tuple[VoiceFolder, str]:
        """Return (the folder, the name in lower case). Raises ApiError if a voice cannot be stored under this name."""
        if self.folder is None:
            raise ApiError(403, "this server stores no voices: start it with --voices FOLDER", code="voices_not_stored")
        try:
            name = clean_name(name)
        except ValueError as error:
            raise invalid(str(error), "name", "invalid_name") from None
        earlier = self.folder.find(name)
        if earlier is not None and not (name in PRESETS and earlier.kind == "designed"):
            raise ApiError(
                409,
                f"there is a voice {name!r}: delete it first, or choose another name",
                param="name",
                code="voice_exists",
            )
        return self.folder, name


async def _add(folder: VoiceFolder, voice: Voice, tensors: Tensors) -> None:
    """Store a voice. A preset that was designed gives way. Raises ApiError."""
    try:
        await asyncio.to_thread(folder.add, voice, tensors, voice.name in PRESETS)
    except FileExistsError as error:
        raise ApiError(409, str(error), param="name", code="voice_exists") from None
    except ValueError as error:
        raise invalid(str(error), "name", "too_many_voices") from None
    except OSError:
        raise ApiError(
            507, "the voice cannot be stored: the server's disk is full or not writable", "server_error"
        ) from None


def _message(value: NDArray[np.float32]) -> Latents:
    patches, size, width = value.shape
    return Latents((patches, size, width), value.astype("<f4").tobytes())


def _array(latents: Latents) -> NDArray[np.float32]:
    return np.frombuffer(latents.data, "<f4").reshape(latents.shape).astype(np.float32)


def _arrays(latents: Latents) -> Mapping[str, NDArray[np.float32]]:
    return {"ref_audio_feat": _array(latents)}


def _parts(voice: VoicePrompt) -> dict[str, Latents]:
    """Return the latents of a designed voice by the name of their tensor."""
    parts = {"ref_audio_feat": voice.reference, "audio_feat": voice.prompt}
    return {name: part for name, part in parts.items() if isinstance(part, Latents)}


def _tensors(voice: VoicePrompt) -> Tensors:
    return {name: _array(part) for name, part in _parts(voice).items()}
