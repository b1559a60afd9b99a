"""What the speech server does when something ends early: the engine process, a client, the server itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from speech_service import TONES, WAIT_S, Service, until

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CUT = (http.client.IncompleteRead, ConnectionResetError)


def hold(service: Service) -> http.client.HTTPConnection:
    """Send a request that the engine holds until its connection is closed."""
    held = service.connect()
    held.request("POST", "/v1/audio/speech", json.dumps({"input": "hold", "stream": False}))
    return held


# -- the engine process ------------------------------------------------------------------------------------------------


def test_a_killed_engine_cuts_its_streams_and_is_started_again() -> None:
    with Service() as service:
        first = service.state.link.pid
        held = hold(service)
        until(lambda: service.state.link.load.running == 1)

        events = service.speak("kill", response_format="pcm", stream_format="sse").events
        assert [one["type"] for one in events[-2:]] == ["speech.audio.delta", "speech.audio.error"]
        assert events[-1]["error"]["code"] == "engine_lost"
        # The other request was in the same process, and its answer had not begun.
        lost = held.getresponse()
        assert (
            lost.status == 503 and lost.getheader("retry-after") == "3" and lost.getheader("x-should-retry") == "true"
        )
        held.close()

        until(lambda: service.state.link.status == "ready")
        assert service.state.link.pid != first and service.state.link.restarts == 1
        with pytest.raises(CUT):
            service.speak("kill", response_format="pcm", stream_format="audio")
        until(lambda: service.state.link.status == "ready")
        assert service.speak("hello", response_format="pcm").status == 200
        until(lambda: not service.state.running and service.state.answering == 0)

        # The fourth death within ten minutes is the last.
        for _ in range(2):
            service.speak("kill", response_format="pcm", stream_format="sse")
            until(lambda: service.state.link.status in ("ready", "failed"))
        until(lambda: service.state.link.status == "failed")
        refused = service.speak("hello")
        assert refused.status == 503 and refused.headers["x-should-retry"] == "false"
        assert service.ask("GET", "/ready").status == 503 and service.ask("GET", "/health").status == 503


def test_a_failure_in_the_middle_resets_a_client_without_chunks() -> None:
    with Service() as service:
        for text, lost in (("kill", True), ("hello", False)):
            until(lambda: service.state.link.status == "ready")
            body = json.dumps({"input": text, "response_format": "pcm"}).encode()
            with socket.create_connection(("127.0.0.1", service.port), WAIT_S) as old:
                # What a proxy asks with. The end of the connection is the end of the answer.
                old.sendall(
                    b"POST /v1/audio/speech HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                with pytest.raises(ConnectionResetError) if lost else contextlib.nullcontext():
                    while old.recv(1 << 16):
                        pass


def test_an_engine_that_hangs_is_killed_and_started_again() -> None:
    with Service({"hang_after": 0.4}) as service:
        link = service.state.link
        first = link.pid
        # While a request waits, or its listener pauses, the engine answers: it does not hang.
        held = hold(service)
        answered = link.answered
        until(lambda: link.answered >= answered + 8)
        assert link.pid == first and link.restarts == 0

        events = service.speak("hang", response_format="pcm", stream_format="sse").events
        assert [one["type"] for one in events[-2:]] == ["speech.audio.delta", "speech.audio.error"]
        assert events[-1]["error"]["code"] == "engine_lost"
        assert held.getresponse().status == 503
        held.close()
        until(lambda: link.status == "ready")
        assert link.restarts == 1 and link.pid != first
        assert service.speak("hello", response_format="pcm").status == 200


def test_an_engine_process_that_is_stopped_while_idle_is_found_by_the_next_request() -> None:
    with Service({"hang_after": 0.4}) as service:
        os.kill(service.state.link.pid or 0, signal.SIGSTOP)
        lost = service.speak("hello")
        assert lost.status == 503 and lost.error["code"] == "engine_lost"
        until(lambda: service.state.link.status == "ready")
        assert service.speak("hello").status == 200


def test_a_model_without_requests_is_unloaded_and_the_next_requests_wait_for_it() -> None:
    with Service({"unload_after": 0.4}) as service:
        link = service.state.link
        first = link.pid
        held = hold(service)
        time.sleep(1.0)
        assert link.pid == first, "a request is open"
        held.close()
        until(lambda: link.status == "unloaded" and link.pid is None)
        assert service.ask("GET", "/ready").status == 200 and service.ask("GET", "/health").status == 200
        assert service.ask("GET", "/v1/models").status == 200
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: service.speak(f"hello {n}", response_format="pcm"), range(4)))
        assert [answer.status for answer in answers] == [200] * 4
        assert link.pid not in (None, first) and link.restarts == 0 and not link.deaths
        until(lambda: link.status == "unloaded")
        assert service.speak("hello again").status == 200, "also the second time"


def test_an_unloaded_model_that_is_gone_is_said_to_the_request_that_waits() -> None:
    with Service({"unload_after": 0.2}) as service:
        link = service.state.link
        until(lambda: link.status == "unloaded")
        link.options = link.options.replace(b'"tones"', b'"broken"')
        refused = service.speak("hello")
        assert refused.status == 503 and refused.headers["x-should-retry"] == "false"
        assert service.ask("GET", "/ready").status == 503


def test_a_server_stops_while_its_model_is_unloaded() -> None:
    with Service({"unload_after": 0.2}) as service:
        until(lambda: service.state.link.status == "unloaded")


def test_requests_are_told_to_come_back_while_the_engine_starts() -> None:
    with Service() as service:
        os.kill(service.state.link.pid or 0, signal.SIGKILL)
        until(lambda: service.state.link.status != "ready" or service.state.link.restarts == 1)
        answer = service.speak("hello")
        assert answer.status in (200, 503)
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1 and answer.headers["x-should-retry"] == "true"
        until(lambda: service.state.link.status == "ready")
        assert service.speak("hello").status == 200


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason() -> None:
    with Service({"checkpoint": "broken"}) as service:
        until(lambda: service.server.failure is not None)
        assert service.server.failure == "no checkpoint folder at broken"


def test_an_engine_that_never_starts_is_given_up() -> None:
    with Service({"checkpoint": "mortal"}) as service:
        until(lambda: service.server.failure is not None)
        assert "4 times" in (service.server.failure or "")


def test_the_real_engine_process_names_what_it_cannot_load(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voxcpm", "serve", str(tmp_path / "nothing"), "--port", "0"],
        capture_output=True, text=True, timeout=WAIT_S, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"voxcpm: no checkpoint folder at {tmp_path / 'nothing'}\n"


# -- clients -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({"slow_reader_s": 0.5, "max_seconds": 4000.0}) as service:
        yield service


@pytest.mark.parametrize("text", ["hold", "seconds 600"])
def test_a_client_that_goes_away_frees_its_slot(service: Service, text: str) -> None:
    connection = service.connect()
    body = json.dumps({"input": text, "response_format": "pcm", "sample_rate": 48000})
    connection.request("POST", "/v1/audio/speech", body)
    until(lambda: service.state.link.load.running == 1)
    assert connection.sock is not None
    connection.sock.close()
    connection.close()
    until(lambda: service.state.link.load.running == 0 and not service.state.running and service.state.answering == 0)


def test_a_reader_that_stops_is_waited_for_and_then_dropped(service: Service) -> None:
    before = _aborted(service, "slow")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", service.port))
        body = json.dumps({"input": "seconds 3000", "response_format": "pcm", "sample_rate": 48000}).encode()
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        slow.sendall(head.encode() + body)
        until(lambda: len(service.state.running) == 1)
        (speech,) = service.state.running
        until(lambda: not service.state.running)
        assert speech.result.ending == "cancelled"
        # Back-pressure: the engine paused 30 s of audio after what the client had taken.
        assert speech.result.seconds < 1000
    until(lambda: service.state.link.load.running == 0)
    assert _aborted(service, "slow") == before + 1


def _aborted(service: Service, reason: str) -> float:
    found = service.state.metrics.registry.get_sample_value("voxcpm_streams_aborted_total", {"reason": reason})
    return found or 0.0


def test_garbage_never_harms_the_others(service: Service) -> None:
    pieces = [b"\x00\xff" * 100, b"GET / HTTP/9\r\n\r\n", b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\n"
              b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"]  # fmt: skip
    for piece in pieces:
        with socket.create_connection(("127.0.0.1", service.port), WAIT_S) as garbage:
            garbage.sendall(piece)
            garbage.shutdown(socket.SHUT_WR)
            answer = garbage.recv(4096)
            assert not answer or b" 400 " in answer.splitlines()[0]
    assert service.speak("hello").status == 200


def test_random_clients_leave_nothing_behind(service: Service, dice: random.Random) -> None:
    statuses: set[int] = set()

    def act(rng: random.Random) -> None:
        for _ in range(12):
            form = rng.choice(["mp3", "pcm", "wav"])
            fields: dict[str, Any] = {"response_format": form, "max_new_tokens": rng.randint(1, 9)}
            kind = rng.choice(["whole", "audio", "sse", "leaves", "reads and leaves", "garbage"])
            if kind in ("audio", "sse"):
                statuses.add(service.speak("seconds 2", stream_format=kind, **fields).status)
            elif kind == "whole":
                statuses.add(service.speak("seconds 2", stream=False, **fields).status)
            elif kind == "garbage":
                statuses.add(service.ask("POST", "/v1/audio/speech", rng.randbytes(50)).status)
            else:
                connection = service.connect()
                text = rng.choice(["hold", "seconds 300"]) if kind == "leaves" else "seconds 300"
                connection.request("POST", "/v1/audio/speech", json.dumps({"input": text, "response_format": "pcm"}))
                answer = connection.getresponse() if kind == "reads and leaves" else None
                if answer is not None:
                    answer.read(100)
                    answer.close()
                connection.close()

    threads = [threading.Thread(target=act, args=(random.Random(dice.random()),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses <= {200, 400}
    state = service.state
    until(lambda: not (state.running or state.answering or state.link.channels or state.link.load.running))


# -- the server's end --------------------------------------------------------------------------------------------------


class Started:
    """A server process with the engine of tones."""

    def __init__(self, **settings: Any) -> None:
        values = {"checkpoint": "tones", "port": 0, "worker": list(TONES)} | settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fakes.speech_service_process", json.dumps(values)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY / "tests",
            env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.request(method, path, body)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found

    def hold(self) -> http.client.HTTPConnection:
        """Return the connection of a request that speaks until it is cancelled."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.request("POST", "/v1/audio/speech", '{"input": "hold"}', {"X-Request-Id": "held"})
        until(lambda: self.ask("GET", "/v1/audio/speech/held")[1].get("status") == "running")
        return connection

    def end(self) -> int:
        """Wait for the end; return the exit status."""
        _, errors = self.process.communicate(timeout=WAIT_S)
        assert "Traceback" not in errors
        return self.process.returncode


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(**settings: Any) -> Started:
        started.append(Started(**settings))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_sigterm_lets_running_requests_end(start: Callable[..., Started]) -> None:
    server = start()
    held = server.hold()
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.ask("GET", "/ready")[0] == 503)
    status, refused = server.ask("POST", "/v1/audio/speech", '{"input": "hello"}')
    assert status == 503 and "stopping" in refused["error"]["message"]
    assert server.process.poll() is None
    server.ask("DELETE", "/v1/audio/speech/held")
    assert held.getresponse().status == 499
    assert server.end() == 0


def test_what_does_not_end_in_time_is_told(start: Callable[..., Started]) -> None:
    server = start(drain=0.2)
    held = server.hold()
    server.process.send_signal(signal.SIGTERM)
    answer = held.getresponse()
    assert answer.status == 503 and "stopped" in json.loads(answer.read())["error"]["message"]
    assert server.end() == 0


def test_a_second_signal_ends_at_once(start: Callable[..., Started]) -> None:
    server = start()
    held = server.hold()
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.ask("GET", "/ready")[0] == 503)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(WAIT_S) == 0
    # The request was not waited for: it fails, or its connection ends.
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        assert held.getresponse().status == 503


def test_the_engine_process_ends_with_a_killed_server(start: Callable[..., Started]) -> None:
    server = start()
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    if not children.exists():
        pytest.skip("this kernel does not list children")
    (engine,) = children.read_text().split()
    server.process.kill()
    until(lambda: not Path(f"/proc/{engine}").exists())
