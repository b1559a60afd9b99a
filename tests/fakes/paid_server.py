"""A paid service on a free port of this machine: it counts money and audio as it sees them, and fails as planned.

The wire format is its own: POST /ask with {"clips": [{"label", "flac"}], "nonce"} and a key header; batch jobs under /jobs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

import soundfile

KEY = "canary-5f1e-secret"
TEXT_IN, AUDIO_PER_S, OUT_PER_CLIP = 100, 32, 40
"""Tokens that it bills: per request, per second of audio, per clip."""
PRICE = {"text": 2, "audio": 3, "out": 10}
"""Micro-dollars per token."""
Fault = Literal[
    "429", "quota", "500", "400", "drop", "half", "mismatch", "blocked", "max_tokens", "invalid", "other", "hang", "401"
]
Plan = Callable[[Sequence[str], int], "Fault | None"]
"""The fault of a request by the hashes of its clips and the number of requests that had the first of them before."""


@dataclass
class Seen:
    """What the server saw."""

    asked: Counter[str] = field(default_factory=Counter)
    """Requests by audio hash, whatever their fate."""
    billed: int = 0
    """Micro-dollars: replies, and requests whose reply was lost on the way."""
    requests: int = 0
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Batch jobs by name: display_name, requests, looks."""
    most_at_once: int = 0


class PaidServer:
    """Serves at `url` while the context lasts."""

    def __init__(self, plan: Plan | None = None, latency_s: float = 0.0, looks: int = 0) -> None:
        self.plan: Plan = plan or (lambda hashes, before: None)
        self.latency_s = latency_s
        self.looks = looks
        """Looks at a job that find it running."""
        self.seen = Seen()
        self.lock = threading.Lock()
        self.at_once = 0
        self.closed = threading.Event()
        self.hanging = threading.Semaphore(0)
        self.create_fault: str | None = None
        """`lost`: the next job is created, but the reply is dropped."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.paid = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Address without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> PaidServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, clips: Sequence[Mapping[str, str]], fault: str | None) -> dict[str, Any]:
        """Return the reply to clips and bill it."""
        hashes, seconds = zip(*(audio_hash(base64.b64decode(clip["flac"])) for clip in clips), strict=True)
        usage = {"text": TEXT_IN, "audio": round(AUDIO_PER_S * sum(seconds)), "out": OUT_PER_CLIP * len(clips)}
        labels = [clip["label"] for clip in clips]
        said = [{"label": label, "heard": heard} for label, heard in zip(labels, hashes, strict=True)]
        reply: dict[str, Any] = {"model": "local-1", "finish": "STOP", "usage": usage, "answers": said}
        if fault == "mismatch":
            reply["answers"] = [{"label": "Z9", "heard": "none"}]
        elif fault == "invalid":
            reply["answers"] = [{"label": label, "heard": ""} for label in labels]
        elif fault == "max_tokens":
            reply |= {"finish": "MAX_TOKENS", "answers": []}
        elif fault == "blocked":
            reply |= {"blocked": "SAFETY", "answers": []}
        elif fault == "other":
            reply["model"] = "cheaper-9"
        with self.lock:
            self.seen.billed += sum(usage[name] * price for name, price in PRICE.items())
        return reply


def audio_hash(flac: bytes) -> tuple[str, float]:
    """Return the sha256 of the samples (first 16 digits) and their seconds."""
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    return hashlib.sha256(samples.tobytes()).hexdigest()[:16], len(samples) / rate


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    paid: PaidServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients are killed on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        paid, (path, _, query) = self.server.paid, self.path.partition("?")
        if path == "/jobs":
            wanted = query.removeprefix("display=")
            with paid.lock:
                names = [name for name, job in paid.seen.jobs.items() if job["display_name"] == wanted]
            self._send(200, {"names": names})
            return
        with paid.lock:
            job = paid.seen.jobs.get(path.removeprefix("/jobs/"))
            if job is None:
                self._send(404, {"error": "no such job"})
                return
            job["looks"] += 1
            ready = job["looks"] > paid.looks
        self._send(200, {"done": True, "results": job["results"]} if ready else {"done": False})

    def do_POST(self) -> None:
        paid = self.server.paid
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("x-key") != KEY:
            self._send(401, {"error": "bad key"})
            return
        if self.path == "/jobs":
            self._create(body)
            return
        with paid.lock:
            paid.at_once += 1
            paid.seen.most_at_once = max(paid.seen.most_at_once, paid.at_once)
        try:
            self._ask(body["clips"])
        finally:
            with paid.lock:
                paid.at_once -= 1

    def _ask(self, clips: list[dict[str, str]]) -> None:
        paid, seen = self.server.paid, self.server.paid.seen
        hashes = [audio_hash(base64.b64decode(clip["flac"]))[0] for clip in clips]
        with paid.lock:
            fault = paid.plan(hashes, seen.asked[hashes[0]])
            seen.requests += 1
            seen.asked.update(hashes)
        if paid.latency_s:
            time.sleep(paid.latency_s)
        if fault in ("429", "quota", "500", "400", "401"):
            status = 429 if fault == "quota" else int(fault)
            self._send(status, {"error": fault}, {"retry-after": "2"} if fault == "429" else {})
            return
        reply = paid.answer(clips, fault)
        if fault == "hang":
            paid.hanging.release()
            paid.closed.wait()
        if fault in ("drop", "hang"):
            self.close_connection = True
            return
        self._send(200, reply, half=fault == "half")

    def _create(self, body: dict[str, Any]) -> None:
        paid = self.server.paid
        results = {}
        for request in body["requests"]:
            hashes = [audio_hash(base64.b64decode(clip["flac"]))[0] for clip in request["clips"]]
            with paid.lock:
                fault = paid.plan(hashes, paid.seen.asked[hashes[0]])
                paid.seen.asked.update(hashes)
            if fault == "drop":
                continue
            results[request["id"]] = {"error": "internal"} if fault == "500" else paid.answer(request["clips"], fault)
        with paid.lock:
            name = f"job-{len(paid.seen.jobs)}"
            paid.seen.jobs[name] = {"display_name": body["display_name"], "results": results, "looks": 0}
        if paid.create_fault == "lost":
            paid.create_fault = None
            self.close_connection = True
            return
        self._send(200, {"name": name})

    def _send(
        self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None, half: bool = False
    ) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.close_connection = self.close_connection or half
