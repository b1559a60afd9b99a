"""The common part of the fake describers: an HTTP server on a free port with planned faults, counts and a bill.

with GeminiServer(key="...") as server:
    server.fail(audio, 1, "drop")     # the first request about this clip
    server.fail("*", 2, "500")        # the second request of all
    server.url, server.asked[hash], server.spent_micro, server.trap.requests
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from fakes.voices_heard import Truth, answer_for, decode, measure, pcm_hash

FORBIDDEN = (
    "maxItems", "minItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "title", "default",
    "$defs", "$ref", "anyOf", "oneOf", "allOf", "format", "minLength", "maxLength", "nullable", "uniqueItems", "multipleOf",
)  # fmt: skip
"""Keywords for which real services refuse a schema, some of them only in numbers."""


@dataclass
class Out:
    """What the server sends. whole: all of it; drop: nothing; half: half of the body, then the connection ends; drip: a blank every
    0.05 s until the client gives up."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    fate: Literal["whole", "drop", "half", "drip"] = "whole"
    wait: bool = False
    """Whether nothing is sent until the client has given up."""


def out(status: int, body: Any, **headers: str) -> Out:
    """Return JSON with a status."""
    return Out(
        status, json.dumps(body, ensure_ascii=False).encode(), {n.replace("_", "-"): v for n, v in headers.items()}
    )


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Heard:
    """One clip of a request."""

    label: str
    hash: str
    truth: Truth


Answerer = Callable[[Truth, Sequence[str]], dict[str, Any]]


class Service(ABC):
    """A fake describer. It answers from a table by audio hash, otherwise from what it measures. Use as a context manager."""

    def __init__(self, key: str = "", table: Mapping[str, Truth] | None = None, answer: Answerer = answer_for) -> None:
        self.key, self.table, self.answer = key, dict(table or {}), answer
        self.requests: list[Seen] = []
        """All requests. `keep` decides whether their bodies are kept."""
        self.keep = True
        self.asked: Counter[str] = Counter()
        """Requests about each audio hash that were let in (not refused for a key or a schema)."""
        self.nano_per_token = {"text": 750, "audio": 750, "out": 3750}
        self.spent_nano = 0
        self.slow_s = 30.0
        self._faults: dict[tuple[str, int], str] = {}
        self._tried: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._closed = threading.Event()
        self._web = _web(self._take, self._closed, lambda: self.slow_s)
        self.trap = Trap()
        self._thread = threading.Thread(target=self._web.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.trap.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._web.shutdown()
        self._web.server_close()
        self.trap.stop()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where the server is, without a slash at the end."""
        return f"http://127.0.0.1:{self._web.server_address[1]}"

    @property
    def spent_micro(self) -> int:
        """The bill in micro-dollars, rounded up. Whatever was answered with status 200 is billed, received or not."""
        return -(-self.spent_nano // 1000)

    def fail(self, what: bytes | str, nth: int, fault: str) -> None:
        """Plan a fault for the nth (from 1) request about a clip (FLAC or WAV), or for "*", or for an action such as "create"."""
        self.fail_hash(what if isinstance(what, str) else pcm_hash(decode(what)), nth, fault)

    def fail_hash(self, name: str, nth: int, fault: str) -> None:
        """Plan a fault for the nth request about the clip with this hash (`pcm_hash`)."""
        with self.lock:
            self._faults[name, nth] = fault

    def fault_for(self, names: Sequence[str]) -> str:
        """Count a try of each name and return the fault that is planned for one of them, or ""."""
        with self.lock:
            found = ""
            for name in names:
                self._tried[name] += 1
                found = self._faults.get((name, self._tried[name]), "") or found
            return found

    def heard(self, clips: Sequence[tuple[str, Sequence[bytes]]]) -> list[Heard]:
        """Return what is heard in clips: (label, files that follow each other)."""
        import numpy as np

        found = []
        for label, files in clips:
            pcm = np.concatenate([decode(file) for file in files])
            name = pcm_hash(pcm)
            found.append(Heard(label, name, self.table.get(name) or measure(pcm)))
        return found

    def answers(self, heard: Sequence[Heard], schema: Mapping[str, Any] | None, fault: str) -> str:
        """Return the text of the answer about clips, as a fault has spoiled it."""
        languages = ["en", "zh"]
        if schema is not None:
            fields = schema["properties"]["clips"]["items"]["properties"]
            languages = [name for name, kind in fields.items() if kind["type"] == "object"]
        answers = [{"clip": one.label, **self.answer(one.truth, languages)} for one in heard]
        if schema is not None:
            fits(schema, {"clips": answers})
        if fault == "wrong_enum":
            answers[0]["gender"] = "robot"
        elif fault == "missing":
            answers.pop()
        elif fault == "swapped":
            answers[0]["clip"], answers[-1]["clip"] = answers[-1]["clip"], answers[0]["clip"]
        elif fault == "duplicate":
            answers[-1]["clip"] = answers[0]["clip"]
        text = json.dumps({"clips": answers}, ensure_ascii=False)
        if fault == "truncated":
            return text[: len(text) // 2]
        return f"Here is what I hear {{as asked}}:\n```json\n{text}\n```\nDone." if fault == "fenced" else text

    def bill(self, text: int, audio: int, out_tokens: int, share: int = 1) -> None:
        """Add a request's tokens to the bill, at 1/share of the price."""
        price = self.nano_per_token
        with self.lock:
            self.spent_nano += (text * price["text"] + audio * price["audio"] + out_tokens * price["out"]) // share

    def spoil(self, sent: Out, fault: str, given: str) -> None:
        """Change a reply of status 200 as a fault of the connection or of a hostile server says. given: the key that came in."""
        if fault in ("empty", "not_json"):
            sent.body = b"{}" if fault == "empty" else b"<html>login</html>"
        elif fault == "echo_ok":
            sent.body = sent.body[:-1] + f', "debug": {json.dumps({"headers": [given, f"Bearer {given}"]})}}}'.encode()
        elif fault == "huge":
            sent.body = b" " * (50 << 20) + sent.body
        elif fault == "packed":
            sent.body = gzip.compress(b" " * (100 << 20), 1)
            sent.headers = {**sent.headers, "Content-Encoding": "gzip"}
        elif fault == "deep":
            sent.body = b'{"a":' * 100_000
        sent.wait = fault == "slow"
        fates: tuple[Literal["drop", "half", "drip"], ...] = ("drop", "half", "drip")
        sent.fate = next((fate for fate in fates if fate == fault), sent.fate)

    def _take(self, seen: Seen) -> Out:
        with self.lock:
            self.requests.append(seen if self.keep else Seen(seen.method, seen.path, {}, b""))
        return self.handle(seen)

    @abstractmethod
    def handle(self, seen: Seen) -> Out:
        """Answer one request."""


class Trap:
    """A server on another port that should see no request. `requests` are those that it saw."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self._web = _web(self._take, threading.Event(), lambda: 0.0)
        self._thread = threading.Thread(target=self._web.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://localhost:{self._web.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._web.shutdown()
        self._web.server_close()
        self._thread.join()

    def _take(self, seen: Seen) -> Out:
        self.requests.append(seen)
        return out(200, {})


def forbidden_in(schema: object) -> list[str]:
    """Return the keywords of a schema that services refuse. Names of properties are not keywords."""
    if isinstance(schema, list):
        return [found for one in schema for found in forbidden_in(one)]
    if not isinstance(schema, Mapping):
        return []
    found = [name for name in schema if name in FORBIDDEN]
    for name, value in schema.items():
        inner = list(value.values()) if name == "properties" and isinstance(value, Mapping) else value
        found += forbidden_in(inner)
    return found


def fits(schema: Mapping[str, Any], answer: object, where: str = "answer") -> None:
    """Assert that a value has the form of a schema: types, required and enum."""
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": int | float}
    assert isinstance(answer, kinds[schema["type"]]), f"{where} is {answer!r}"
    value: Any = answer
    if "enum" in schema:
        assert value in schema["enum"], f"{where} is {value!r}, not in {schema['enum']}"
    if schema["type"] == "object":
        assert set(schema["required"]) == set(schema["properties"]) == set(value), f"{where} has {sorted(value)}"
        for name, kind in schema["properties"].items():
            fits(kind, value[name], f"{where}.{name}")
    elif schema["type"] == "array":
        for one in value:
            fits(schema["items"], one, f"{where}[]")


class _Web(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that give up are what the faults are for."""


def _web(take: Callable[[Seen], Out], closed: threading.Event, slow_s: Callable[[], float]) -> _Web:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

        def _answer(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(size)
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = take(Seen(self.command, self.path, headers, body))
            if sent.wait:
                closed.wait(slow_s())
            if sent.fate == "drop" or sent.wait:
                self._drop()
                return
            self.send_response(sent.status)
            for name, value in {"Content-Type": "application/json", **sent.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent.body)))
            self.end_headers()
            if sent.fate == "drip":
                while not closed.wait(0.05):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            self.wfile.write(sent.body[: len(sent.body) // 2] if sent.fate == "half" else sent.body)
            self.wfile.flush()
            if sent.fate == "half":
                self._drop()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def _drop(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    return _Web(("127.0.0.1", 0), Handler)
