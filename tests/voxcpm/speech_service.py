"""A speech server in a thread of the test, with an engine process of its own, and requests without a client library."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from voxcpm.server.app import build_state
from voxcpm.server.run import SpeechServer
from voxcpm.server.settings import ServerSettings

REAL = (sys.executable, "-m", "voxcpm.server.process.worker")
_PLACES = [str(folder) for folder in (Path(__file__).parents[2], Path(__file__).parents[1])]
#: The folders are given, because the process is started by the server, which knows nothing of pytest's path.
TONES = (
    sys.executable,
    "-c",
    f"import runpy, sys; sys.path[:0] = {_PLACES}; runpy.run_module('fakes.tone_engine', run_name='__main__')",
)
WAIT_S = 120.0
T = TypeVar("T")


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition. Fails if it never holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)


@dataclass
class Answer:
    """An answer that is complete."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer in OpenAI's form."""
        found: dict[str, Any] = self.json["error"]
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """The server-sent events."""
        blocks = [block for block in self.body.decode().split("\n\n") if block]
        assert all(block.startswith("data: ") for block in blocks)
        return [json.loads(block.removeprefix("data: ")) for block in blocks]


@dataclass
class Service:
    """`with Service(...) as service`: settings by name; the engine makes tones unless `worker` says otherwise; REAL is ours."""

    settings: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        # Without a watermark, tests can compare samples; test_watermarked_answers.py has one.
        own: dict[str, Any] = {"checkpoint": "tones", "port": 0, "worker": TONES, "no_watermark": True}
        values = own | self.settings
        self.state = build_state(ServerSettings(**values))
        self._ready = threading.Event()
        self.server = SpeechServer(self.state, lambda url: self._ready.set())
        self.port = self.server.port
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        while not self._ready.wait(0.05) and self._thread.is_alive():
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return self.server.url

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's event loop."""
        assert self.server.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.server.loop).result(WAIT_S)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request. body: bytes as they are, anything else as JSON."""
        connection = self.connect()
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def speak(self, text: str, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """Ask for speech."""
        return self.ask("POST", "/v1/audio/speech", {"input": text} | fields, headers)
