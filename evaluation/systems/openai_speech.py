"""A server that speaks OpenAI's `POST /v1/audio/speech` as a system: `openai:URL`.

vLLM-Omni, SGLang-Omni, Kokoro-FastAPI, OpenAI and others have this route. What a server takes besides OpenAI's fields differs,
so those fields are named by options.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from annotators.providers.http import (
    MOST_BYTES,
    BinaryReply,
    checked_url,
    error_text,
    fetch,
    host_of,
    new_client,
    refusal,
)
from annotators.providers.keys import environment_key, redacted
from annotators.providers.remote import FatalError, QuotaError, RemoteError, TransientError
from catalogs.files import one_line
from evaluation.errors import EvaluationError, SpeakError, TimedOutError
from evaluation.systems.base import Ask, Speech
from evaluation.systems.options import Options, read_options
from evaluation.systems.spoken_bytes import decoded

MOST_AUDIO_BYTES = 256 << 20
WAV_HEADER = 44
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0


class OpenAIOptions(Options):
    """Options of `openai:`."""

    model: str = "tts-1"
    """Name of the model at the server."""
    voice: str = "alloy"
    """Name of the voice, if `voices` is not set."""
    voices: dict[str, str] = Field(default_factory=dict)
    """Name of the voice by speaker: the item's group `speaker`, or the file name of its reference clip without ending."""
    format: Literal["wav", "pcm", "flac", "mp3"] = "wav"
    """Format of the reply."""
    pcm_rate: int = 24_000
    """Samples per second of `pcm` if the reply does not say (X-Sample-Rate)."""
    speed: float | None = None
    """Speaking rate; default: the server's."""
    stream: bool = False
    """Ask for a streamed body (stream_format=audio) and measure the time to the first audio."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request."""
    send_reference: str | None = None
    """Name of a field that gets the reference clip in base64, such as `ref_audio`."""
    data_url: bool = False
    """Whether the clip is sent as a data: URL, as vLLM-Omni wants it."""
    send_reference_text: str | None = None
    """Name of a field that gets the words of the clip, such as `ref_text`."""
    send_language: str | None = None
    """Name of a field that gets the language's code."""
    send_seed: str | None = None
    """Name of a field that gets the seed. Without it, only one seed of a run is asked for."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable of the key; unset: no key is sent."""
    batch: int = 1
    """Requests that are sent at once."""
    retries: int = 4
    """Further requests after status 429 or 5xx, or a broken connection."""
    timeout_s: float = 120.0
    """Longest time of one text with its retries, in seconds."""


class OpenAISpeech:
    """Speaks by a server. Raises EvaluationError for a wrong URL or option."""

    options_kind = OpenAIOptions

    def __init__(self, argument: str, **options: Any) -> None:
        self.options = read_options(OpenAIOptions, "openai", options)
        try:
            base = checked_url(argument)
            self._key = environment_key(self.options.key_env)
        except (ValueError, FatalError) as error:
            raise EvaluationError(f"openai: {argument or '(nothing)'}: {_for_users(error)}") from None
        self.url = f"{base.removesuffix('/v1')}/v1/audio/speech"
        self.name = f"{self.options.model} at {host_of(self.url)}"
        self.batch = self.options.batch
        self.seeded = self.options.send_seed is not None
        # An httpx2.AsyncClient. Network clients are imported in annotators/providers only.
        self._http: Any = None
        self._loop: asyncio.Runner | None = None

    def describe(self) -> dict[str, Any]:
        """See `System`. The key, its variable and the limits of time are left out; of `voices` and `fields`, the digest is kept."""
        own = self.options.model_dump(
            mode="json", exclude_none=True, exclude={"voices", "fields", "key_env", "retries", "timeout_s"}
        )
        found = {"kind": "openai", "url": self.url, **own}
        for name, value in (("voices", self.options.voices), ("fields", self.options.fields)):
            if value:
                text = json.dumps(value, sort_keys=True)
                found[f"{name}_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        return found

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`. Raises EvaluationError if no text can succeed: a refused key, an unknown model, no server."""
        if self._loop is None:
            self._loop = asyncio.Runner()
        started = time.perf_counter()
        answers = self._loop.run(self._all(asks))
        wall = (time.perf_counter() - started) / max(len(asks), 1)
        if len(asks) == 1:
            return answers
        return [replace(one, wall_s=wall) if isinstance(one, Speech) else one for one in answers]

    def close(self) -> None:
        """See `System`."""
        loop, self._loop = self._loop, None
        http, self._http = self._http, None
        if loop is not None:
            if http is not None:
                loop.run(http.aclose())
            loop.close()

    # ------------------------------------------------------------------------------------------------------------------

    async def _all(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        if self._http is None:
            # The limit of a text ends a request, so the pause that the client allows is longer.
            try:
                self._http = new_client(timeout_s=self.options.timeout_s + 60)
            except FatalError as error:
                raise EvaluationError(f"openai: {error}") from None
        answers = await asyncio.gather(*(self._one(ask) for ask in asks), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, SpeakError):
                raise answer
        return [answer for answer in answers if isinstance(answer, Speech | SpeakError)]

    async def _one(self, ask: Ask) -> Speech:
        body = json.dumps(self._body(ask), ensure_ascii=False).encode()
        deadline = time.monotonic() + self.options.timeout_s
        wait = FIRST_WAIT_S
        tries = 0
        while True:
            tries += 1
            started = time.perf_counter()
            answer = await self._exchange(body, deadline - time.monotonic())
            if isinstance(answer, BinaryReply):
                return self._speech(answer, time.perf_counter() - started, tries)
            self._check_fatal(answer)
            if not isinstance(answer, TransientError):
                raise SpeakError(_for_users(answer))
            if time.monotonic() >= deadline:
                raise TimedOutError(f"{host_of(self.url)} gave no whole answer in {self.options.timeout_s:g} s")
            pause = wait if answer.retry_after is None else answer.retry_after
            if tries > self.options.retries or time.monotonic() + pause > deadline:
                break
            await asyncio.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT_S)
        if answer.status is None and not answer.sent:
            raise EvaluationError(f"{answer}; start the server, then run the same command again")
        raise SpeakError(f"{answer} (asked {tries} times)")

    async def _exchange(self, body: bytes, left_s: float) -> RemoteError | BinaryReply:
        """Send one request; return its reply of status 200, or what went wrong."""
        assert self._http is not None
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key.reveal()}"
        request = self._http.build_request("POST", self.url, content=body, headers=headers)
        request.extensions = {**request.extensions, MOST_BYTES: MOST_AUDIO_BYTES}
        after = WAV_HEADER if self.options.format == "wav" else 0
        try:
            reply = await fetch(self._http, request, self._key, most_s=max(left_s, 0.01), after=after)
        except RemoteError as error:
            return error
        return reply if reply.status == 200 else refusal(reply.text(), host_of(self.url), self._key)

    def _check_fatal(self, failed: RemoteError) -> None:
        if isinstance(failed, FatalError | QuotaError):
            raise EvaluationError(
                f"{_for_users(failed)}; no text can be spoken: correct it, then run the same command again"
            )

    def _body(self, ask: Ask) -> dict[str, Any]:
        """Return the request of an item. Raises SpeakError if the item has no voice or clip that is needed."""
        item, chosen = ask.item, self.options
        body: dict[str, Any] = {
            "model": chosen.model,
            "input": item.text,
            "voice": self._voice(ask),
            "response_format": chosen.format,
        }
        if chosen.speed is not None:
            body["speed"] = chosen.speed
        if item.instruction:
            body["instructions"] = item.instruction
        if chosen.stream:
            body["stream_format"] = "audio"
        if chosen.send_reference:
            if item.reference is None:
                raise SpeakError("the item has no reference clip (ref_audio), which option send_reference sends")
            body[chosen.send_reference] = _encoded(item.reference, chosen.data_url)
        if chosen.send_reference_text and item.reference_text:
            body[chosen.send_reference_text] = item.reference_text
        if chosen.send_language:
            body[chosen.send_language] = item.language
        if chosen.send_seed:
            body[chosen.send_seed] = ask.seed
        return body | chosen.fields

    def _voice(self, ask: Ask) -> str:
        voices, item = self.options.voices, ask.item
        if not voices:
            return self.options.voice
        names = [item.groups.get("speaker", ""), item.reference.stem if item.reference else ""]
        for name in names:
            if name in voices:
                return voices[name]
        raise SpeakError(
            f"option voices names no voice for {' or '.join(filter(None, names)) or 'an item without speaker'}"
        )

    def _speech(self, reply: BinaryReply, wall: float, tries: int) -> Speech:
        kind = reply.headers.get("content-type", "").partition(";")[0].strip()
        if kind == "text/event-stream" or kind.endswith("json") or reply.body[:1] == b"{":
            said = redacted(error_text(reply.text()), self._key)
            raise SpeakError(
                f"{host_of(self.url)} answered {kind or 'text'} instead of audio{f': {said}' if said else ''}"
            )
        rate = reply.headers.get("x-sample-rate", "")
        try:
            samples, found = decoded(
                reply.body, self.options.format, int(rate) if rate.isdigit() else self.options.pcm_rate
            )
        except ValueError as error:
            raise SpeakError(f"{host_of(self.url)}: {one_line(error)}") from None
        first = reply.first_s if self.options.stream else None
        return Speech(samples, found, wall, first, notes={"requests": tries} if tries > 1 else {})


def _encoded(clip: Path, data_url: bool) -> str:
    text = base64.b64encode(clip.read_bytes()).decode()
    kinds: Mapping[str, str] = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg"}
    return f"data:{kinds.get(clip.suffix.lower(), 'application/octet-stream')};base64,{text}" if data_url else text


def _for_users(error: BaseException) -> str:
    """Return a message of the annotators' client in the words of this command, which has no --base-url."""
    return (
        one_line(error)
        .replace("correct --base-url and the key", "correct the URL and the key")
        .replace("correct --base-url", "correct the URL")
    )
