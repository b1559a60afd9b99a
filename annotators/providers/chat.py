"""Any server that speaks OpenAI's chat format and takes audio: vLLM, SGLang, DashScope, OpenAI, Step-Audio's own image."""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from annotators.providers.http import (
    MOST_PAUSES,
    HttpReply,
    ask,
    check,
    checked_url,
    error_text,
    host_of,
    is_private,
    json_object,
    new_client,
    sse_events,
)
from annotators.providers.keys import Key, environment_key, redacted, without
from annotators.providers.questions import Answered, Questions, count, plausible
from annotators.providers.remote import Ask, RefusedError, Reply, Request, Tokens, TransientError
from annotators.questions.wire import seal, strip_reasoning
from catalogs.vocabulary.voices import CAPTION_LANGUAGES

if TYPE_CHECKING:
    import httpx2

KEY = "VOXMILL_CHAT_API_KEY"


class Chat(Questions):
    """Describe clips by a model on a server of OpenAI's chat format.

    `free` if the server is on this machine or in a private network and VOXMILL_CHAT_API_KEY is not set.
    Raises ValueError without a model or a base URL, and for a wrong one.
    """

    name = "chat"
    kind = "chat"
    dialect = "openai"

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        languages: Sequence[str] = CAPTION_LANGUAGES,
        *,
        clips: int | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        if not model or not base_url:
            raise ValueError("chat has no default server: give --model and --base-url, e.g. http://127.0.0.1:8000/v1")
        super().__init__(model, languages, clips)
        self.base_url = checked_url(base_url)
        self.timeout_s = timeout_s
        self.free = is_private(self.base_url) and not environment_key(KEY)
        self._http: httpx2.AsyncClient | None = None

    async def send(self, request: Request) -> Reply:
        """Send one request, once. Raises TransientError, RefusedError, QuotaError or FatalError."""
        key, host = environment_key(KEY), host_of(self.base_url)
        content = await asyncio.to_thread(self._encoded, request)
        client = self._client()
        headers = {"content-type": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {key.reveal()}"
        url = f"{self.base_url}/chat/completions"
        sent = client.build_request("POST", url, content=content, headers=headers)
        reply = await ask(client, sent, key, most_s=MOST_PAUSES * self.timeout_s)
        check(reply, host, key)
        return reply_of(reply.body, tuple(one.seconds for one in request.asks), host, key)

    def body_bytes(self, ask: Ask) -> int:
        """Return the bytes that a clip adds to the body of a request, as WAV."""
        return int(ask.seconds * 32_000) * 4 // 3 + 2048

    def _encoded(self, request: Request) -> bytes:
        """Return the body of a request."""
        content: list[dict[str, Any]] = []
        for text, one in zip(self.introductions(request), request.asks, strict=True):
            content.append({"type": "text", "text": text})
            for wav in wavs_of(one.audio, self.profile.piece_s):
                audio = {"data": b64encode(wav).decode(), "format": "wav"}
                content.append({"type": "input_audio", "input_audio": audio})
        content.append({"type": "text", "text": self.closing(request)})
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": self.fixed_text}, {"role": "user", "content": content}],
            "max_tokens": self.output_tokens(len(request.asks)),
            **self.profile.sampling,
            **self.profile.extra,
        }
        if self.profile.structured:
            form = {"name": "descriptions", "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if self.profile.streams_only:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(body, ensure_ascii=False).encode()

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            self._http = new_client(self.timeout_s)
        return self._http

    def answered(self, body: str) -> Answered:
        """Return the text of the answer in a body, or why there is none."""
        found = completion(body)
        if found is None:
            return Answered(reason="invalid: the reply is not a chat completion")
        choice = _choice(found)
        finish = str(choice.get("finish_reason") or "")
        message = _message(choice)
        if finish == "content_filter" or message.get("refusal"):
            return Answered(reason="blocked:content_filter" if finish == "content_filter" else "blocked:refusal")
        if finish == "length":
            return Answered(reason="max_tokens")
        if finish not in ("stop", "eos", ""):
            return Answered(reason=f"invalid: the answer ended with {redacted(finish)[:60]}")
        text = strip_reasoning(_text(message), finish)
        return Answered(text) if text else Answered(reason="empty")

    async def close(self) -> None:
        """Close connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


def reply_of(body: str, seconds: tuple[float, ...], host: str, key: Key) -> Reply:
    """Return the reply with a body of status 200. Raises TransientError if it holds none: it may have been billed."""
    body = without(body, key)
    found = completion(body)
    if found is None:
        # Streams carry their errors inside.
        said = next((error_text(HttpReply(500, {}, event)) for event in sse_events(body) if '"error"' in event), "")
        text = f"{host} sent a reply with status 200 that is not a whole answer{f' ({said})' if said else ''}"
        raise TransientError(redacted(text, key), sent=True, status=200)
    choice = _choice(found)
    finish = str(choice.get("finish_reason") or "")
    message = _message(choice)
    refused = "refusal" if message.get("refusal") else None
    version = found.get("model")
    return Reply(
        text=_text(message) or None,
        finish=finish,
        blocked="content_filter" if finish == "content_filter" else refused,
        model_version=version if isinstance(version, str) and version else None,
        usage=_usage(found.get("usage"), bool(_text(message))),
        raw=seal(body, seconds),
    )


def wavs_of(flac: bytes, piece_s: float | None = None) -> Iterator[bytes]:
    """Yield a clip as WAV files (16-bit) of at most `piece_s` seconds each, of equal length to 1 sample.

    Raises RefusedError for audio that cannot be decoded.
    """
    import numpy as np
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16", always_2d=False)
    except soundfile.SoundFileError as error:
        raise RefusedError(f"the audio of a clip cannot be decoded ({redacted(str(error))})") from None
    pieces = 1 if piece_s is None else max(1, -(-len(samples) // int(piece_s * rate)))
    for piece in np.array_split(samples, pieces):
        sink = io.BytesIO()
        soundfile.write(sink, piece, rate, format="WAV", subtype="PCM_16")
        yield sink.getvalue()


def completion(body: str) -> dict[str, Any] | None:
    """Return the chat completion in a body, put together from its events if it is a stream; None if there is none or not all."""
    found = json_object(body)
    if found is None:
        return _assembled(sse_events(body))
    return found if _choice(found) else None


def _assembled(events: Sequence[str]) -> dict[str, Any] | None:
    """Return one completion from the chunks of a stream, or None if it broke off before the reason of its end."""
    texts: dict[str, list[str]] = {"content": [], "refusal": [], "tts_text": []}
    whole: dict[str, Any] = {}
    finish = None
    for event in events:
        chunk = json_object(event)
        if chunk is None:
            continue
        if chunk.get("error"):
            return None
        whole |= {name: chunk[name] for name in ("model", "usage") if chunk.get(name)}
        choice = _choice(chunk)
        delta = choice.get("delta")
        delta = delta if isinstance(delta, Mapping) else {}
        spoken = delta.get("tts_content")
        for name, source in (("content", delta), ("refusal", delta), ("tts_text", spoken)):
            part = source.get(name) if isinstance(source, Mapping) else None
            if isinstance(part, str):
                texts[name].append(part)
        finish = choice.get("finish_reason") or finish
    if finish is None:
        return None
    joined = {name: "".join(parts) for name, parts in texts.items()}
    message = {
        "content": joined["content"],
        "refusal": joined["refusal"],
        "tts_content": {"tts_text": joined["tts_text"]},
    }
    return {**whole, "choices": [{"finish_reason": finish, "message": message}]}


def _choice(found: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = found.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else {}


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, Mapping) else {}


def _text(message: Mapping[str, Any]) -> str:
    """Return the text of a message. Step-Audio may put it beside the content, other servers in parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "".join(part for part in parts if isinstance(part, str))
    if isinstance(content, str) and content.strip():
        return content
    spoken = message.get("tts_content")
    text = spoken.get("tts_text") if isinstance(spoken, Mapping) else None
    return text if isinstance(text, str) else ""


def _usage(said: object, spoke: bool) -> Tokens | None:
    """Return the tokens that are billed, or None if they are not stated in full. If the share of audio is not stated, all input
    counts as audio, the dearer. spoke: whether there is text that must have been billed."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    if not isinstance(said, Mapping) or not plausible(said, names) or not count(said.get("prompt_tokens")):
        return None
    prompt = count(said.get("prompt_tokens"))
    details = said.get("prompt_tokens_details")
    details = details if isinstance(details, Mapping) else {}
    stated = "audio_tokens" in details
    audio = min(prompt, count(details.get("audio_tokens"))) if stated else prompt
    cached = min(prompt, count(details.get("cached_tokens")))
    out = max(count(said.get("completion_tokens")), count(said.get("total_tokens")) - prompt)
    if spoke and not out:
        return None
    return Tokens(prompt - audio, audio, cached, out)
