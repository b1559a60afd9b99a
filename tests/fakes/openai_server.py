"""A local server that speaks OpenAI's chat format with audio, as vLLM, DashScope and Step-Audio's image do.

Faults (`Service.fail`): see FAULTS. `style` is the way of the server: plain, stream (streams only), step (Step-Audio).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from fakes.annotator_service import Heard, Out, Seen, Service, forbidden_in, out

FAULTS = (
    "429", "quota", "500", "503_html", "400", "400_flat", "422", "401", "404", "echo", "slow", "drop", "half", "empty", "not_json",
    "truncated", "fenced", "wrong_enum", "missing", "swapped", "duplicate", "blocked", "refusal", "length", "other_model",
    "redirect", "think", "think_closed", "think_open", "reasoning", "cut_stream", "stream_error", "no_usage",
    "echo_ok", "deep",
)  # fmt: skip
_LABEL = re.compile(r"^Clip ([A-Z])\b")


class OpenAIServer(Service):
    """A chat server on this machine. Without a key it asks for none."""

    def __init__(self, *args: Any, style: Literal["plain", "stream", "step"] = "plain", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.style = style
        self.most_audios = 100
        """Audio parts that a request may have (vLLM's --limit-mm-per-prompt)."""

    def handle(self, seen: Seen) -> Out:
        if seen.method != "POST" or not seen.path.endswith("/chat/completions"):
            return error(404, "no such path", "not_found_error")
        given = seen.headers.get("authorization", "")
        if self.key and given != f"Bearer {self.key}":
            return error(401, f"Incorrect API key provided: {given}", "invalid_request_error", "invalid_api_key")
        body = json.loads(seen.body)
        refused = self._refused(body)
        if refused is not None:
            return refused
        heard, texts, audios = self._listen(body)
        if audios > self.most_audios:
            return error(400, f"At most {self.most_audios} audio(s) may be provided in one prompt.", "BadRequestError")
        fault = self.fault_for(["*", *(one.hash for one in heard)])
        with self.lock:
            self.asked.update(one.hash for one in heard)
        refusal = self._refusal(fault)
        if refusal is not None:
            return refusal
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        answer = self.answers(heard, schema, fault)
        audio = sum(round(25 * one.truth.seconds) for one in heard)
        text = (len("".join(texts)) + len(json.dumps(schema))) // 4
        said = min(int(body["max_tokens"]), len(answer.encode()) // 4)
        self.bill(text, audio, said)
        usage = {
            "prompt_tokens": text + audio,
            "completion_tokens": said,
            "total_tokens": text + audio + said,
            "prompt_tokens_details": {"audio_tokens": audio, "cached_tokens": 0},
        }
        return self._reply(fault, answer, usage, "other-model" if fault == "other_model" else body["model"])

    def _refused(self, body: Mapping[str, Any]) -> Out | None:
        form = body.get("response_format")
        if self.style == "step":
            if body.get("stop_token_ids") != [151665] or body.get("skip_special_tokens") is not False:
                return error(400, "the template needs stop_token_ids and skip_special_tokens", "BadRequestError")
            return error(400, "response_format is not supported", "BadRequestError") if form else None
        if self.style == "stream" and not (
            body.get("stream") and (body.get("stream_options") or {}).get("include_usage")
        ):
            return error(400, "This model only supports stream mode", "invalid_request_error")
        if not form or form["type"] != "json_schema" or form["json_schema"].get("strict") is not True:
            return error(400, "a strict schema is expected", "invalid_request_error")
        schema = form["json_schema"]["schema"]
        if forbidden_in(schema) or not _closed(schema):
            return error(400, "Invalid schema for response_format", "invalid_request_error")
        return None

    def _listen(self, body: Mapping[str, Any]) -> tuple[list[Heard], list[str], int]:
        clips: list[tuple[str, list[bytes]]] = []
        texts: list[str] = []
        for message in body["messages"]:
            content = message["content"]
            parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts:
                if part["type"] == "text":
                    texts.append(part["text"])
                    if label := _LABEL.match(part["text"]):
                        clips.append((label[1], []))
                    continue
                assert part["type"] == "input_audio" and part["input_audio"]["format"] == "wav"
                wav = base64.b64decode(part["input_audio"]["data"], validate=True)
                assert wav[:4] == b"RIFF"
                assert self.style != "step" or len(wav) <= 25 * 32_000 + 100, "a piece longer than 25 s"
                clips[-1][1].append(wav)
        return self.heard(clips), texts, sum(len(files) for _, files in clips)

    def _refusal(self, fault: str) -> Out | None:
        """Return the reply of a fault that comes before any answer."""
        if fault == "429":
            return error(429, "Rate limit reached", "requests", retry_after="2", retry_after_ms="2500")
        if fault == "quota":
            return error(429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota")
        if fault == "503_html":
            return Out(503, b"<html>Bad gateway</html>", {"Content-Type": "text/html", "Retry-After": "7"})
        if fault == "echo":
            return error(400, f"bad request with Bearer {self.key} in it", "invalid_request_error", x_echo=self.key)
        if fault == "400_flat":
            return out(400, {"object": "error", "message": "planned flat", "code": 400})
        if fault == "422":
            return out(422, {"detail": [{"msg": "planned"}]})
        if fault == "redirect":
            return Out(307, b"", {"Location": f"{self.trap.url}/v1/chat/completions"})
        return error(int(fault), f"planned {fault}", "x") if fault in ("500", "400", "401", "404") else None

    def _reply(self, fault: str, answer: str, usage: dict[str, Any], model: str) -> Out:
        message: dict[str, Any] = {"role": "assistant", "content": answer}
        finish = {"blocked": "content_filter", "length": "length", "think_open": "length"}.get(fault, "stop")
        thought = 'Let me think {"clips": []} aloud.'
        if fault == "length":
            message["content"] = answer[: len(answer) // 3]
        elif fault == "think":
            message["content"] = f"<think>{thought}</think>\n\n{answer}"
        elif fault == "think_closed" or self.style == "step":
            message["content"] = f"{thought}</think>{answer}"
        elif fault == "think_open":
            message["content"] = f"<think>{thought}"
        elif fault == "reasoning":
            message |= {"reasoning": thought, "reasoning_content": thought}
        elif fault == "refusal":
            message |= {"content": None, "refusal": "I cannot help with this."}
        if self.style == "step":
            message = {"role": "assistant", "content": None, "tts_content": {"tts_text": message["content"]}}
        if self.style == "stream":
            sent = Out(200, _stream(message, finish, usage, model, fault), {"Content-Type": "text/event-stream"})
        else:
            choice = {"index": 0, "message": message, "finish_reason": finish}
            body = {"id": "c1", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}
            if fault == "no_usage":
                del body["usage"]
            sent = out(200, body)
        self.spoil(sent, fault, self.key)
        return sent


def error(status: int, message: str, kind: str, code: str | None = None, **headers: str) -> Out:
    """Return an error in OpenAI's form."""
    return out(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, **headers)


def _stream(message: dict[str, Any], finish: str, usage: dict[str, Any], model: str, fault: str) -> bytes:
    """Return a message as server-sent events, with comments and both line ends, as servers send them."""
    text = message.get("content") or ""
    parts: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]}]
    for start in range(0, len(text), 97):
        parts.append({"choices": [{"delta": {"content": text[start : start + 97]}, "finish_reason": None}]})
    if message.get("refusal"):
        parts.append({"choices": [{"delta": {"refusal": message["refusal"]}, "finish_reason": None}]})
    if fault == "stream_error":
        parts = [*parts[:2], {"error": {"message": "the engine died", "code": 500}}]
    elif fault == "cut_stream":
        parts = parts[: len(parts) // 2]
    else:
        parts += [{"choices": [{"delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": usage}]
    lines = [f"data: {json.dumps({'model': model, **part}, ensure_ascii=False)}" for part in parts]
    ends = "" if fault in ("stream_error", "cut_stream") else "data: [DONE]\n\n"
    return (": keep-alive\n\n" + "\r\n\r\n".join(lines) + "\n\n" + ends).encode()


def _closed(schema: Mapping[str, Any]) -> bool:
    """Return True if every object of a schema is closed and requires all its fields, as `strict` demands."""
    if schema["type"] == "array":
        return _closed(schema["items"])
    if schema["type"] != "object":
        return True
    whole = schema.get("additionalProperties") is False and set(schema["required"]) == set(schema["properties"])
    return whole and all(_closed(kind) for kind in schema["properties"].values())
