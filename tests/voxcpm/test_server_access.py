"""Who may use the speech server and how much: keys, quotas, hosts, origins, bodies, connections. The engine makes tones."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_service import WAIT_S, Service, until
from typer.testing import CliRunner

from voxcpm.server.access.keys import Key, Keys, digest, make_key, parse_keys
from voxcpm.server.app import build_state
from voxcpm.server.settings import ServerSettings, parse_arguments
from voxmill.cli import app

HOLD = {"input": "hold", "stream": False}


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    """Name -> (key, its line)."""
    return {
        "anna": make_key("anna", running=1, queued=0),
        "ben": make_key("ben", characters=20, running=0),
        "cleo": make_key("cleo", audio=1, running=0),
        "root": make_key("root", admin=True),
    }


@pytest.fixture(scope="module")
def service(keys: dict[str, tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text("# our keys\n" + "\n".join(line for _, line in keys.values()) + "\n", encoding="utf-8")
    values = {"keys": file, "cors": ("https://ours.example",), "allow_host": ("speech.lan",), "max_body": 4096,
                "header_s": 0.3, "body_s": 0.3}  # fmt: skip
    with Service(values) as service:
        yield service


@pytest.fixture
def bearer(keys: dict[str, tuple[str, str]]) -> Any:
    return lambda name: {"Authorization": f"Bearer {keys[name][0]}"}


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_asked_for(service: Service, bearer: Any) -> None:
    missing = service.speak("hello")
    assert missing.status == 401 and missing.error["code"] == "missing_api_key"
    assert missing.headers["www-authenticate"] == "Bearer"
    wrong = service.speak("hello", headers={"Authorization": "Bearer vx-wrong"})
    assert wrong.status == 401 and wrong.error["code"] == "invalid_api_key"
    assert service.speak("hello", headers=bearer("anna")).status == 200
    for path in ("/v1/models", "/v1/audio/speech/x", "/metrics"):
        assert service.ask("GET", path).status == 401
    for path in ("/", "/health", "/ready", "/openapi.json"):
        assert service.ask("GET", path).status == 200


def test_metrics_are_for_admins(service: Service, bearer: Any) -> None:
    assert service.ask("GET", "/metrics", headers=bearer("anna")).error["code"] == "admin_required"
    assert service.ask("GET", "/metrics", headers=bearer("root")).status == 200


def test_a_key_sees_its_own_requests_only(service: Service, bearer: Any) -> None:
    answer = service.speak("hello", headers=bearer("anna") | {"X-Request-Id": "annas"})
    assert answer.status == 200
    assert service.ask("GET", "/v1/audio/speech/annas", headers=bearer("anna")).status == 200
    assert service.ask("GET", "/v1/audio/speech/annas", headers=bearer("ben")).status == 404
    assert service.ask("DELETE", "/v1/audio/speech/annas", headers=bearer("ben")).status == 404


def test_a_key_has_its_number_of_requests_at_once(service: Service, bearer: Any) -> None:
    connection = service.connect()
    connection.request("POST", "/v1/audio/speech", json.dumps(HOLD), bearer("anna") | {"X-Request-Id": "held"})
    until(lambda: service.ask("GET", "/v1/audio/speech/held", headers=bearer("anna")).json.get("status") == "running")
    second = service.speak("hello", headers=bearer("anna"))
    assert second.status == 429 and second.headers["x-should-retry"] == "true" and "anna" in second.error["message"]
    assert service.speak("hello", headers=bearer("ben")).status == 200
    service.ask("DELETE", "/v1/audio/speech/held", headers=bearer("anna"))
    assert connection.getresponse().status == 499
    connection.close()
    until(lambda: service.speak("hello", headers=bearer("anna")).status == 200)


def test_a_key_has_its_characters_per_minute(service: Service, bearer: Any) -> None:
    service.speak("a" * 13, headers=bearer("ben"))
    refused = service.speak("a" * 13, headers=bearer("ben"))
    assert refused.status == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
    # No wait makes this text fit.
    never = service.speak("a" * 21, headers=bearer("ben"))
    assert never.status == 429 and never.headers["x-should-retry"] == "false" and "retry-after" not in never.headers


def test_a_key_has_its_audio_per_day(service: Service, bearer: Any) -> None:
    assert service.speak("seconds 2", headers=bearer("cleo")).status == 200
    refused = service.speak("hello", headers=bearer("cleo"))
    assert refused.status == 429 and refused.headers["x-should-retry"] == "false"
    assert int(refused.headers["retry-after"]) > 80_000


def test_calls_of_a_key_wait_in_order_and_the_queue_is_bounded() -> None:
    async def scenario() -> None:
        keys, key = Keys(), Key("anna", "", running=1, queued=2)
        first = await keys.admit(key, 1)
        order: list[int] = []

        async def wait(number: int) -> None:
            ticket = await keys.admit(key, 1)
            order.append(number)
            ticket.close(0.0)
            ticket.close(0.0)  # a second time changes nothing

        one, gone = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
        await asyncio.sleep(0)
        with pytest.raises(Exception, match="waiting"):
            await keys.admit(key, 1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        third = asyncio.create_task(wait(3))
        await asyncio.sleep(0)
        first.close(0.0)
        await asyncio.gather(one, third)
        assert order == [1, 3]
        (await keys.admit(key, 1)).close(0.0)

    asyncio.run(scenario())


def test_a_changed_file_is_read_again_and_a_bad_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    (anna, anna_line), (ben, ben_line) = make_key("anna"), make_key("ben")
    file.write_text(anna_line)
    keys = Keys(file)
    file.write_text(f"{anna_line}\n{ben_line}\n")
    found = keys.find(ben)
    assert found is not None and found.name == "ben"
    file.write_text("nonsense")
    assert keys.find(anna) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no key"),
        ("anna", "name sha256"),
        ("anna 12", "64 hexadecimal"),
        (f"anna {'0' * 64} fast", "'fast' is not a limit"),
        (f"anna {'0' * 64} running=x", "'running=x'"),
        (f"Anna {'0' * 64}", "name sha256"),
        (f"anna {'0' * 64}\nanna {'1' * 64}", "line 2: anna is there twice"),
    ],
)
def test_bad_keys_files_are_named_by_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_keys(text, "keys.txt")


@settings(max_examples=30)
@given(st.text(max_size=200))
def test_any_keys_file_is_read_or_refused(text: str) -> None:
    try:
        parse_keys(text, "keys.txt")
    except ValueError as error:
        assert "keys.txt" in str(error)


def test_serve_key_makes_a_line_and_shows_the_key_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    for name in ("anna", "ben"):
        done = CliRunner().invoke(app, ["serve-key", name, "--keys", str(file), "--running", "2", "--json"])
        made = json.loads(done.stdout)
        assert made["key"] not in file.read_text() and digest(made["key"]) in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    found = Keys(file).find(made["key"])
    assert found is not None and found.name == "ben" and found.running == 2 and not found.admin
    assert "there twice" in str(CliRunner().invoke(app, ["serve-key", "ben", "--keys", str(file)]).exception)


# -- hosts, origins, bodies, connections -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:80", 200),
        ("speech.lan:1", 200),
        ("evil.example", 403),
        ("", 403),
    ],
)
def test_loopback_answers_to_its_names_only(service: Service, host: str, status: int) -> None:
    assert service.ask("GET", "/health", headers={"Host": host}).status == status


def test_pages_of_others_may_not_use_it(service: Service, bearer: Any) -> None:
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("http://[x]", 403),
        ("//", 403),
        ("https://ours.example", 200),
        (service.url, 200),
    ):
        assert service.speak("hello", headers=bearer("root") | {"Origin": origin}).status == status
    # Before any key is asked.
    assert service.speak("hello", headers={"Origin": "http://["}).error["code"] == "origin_not_allowed"
    asked = {"Origin": "https://ours.example", "Access-Control-Request-Method": "POST"}
    allowed = service.ask("OPTIONS", "/v1/audio/speech", headers=asked)
    assert allowed.status == 200 and allowed.headers["access-control-allow-origin"] == "https://ours.example"
    assert service.ask("OPTIONS", "/v1/audio/speech", headers=asked | {"Origin": "https://evil.example"}).status == 400


def test_a_long_body_is_refused_before_and_while_it_is_read(service: Service, bearer: Any) -> None:
    stated = service.ask("POST", "/v1/audio/speech", b"x" * 5000, bearer("root"))
    assert stated.status == 413 and stated.headers["connection"] == "close"
    connection = service.connect()
    chunks = (b"x" * 1000 for _ in range(5))
    connection.request("POST", "/v1/audio/speech", chunks, bearer("root"), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def _send(service: Service, data: bytes) -> bytes:
    """Send bytes and return everything that comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", service.port), WAIT_S) as connection:
        connection.sendall(data)
        found = b""
        try:
            while more := connection.recv(65536):
                found += more
        except ConnectionResetError:
            pass
        return found


def test_a_body_that_does_not_come_is_not_waited_for(service: Service, keys: dict[str, tuple[str, str]]) -> None:
    head = (
        f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys['root'][0]}\r\n"
        "Content-Length: 100\r\n\r\n{"
    )
    assert b" 408 " in _send(service, head.encode()).splitlines()[0]


def test_headers_that_do_not_come_are_not_waited_for(service: Service) -> None:
    assert _send(service, b"GET /health HTTP/1.1\r\nHost: loc") == b""
    # The second request of a connection has the same limit.
    with socket.create_connection(("127.0.0.1", service.port), WAIT_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):  # head and body may come apart
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(65536) == b""


def test_a_slow_answer_is_not_cut_by_the_limit_of_headers(service: Service, bearer: Any) -> None:
    connection = service.connect()
    connection.request("POST", "/v1/audio/speech", json.dumps(HOLD), bearer("root") | {"X-Request-Id": "slow"})
    until(lambda: service.ask("GET", "/v1/audio/speech/slow", headers=bearer("root")).status == 200)
    # Longer than the limit: headers of another connection run into it meanwhile.
    assert _send(service, b"GET /health HTTP/1.1\r\n") == b""
    service.ask("DELETE", "/v1/audio/speech/slow", headers=bearer("root"))
    assert connection.getresponse().status == 499
    connection.close()


def test_a_request_id_of_a_client_is_kept_if_it_is_one(service: Service) -> None:
    assert service.ask("GET", "/health", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "a" * 65, "a/../b"):
        assert (
            service.ask("GET", "/health", headers={"X-Request-Id": bad}).headers["x-request-id"].startswith("speech-")
        )


def test_neither_texts_nor_keys_are_logged(
    service: Service, keys: dict[str, tuple[str, str]], bearer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    service.speak("very private words", headers=bearer("root"))
    service.speak("very private words", headers=bearer("root"), speed="private")
    service.ask("POST", "/v1/audio/speech", b'{"input": "very private', bearer("root"))
    logged = caplog.text
    assert "private" not in logged and keys["root"][0] not in logged


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host": "0.0.0.0"}, "--keys FILE"),
        ({"host": "speech.example"}, "--no-keys"),
        ({"no_keys": True, "keys": Path("keys.txt")}, "exclude"),
        ({"port": 70000}, "--port 70000"),
        ({"slots": 0}, "--slots 0"),
        ({"threads": 0}, "--threads 0"),
        ({"default_format": "ogg"}, "--default-format"),
        ({"pcm_rate": "96000"}, "--pcm-rate"),
        ({"pcm_rate": "fast"}, "--pcm-rate"),
        ({"lora": ("anna",)}, "NAME=FOLDER"),
        ({"lora": ("tts-1=.",)}, "taken"),
        ({"cors": ("*",)}, "--cors"),
        ({"cors": ("https://a.example/path",)}, "--cors"),
        ({"max_characters": 0}, "--max-characters"),
        ({"max_seconds": float("nan")}, "--max-seconds"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_state(ServerSettings("tones", **values))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="serve-key"):
        build_state(ServerSettings("tones", keys=tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="LoRA"):
        build_state(ServerSettings("tones", lora=(f"anna={tmp_path / 'none'}",)))


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
                                             ("::", False), ("192.168.1.4", False)])  # fmt: skip
def test_loopback_is_told_from_other_addresses(host: str, local: bool) -> None:
    assert ServerSettings("tones", host=host).loopback is local


def test_both_command_lines_have_the_same_options() -> None:
    words = ["model", "--port", "0", "--lora", "a=b", "--lora", "c=d", "--strict", "--pcm-rate", "native", "--slots", "2",
             "--reference-host", "ours.example", "--max-seconds", "5"]  # fmt: skip
    found = parse_arguments(words)
    assert found == ServerSettings(
        "model", port=0, lora=("a=b", "c=d"), strict=True, pcm_rate="native", slots=2, reference_hosts=("ours.example",),
        max_seconds=5.0,
    )  # fmt: skip
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        parse_arguments(["--help"])
    options = {word for word in page.getvalue().replace("[", " ").split() if word.startswith("--")}
    assert {option for option in options if option.rstrip("]") not in shown} == set()


def test_a_taken_port_is_told_in_one_line(service: Service) -> None:
    with pytest.raises(OSError, match=f"port {service.port}.*choose another"):
        Service({"port": service.port}).__enter__()


def test_the_connection_can_be_used_again(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=WAIT_S)
    for _ in range(3):
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
    connection.close()
