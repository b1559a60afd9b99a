"""A local server that speaks Gemini's wire format: generateContent, countTokens, files and batches.

It takes any version segment, camelCase and snake_case, and audio in either alphabet of base64. It refuses a wrong key and a schema
that the real service refuses. Faults (`Service.fail`): see FAULTS.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from fakes.annotator_service import Heard, Out, Seen, Service, forbidden_in, out
from fakes.gemini_files import Files

FAULTS = (
    "429", "429_day", "500", "503_html", "400", "403", "404", "echo", "slow", "drop", "half", "empty", "not_json", "truncated",
    "fenced", "wrong_enum", "missing", "swapped", "duplicate", "blocked", "safety", "max_tokens", "other_model", "redirect",
    "continuation", "thoughts_only", "unknown_finish", "no_usage", "echo_ok", "deep",
)  # fmt: skip
_LABEL = re.compile(r"^Clip ([A-Z])\b")


class GeminiServer(Files, Service):
    """Gemini on this machine."""

    def handle(self, seen: Seen) -> Out:
        path = seen.path.partition("?")[0]
        if path.startswith("/place/"):
            return self.take_chunk(seen, path.rpartition("/")[2])
        found = re.fullmatch(r"/(?:(upload)/)?v[\w.]+/(.+)", path)
        if found is None:
            return error(404, "NOT_FOUND", f"no such path: {path}")
        given = seen.headers.get("x-goog-api-key", "")
        if not self.key or given != self.key:
            detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            return error(400, "INVALID_ARGUMENT", f"API key not valid: {given}. Pass a valid API key.", [detail])
        if found[1]:
            return self.start_upload(seen)
        name = found[2]
        asked = re.fullmatch(r"models/([\w.-]+):(generateContent|countTokens|batchGenerateContent)", name)
        if asked is None:
            return self.handle_files(seen, name)
        body = json.loads(seen.body)
        if asked[2] == "countTokens":
            return out(200, {"totalTokens": len(json.dumps(body)) // 4})
        return self.generate(asked[1], body) if asked[2] == "generateContent" else self.create_job(asked[1], body)

    def generate(self, model: str, body: Mapping[str, Any], share: int = 1) -> Out:
        """Answer one request. share: 2 in batches, which cost half."""
        if len(json.dumps(body)) > 20_000_000:
            return error(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit.")
        config = get(body, "generationConfig") or {}
        refused = _refused(model, config)
        if refused:
            return error(400, "INVALID_ARGUMENT", refused)
        heard, texts = self._listen(body)
        if not heard:
            return error(400, "INVALID_ARGUMENT", "the contents hold no audio")
        fault = self.fault_for(["*", *(one.hash for one in heard)])
        with self.lock:
            self.asked.update(one.hash for one in heard)
        refusal = self._refusal(fault, model)
        if refusal is not None:
            return refusal
        schema = get(config, "responseJsonSchema")
        answer = self.answers(heard, schema, fault)
        audio = sum(round(32 * one.truth.seconds) for one in heard)
        text = (len("".join(texts)) + len(json.dumps(schema))) // 4
        thoughts = 150 * len(heard)
        limit = int(get(config, "maxOutputTokens") or 8192)
        said = min(limit - thoughts, len(answer.encode()) // 4)
        self.bill(text, audio, said + thoughts, share)
        usage = {
            "promptTokenCount": text + audio,
            "candidatesTokenCount": said,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": text + audio + said + thoughts,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": text},
                {"modality": "AUDIO", "tokenCount": audio},
            ],
        }
        sent = _reply(fault, answer, usage, "gemini-2.0-other-001" if fault == "other_model" else f"{model}-001")
        self.spoil(sent, fault, self.key)
        return sent

    def _listen(self, body: Mapping[str, Any]) -> tuple[list[Heard], list[str]]:
        clips: list[tuple[str, list[bytes]]] = []
        texts = [part["text"] for part in (get(body, "systemInstruction") or {}).get("parts", [])]
        label = "A"
        for content in body.get("contents", []):
            for part in content["parts"]:
                audio = get(part, "inlineData")
                if audio is None:
                    texts.append(part["text"])
                    label = found[1] if (found := _LABEL.match(part["text"])) else label
                    continue
                assert get(audio, "mimeType") == "audio/flac"
                # The library writes the URL-safe alphabet, REST examples the standard one.
                data = audio["data"].translate(str.maketrans("+/", "-_"))
                clips.append((label, [base64.urlsafe_b64decode(data)]))
        return self.heard(clips), texts

    def _refusal(self, fault: str, model: str) -> Out | None:
        """Return the reply of a fault that comes before any answer."""
        if fault == "429":
            retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}
            return error(429, "RESOURCE_EXHAUSTED", "quota", [_quota("PerMinutePerProject"), retry], retry_after="2")
        if fault == "429_day":
            retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "40s"}
            return error(429, "RESOURCE_EXHAUSTED", "quota", [_quota("PerDayPerProject"), retry])
        if fault == "503_html":
            return Out(
                503, b"<html><h1>Service Unavailable</h1></html>", {"Content-Type": "text/html", "Retry-After": "7"}
            )
        if fault == "echo":
            return error(400, "INVALID_ARGUMENT", f"bad request with key {self.key} in it", x_echo=self.key)
        if fault == "redirect":
            return Out(302, b"", {"Location": f"{self.trap.url}/v1/models/{model}:generateContent"})
        status = {"500": "INTERNAL", "400": "INVALID_ARGUMENT", "403": "PERMISSION_DENIED", "404": "NOT_FOUND"}.get(
            fault
        )
        return error(int(fault), status, f"planned {fault}") if status else None


def get(found: Mapping[str, Any], camel: str) -> Any:
    """Return a field by its name in camelCase or snake_case; the library mixes both."""
    snake = re.sub(r"[A-Z]", lambda sign: f"_{sign[0].lower()}", camel)
    return found.get(camel, found.get(snake))


def error(code: int, status: str, message: str, details: list[dict[str, Any]] | None = None, **headers: str) -> Out:
    """Return an error in Google's form."""
    body: dict[str, Any] = {"code": code, "message": message, "status": status}
    return out(code, {"error": body | ({"details": details} if details else {})}, **headers)


def _quota(span: str) -> dict[str, Any]:
    kind = "type.googleapis.com/google.rpc.QuotaFailure"
    return {"@type": kind, "violations": [{"quotaId": f"GenerateRequests{span}PerModel", "quotaValue": "10"}]}


def _refused(model: str, config: Mapping[str, Any]) -> str:
    """Return why the real service would refuse a configuration, or ""."""
    schema = get(config, "responseJsonSchema")
    if schema is None or get(config, "responseSchema") is not None:
        return "exactly one form of schema is expected"
    if found := forbidden_in(schema):
        return f"the schema has too many states for serving ({found[0]})"
    thinking = get(config, "thinkingConfig") or {}
    level, budget = get(thinking, "thinkingLevel"), get(thinking, "thinkingBudget")
    if level is not None and budget is not None:
        return "thinking_level and thinking_budget cannot be combined"
    if level is not None and (model.startswith("gemini-2") or (level == "MINIMAL" and "3.8" in model)):
        return f"thinking level {level} is not supported by {model}"
    if budget is not None and model.startswith("gemini-2.5-pro") and budget < 128:
        return "the thinking budget is below 128"
    return ""


def _reply(fault: str, answer: str, usage: dict[str, Any], version: str) -> Out:
    body: dict[str, Any] = {"usageMetadata": usage, "modelVersion": version, "responseId": "r1"}
    if fault == "blocked":
        return out(200, body | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
    content: dict[str, Any] = {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": answer}]}
    finish = {
        "safety": "SAFETY",
        "max_tokens": "MAX_TOKENS",
        "continuation": "CONTINUATION",
        "unknown_finish": "TEA_TIME",
    }
    candidate: dict[str, Any] = {"content": content, "finishReason": finish.get(fault, "STOP"), "index": 0}
    if fault == "safety":
        del candidate["content"]
    elif fault == "max_tokens":
        content["parts"][1]["text"] = answer[: len(answer) // 3]
    elif fault == "continuation":
        candidate["continuationToken"] = "more"
    elif fault == "thoughts_only":
        content["parts"].pop()
    elif fault == "no_usage":
        del body["usageMetadata"]
    return out(200, body | {"candidates": [candidate]})
