"""A server of OpenAI's `POST /v1/audio/speech` on this machine. What goes wrong is planned by the text.

with SpeechServer() as server:
    server.plan("Hello", "429", "500", "ok")     # replies to the requests with this text, in order; the last one repeats
    server.url, server.requests
"""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
import soundfile

RATE = 24_000
PAUSE_S = 0.3
"""Seconds between the header of a streamed file and its first audio."""


def tone(text: str, seconds: float = 0.4) -> np.ndarray:
    """Return samples that follow from the text."""
    return (0.3 * np.sin(2 * np.pi * (200 + len(text)) * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def encoded(samples: np.ndarray, form: str) -> bytes:
    """Return audio in a response format."""
    if form == "pcm":
        return (samples * 32767).astype("<i2").tobytes()
    sink = io.BytesIO()
    soundfile.write(sink, samples, RATE, format=form.upper(), subtype=None if form == "mp3" else "PCM_16")
    return sink.getvalue()


class SpeechServer:
    """Answers with tones. `requests`: (headers, body) of every request."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self._plans: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._web = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, self._closed))
        self._web.daemon_threads = True
        self._web.block_on_close = False
        self._thread = threading.Thread(target=self._web.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._web.shutdown()
        self._web.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._web.server_address[1]}"

    def plan(self, text: str, *replies: str) -> None:
        """Set the replies to a text: ok, 429, 500, hang, half, broken, json, json_type, 400, sse, or another status."""
        self._plans[text] = list(replies)

    def taken(self, headers: dict[str, str], body: dict[str, Any]) -> str:
        """Keep a request and return what is planned for it."""
        with self._lock:
            self.requests.append((headers, body))
            if self.key and headers.get("authorization") != f"Bearer {self.key}":
                return "401"
            plan = self._plans.get(body["input"], ["ok"])
            return plan.pop(0) if len(plan) > 1 else plan[0]


def _handler(server: SpeechServer, closed: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if self.path != "/v1/audio/speech":
                return self._send(404, _error("no such path"), "application/json")
            planned = server.taken(headers, body)
            form = body["response_format"]
            audio = encoded(tone(body["input"]), form)
            if planned == "hang":
                closed.wait(60)
                self.close_connection = True
            elif planned == "half":
                self._send(200, audio[: len(audio) // 2], f"audio/{form}", length=len(audio))
                self.close_connection = True
            elif planned in ("ok", "broken", "json", "json_type", "empty", "sse"):
                self._audio(planned, audio, form, body.get("stream_format") == "audio")
            else:
                wait = "0.01" if planned == "429" else ""
                said = f"planned {planned} for {headers.get('authorization', 'nobody')}"
                self._send(int(planned), _error(said), "application/json", wait=wait)
            return None

        def _audio(self, planned: str, audio: bytes, form: str, stream: bool) -> None:
            if planned == "broken":
                self._send(200, b"RIFF" + b"\0" * 300, "audio/wav")
            elif planned == "sse":
                self._send(200, b'data: {"type": "speech.audio.delta"}\n\n', "text/event-stream")
            elif planned == "empty":
                self._send(200, b"", f"audio/{form}")
            elif planned.startswith("json"):
                kind = "application/json" if planned == "json_type" else "audio/wav"
                self._send(200, _error("the engine died"), kind)
            elif stream:
                self._stream(audio, form)
            else:
                self._send(200, audio, f"audio/{form}")

        def _send(self, status: int, body: bytes, kind: str, length: int | None = None, wait: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if wait:
                self.send_header("Retry-After", wait)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, audio: bytes, form: str) -> None:
            """Send a file in chunks, as a server does that knows no length yet."""
            self.send_response(200)
            self.send_header("Content-Type", f"audio/{form}")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if form == "wav":
                header = audio[:4] + b"\xff" * 4 + audio[8:40] + b"\xff" * 4
                self._chunk(header)
                closed.wait(PAUSE_S)
                audio = audio[44:]
            for start in range(0, len(audio), 4000):
                self._chunk(audio[start : start + 4000])
            self._chunk(b"")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    return Handler


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": None}}).encode()
