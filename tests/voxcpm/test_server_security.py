"""Rules against abuse of the speech server that no other file tests; the table of docs/serving.md, "Threats", names the others."""

from __future__ import annotations

import base64
import io
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
from fakes.scripted_link import ScriptedLink
from speech_service import WAIT_S, Service
from starlette import formparsers
from starlette.testclient import TestClient
from talking import served

from voxcpm.engine.scheduler import QUEUE
from voxcpm.server import run
from voxcpm.server.process.messages import Load
from voxcpm.server.speech import routes

SECRET = "the content of a file on the server"


@pytest.fixture(scope="module")
def client() -> Iterator[tuple[TestClient, ScriptedLink]]:
    with served(max_characters=4096) as found:
        yield found


def ask(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/audio/speech", json={"input": "Hello.", "response_format": "pcm", **fields})


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["model", "voice", "ref_audio", "references", "response_format", "voice id", "consent"]
)
def test_no_field_is_a_path(client: tuple[TestClient, ScriptedLink], tmp_path: Path, field: str) -> None:
    path = tmp_path / "secret.wav"
    path.write_text(SECRET)
    for name in (str(path), f"file:{path}", f"file://{path}", f"../../../../../..{path}", f"~/..{path}"):
        values: dict[str, Any] = {field: name}
        if field == "references":
            values = {field: [{"audio_path": name, "text": "x"}]}
        elif field == "voice id":
            values = {"voice": {"id": name}}
        elif field == "consent":
            values = {field: name, "strict": True}
        answer = ask(client[0], **values)
        assert answer.status_code in (400, 404) and SECRET not in answer.text
        # What the client sent may be named, but not where it would be.
        assert str(Path.cwd()) not in answer.text and "Traceback" not in answer.text


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "..", "a%00b", "voice_..%2f..", "%c0%ae%c0%ae"])
def test_no_name_in_an_address_is_a_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "voices"
    folder.mkdir()
    (tmp_path / "outside.json").write_text(SECRET)
    with served(voices=folder) as (client, _):
        for method, path in (
            ("DELETE", "voices"),
            ("GET", "voice_consents"),
            ("DELETE", "voice_consents"),
            ("GET", "speech"),
        ):
            answer = client.request(method, f"/v1/audio/{path}/{name}")
            assert answer.status_code in (400, 404, 405) and SECRET not in answer.text
    assert (tmp_path / "outside.json").read_text() == SECRET


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_a_text_has_a_largest_length(client: tuple[TestClient, ScriptedLink]) -> None:
    web, link = client
    assert ask(web, input="a " * 2048, max_new_tokens=1).status_code == 200  # also below the default of min_len
    assert link.calls()[-1].max_len == link.calls()[-1].min_len == 1
    assert ask(web, max_new_tokens=1, min_len=2).json()["error"]["param"] == "min_len"
    spoken = len(link.texts)
    for fields in ({"input": "a" * 4097}, {"input": "a" * 100_001, "long": True}):
        refused = ask(web, **fields).json()["error"]
        assert refused["code"] == "string_above_max_length" and refused["param"] == "input"
    for fields in ({"instructions": "a" * 1001}, {"ref_text": "a" * 4097, "ref_audio": "data:audio/wav;base64,AA"}):
        assert ask(web, **fields).status_code == 400
    assert len(link.texts) == spoken


def test_the_queue_of_all_is_bounded(client: tuple[TestClient, ScriptedLink]) -> None:
    web, link = client
    before = link.load
    link.load = Load(2, 2, QUEUE * 2)
    try:
        refused = ask(web)
        assert refused.status_code == 429 and "waiting already" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "1" and refused.headers["x-should-retry"] == "true"
        # It is refused before its clip is decoded.
        assert ask(web, ref_audio="data:audio/wav;base64,AAAA").status_code == 429
    finally:
        link.load = before


def test_a_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "KEEP_ALIVE_S", 0.2)
    with Service() as service, socket.create_connection(("127.0.0.1", service.port), WAIT_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while more := connection.recv(65_536):
            answer += more
        assert answer.startswith(b"HTTP/1.1 200")


# -- what is told ------------------------------------------------------------------------------------------------------


def test_a_fault_of_ours_tells_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def fault(*_: Any) -> None:
        raise OSError(2, "No such file or directory", "/home/anna/voices/secret.wav")

    monkeypatch.setattr(routes, "prepare_admitted", fault)
    with Service() as service:
        answer = service.speak("some private words", headers={"X-Request-Id": "asked-1"})
    assert answer.status == 500 and answer.error == {
        "message": "internal error", "type": "server_error", "param": None, "code": "internal_error",
    }  # fmt: skip
    assert answer.headers["x-request-id"] == "asked-1"
    # The log has the id to search for, and not the text.
    assert "asked-1" in caplog.text and "private" not in caplog.text


@pytest.mark.parametrize(
    ("charset", "words"),
    [
        ("raw_unicode_escape", rb"hi \ud800"),
        ("unicode_escape", rb"hi \ud800"),
        ("utf-7", b"hi +2AA-"),
        ("utf-16", b"\x00\xd8h\x00"),
        ("punycode", b"hi-99999999999999"),
        ("idna", b"xn--a" * 20),
        ("unknown", b"hi"),
    ],
)
def test_a_form_in_another_charset_is_refused(
    client: tuple[TestClient, ScriptedLink], charset: str, words: bytes
) -> None:
    body = b'--xyz\r\nContent-Disposition: form-data; name="input"\r\n\r\n' + words + b"\r\n--xyz--\r\n"
    for path in ("/v1/audio/speech", "/v1/audio/voices"):
        kind = {"content-type": f"multipart/form-data; boundary=xyz; charset={charset}"}
        answer = client[0].post(path, content=body, headers=kind)
        assert answer.status_code == 400 and "utf-8" in answer.json()["error"]["message"]
    for known in ("utf-8", '"UTF-8"', "us-ascii", "iso-8859-1"):
        kind = {"content-type": f"multipart/form-data; boundary=xyz; charset={known}"}
        hello = body.replace(words, b"Hello.")
        assert client[0].post("/v1/audio/speech", content=hello, headers=kind).status_code == 200


def test_no_page_is_allowed_by_default(client: tuple[TestClient, ScriptedLink]) -> None:
    web, _ = client
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/audio/speech"), ("OPTIONS", "/v1/audio/speech")):
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        answer = web.request(method, path, headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert method != "POST" or answer.status_code == 403


# -- clips and voices --------------------------------------------------------------------------------------------------


def wav(seconds: float = 2.0) -> bytes:
    sink = io.BytesIO()
    length = int(16_000 * seconds)
    wave = 0.2 * np.sin(np.arange(length) / 9) * np.linspace(0.2, 1, length)
    soundfile.write(sink, wave, 16_000, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def clip() -> str:
    return "data:audio/wav;base64," + base64.b64encode(wav()).decode()


def test_stored_voices_only() -> None:
    with served(stored_only=True) as (client, link):
        for fields in (
            {"ref_audio": clip()},
            {"ref_audio": clip(), "ref_text": "words"},
            {"references": [{"audio_path": clip()}]},
        ):
            refused = ask(client, **fields)
            assert refused.status_code == 400 and "stored voices only" in refused.json()["error"]["message"]
        form = client.post(
            "/v1/audio/speech", data={"input": "Hello."}, files={"ref_audio": ("a.wav", b"RIFF", "audio/wav")}
        )
        assert form.status_code == 400 and "stored voices only" in form.json()["error"]["message"]
        assert not link.sent
        assert ask(client, voice="default").status_code == 200


def test_the_clip_of_a_request_is_not_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("voices", "tmp", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    class Watched(tempfile.SpooledTemporaryFile[bytes]):
        """The file of a form. It does not leave a name behind when it goes to the disk."""

        made: ClassVar[list[Watched]] = []

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.made.append(self)

        def rollover(self) -> None:
            pytest.fail("a clip goes to the disk")

    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", Watched)
    with served(voices=tmp_path / "voices") as (client, link):
        assert ask(client, ref_audio=clip()).status_code == 200
        assert link.calls()[-1].voice is not None
        for data, status in ((wav(60.0), 200), (b"RIFF" + bytes(10_000_000), 413), (b"RIFF", 400)):
            parts = {"ref_audio": ("a.wav", data, "audio/wav")}
            form = client.post("/v1/audio/speech", data={"input": "Hello.", "response_format": "pcm"}, files=parts)
            assert form.status_code == status
    assert len(Watched.made) == 3 and all(file.closed for file in Watched.made)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
