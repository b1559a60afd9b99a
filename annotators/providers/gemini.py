"""Gemini over google-genai. The library's habits that cost money or leak the key are switched off, and we parse the text.

Off: following redirects (with the key), hidden repeats under aiohttp, continuation requests, automatic function calls, parsing.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from annotators.providers.http import (
    MOST_PAUSES,
    HttpReply,
    checked_url,
    host_of,
    json_object,
    new_client,
    refusal,
    safely,
    trusted,
)
from annotators.providers.keys import Key, environment_key, redacted, without
from annotators.providers.questions import Answered, Questions, count, plausible
from annotators.providers.remote import FatalError, RemoteError, Reply, Request, Tokens, TransientError
from annotators.questions.wire import seal
from catalogs.vocabulary.voices import CAPTION_LANGUAGES

if TYPE_CHECKING:
    import httpx2
    from google import genai
    from google.genai import types

KEY = "GEMINI_API_KEY"
URL = "https://generativelanguage.googleapis.com"
DEFAULT_MODEL = "gemini-3.8-flash"
BLOCKED = (
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION", "MODEL_ARMOR", "OTHER",
)  # fmt: skip
"""Reasons to end an answer that stand for a block of its content."""
_COUNTS = (
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "toolUsePromptTokenCount",
    "totalTokenCount",
)  # fmt: skip
HARMS = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
"""Filters that can be switched off: a description of a voice harms nobody, whatever is said."""


class Gemini(Questions):
    """Describe clips by a Gemini model, online. The key is in GEMINI_API_KEY; GOOGLE_GEMINI_BASE_URL names another server.

    Raises ValueError for a wrong model name, language or base URL.
    """

    name = "gemini"
    kind = "gemini"
    dialect = "gemini"
    default_model = DEFAULT_MODEL

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        languages: Sequence[str] = CAPTION_LANGUAGES,
        *,
        clips: int | None = None,
        timeout_s: float = 180.0,
    ) -> None:
        super().__init__(model or DEFAULT_MODEL, languages, clips)
        self.base_url = checked_url(base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or URL)
        self.timeout_s = timeout_s
        self.most_s = MOST_PAUSES * timeout_s
        self._http: httpx2.AsyncClient | None = None
        self._sdk: genai.Client | None = None

    def check(self) -> None:
        """Raise FatalError without a key or without google-genai."""
        self.key()
        if importlib.util.find_spec("httpx2") is None:
            raise FatalError("google-genai is not installed: install voxmill with the extra `annotate`")

    async def send(self, request: Request) -> Reply:
        """Send one request, once. Raises TransientError, RefusedError, QuotaError or FatalError."""
        key = self.key()
        client, contents, config = self._client(key), self._contents(request), self._config(len(request.asks))
        host = host_of(self.base_url)
        call = client.aio.models.generate_content(model=self.model, contents=contents, config=config)
        failed: RemoteError
        try:
            answer = await safely(call, host, key, most_s=self.most_s)
        except RemoteError:
            raise
        except Exception as error:
            # Errors of the library hold the request with its key: nothing of them may leave this block.
            failed = _failure(error, host, key)
        else:
            http = answer.sdk_http_response
            body = (http.body if http is not None else None) or ""
            return reply_of(body, tuple(ask.seconds for ask in request.asks), host, key)
        raise failed

    def _contents(self, request: Request) -> list[types.Content]:
        from google.genai import types

        parts: list[types.Part] = []
        for text, ask in zip(self.introductions(request), request.asks, strict=True):
            parts += [types.Part(text=text), types.Part.from_bytes(data=ask.audio, mime_type="audio/flac")]
        return [types.Content(role="user", parts=[*parts, types.Part(text=self.closing(request))])]

    def _config(self, clips: int) -> types.GenerateContentConfig:
        from google.genai import types

        thinking = self.profile.thinking
        return types.GenerateContentConfig(
            system_instruction=self.fixed_text,
            response_mime_type="application/json",
            response_json_schema=self.schema,
            max_output_tokens=self.output_tokens(clips),
            thinking_config=types.ThinkingConfig.model_validate(dict([thinking])) if thinking else None,
            safety_settings=[types.SafetySetting.model_validate(setting) for setting in _safety()],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            automatic_continuation=False,
            # The body as received: neither an unknown value nor another form makes the library fail after we were billed.
            should_return_http_response=True,
        )

    def body(self, request: Request) -> dict[str, Any]:
        """Return the same request in REST form, for files of requests."""
        from base64 import b64encode

        parts: list[dict[str, Any]] = []
        for text, ask in zip(self.introductions(request), request.asks, strict=True):
            audio = {"mimeType": "audio/flac", "data": b64encode(ask.audio).decode()}
            parts += [{"text": text}, {"inlineData": audio}]
        generation: dict[str, Any] = {
            "responseMimeType": "application/json",
            "responseJsonSchema": self.schema,
            "maxOutputTokens": self.output_tokens(len(request.asks)),
        }
        if self.profile.thinking:
            field, value = self.profile.thinking
            generation["thinkingConfig"] = {"thinkingLevel" if field == "thinking_level" else "thinkingBudget": value}
        return {
            "systemInstruction": {"role": "user", "parts": [{"text": self.fixed_text}]},
            "contents": [{"role": "user", "parts": [*parts, {"text": self.closing(request)}]}],
            "generationConfig": generation,
            "safetySettings": _safety(),
        }

    def key(self) -> Key:
        """Return the key. Raises FatalError if there is none."""
        key = environment_key(KEY)
        if not key:
            raise FatalError(f"{KEY} is not set: set it to a key for {host_of(self.base_url)}")
        return key

    def http(self) -> httpx2.AsyncClient:
        """Return the one HTTP client of this provider."""
        if self._http is None:
            self._http = new_client(self.timeout_s)
        return self._http

    def _client(self, key: Key) -> genai.Client:
        if self._sdk is None:
            try:
                from google import genai
                from google.genai import client, types
                from httpx2 import Client
            except ImportError:
                text = "google-genai is not installed: install voxmill with the extra `annotate`"
                raise FatalError(text) from None
            self._sdk = genai.Client(
                api_key=key.reveal(),
                # What the environment says of other services and of recording is not for us.
                vertexai=False,
                debug_config=client.DebugConfig(client_mode="", replays_directory="", replay_id=""),
                http_options=types.HttpOptions(
                    base_url=self.base_url,
                    api_version="v1",
                    timeout=int(self.timeout_s * 1000),
                    httpx_async_client=self.http(),
                    # It is never used; without it, the library makes one that follows redirects.
                    httpx_client=Client(verify=trusted(), follow_redirects=False),
                ),
            )
        return self._sdk

    def answered(self, body: str) -> Answered:
        """Return the text of the answer in a body, or why there is none."""
        found = json_object(body)
        if found is None:
            return Answered(reason="invalid: the reply is not a JSON object")
        candidate = _candidate(found)
        if candidate is None:
            reason = _block_reason(found)
            return Answered(reason=f"blocked:{reason}" if reason else "empty")
        finish = str(candidate.get("finishReason") or "")
        if finish in BLOCKED:
            return Answered(reason=f"blocked:{finish}")
        if finish == "MAX_TOKENS":
            return Answered(reason="max_tokens")
        if finish not in ("STOP", ""):
            return Answered(reason=f"invalid: the answer ended with {redacted(finish)[:60]}")
        text = _text(candidate)
        return Answered(text) if text.strip() else Answered(reason="empty")

    async def close(self) -> None:
        """Close connections."""
        http, self._http, self._sdk = self._http, None, None
        if http is not None:
            await http.aclose()


def reply_of(body: str, seconds: tuple[float, ...], host: str, key: Key) -> Reply:
    """Return the reply with a body of status 200. Raises TransientError if it holds none: it may have been billed."""
    body = without(body, key)
    found = json_object(body)
    if found is None or (_candidate(found) is None and _block_reason(found) is None):
        what = "an empty reply" if found == {} or not body.strip() else "a reply that is not an answer"
        raise TransientError(f"{host} sent {what} with status 200", sent=True, status=200)
    candidate = _candidate(found)
    text = "" if candidate is None else _text(candidate)
    version = found.get("modelVersion")
    return Reply(
        text=text or None,
        finish="" if candidate is None else str(candidate.get("finishReason") or ""),
        blocked=_block_reason(found) or _blocked_finish(candidate),
        model_version=version if isinstance(version, str) else None,
        usage=_usage(found.get("usageMetadata"), bool(text)),
        raw=seal(body, seconds),
    )


def _safety() -> list[dict[str, str]]:
    return [{"category": f"HARM_CATEGORY_{harm}", "threshold": "BLOCK_NONE"} for harm in HARMS]


def _failure(error: Exception, host: str, key: Key) -> RemoteError:
    from google.genai import errors

    if isinstance(error, errors.APIError):
        response = error.response
        headers = {str(name).lower(): str(value) for name, value in getattr(response, "headers", {}).items()}
        body = getattr(response, "text", "")
        return refusal(HttpReply(int(error.code), headers, body if isinstance(body, str) else ""), host, key)
    return TransientError(f"the reply of {host} cannot be read ({type(error).__name__})", sent=True)


def _candidate(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    candidates = body.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    return first if isinstance(first, Mapping) else None


def _block_reason(body: Mapping[str, Any]) -> str | None:
    feedback = body.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, Mapping) else None
    return redacted(str(reason))[:60] if reason else None


def _blocked_finish(candidate: Mapping[str, Any] | None) -> str | None:
    finish = str((candidate or {}).get("finishReason"))
    return finish if finish in BLOCKED else None


def _text(candidate: Mapping[str, Any]) -> str:
    """Return the text of a candidate without its thoughts."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else None
    wanted = [p for p in parts if isinstance(p, Mapping) and not p.get("thought")] if isinstance(parts, list) else []
    return "".join(part["text"] for part in wanted if isinstance(part.get("text"), str))


def _usage(said: object, spoke: bool) -> Tokens | None:
    """Return the tokens that are billed, or None if they are not stated in full. Input of unknown kind counts as audio, the
    dearer one. spoke: whether there is text that must have been billed."""
    if not isinstance(said, Mapping) or not plausible(said, _COUNTS) or not count(said.get("promptTokenCount")):
        return None
    prompt = count(said.get("promptTokenCount")) + count(said.get("toolUsePromptTokenCount"))
    details = said.get("promptTokensDetails")
    details = [one for one in details if isinstance(one, Mapping)] if isinstance(details, list) else []
    text = sum(count(one.get("tokenCount")) for one in details if one.get("modality") == "TEXT")
    text = min(text, prompt)
    out = count(said.get("candidatesTokenCount")) + count(said.get("thoughtsTokenCount"))
    out = max(out, count(said.get("totalTokenCount")) - prompt)
    if spoke and not out:
        return None
    return Tokens(text, prompt - text, min(count(said.get("cachedContentTokenCount")), prompt), out)
