"""Whole answers of the server are signed, with the hash of the clip that came with the request."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes.certificates import NEEDED, Issued, issued

pytest.importorskip("av", reason="the extra serve is not installed")
pytest.importorskip("h11", reason="the extra serve is not installed")

pytest.importorskip("websockets", reason="the extra serve is not installed")

from speech_service import Service
from websockets.sync.client import connect

from voxcpm.provenance.c2pa.read import Manifest, read_manifest
from voxcpm.provenance.c2pa.signer import Signer, Signing
from voxcpm.provenance.files import read_marks
from voxcpm.server.app import build_state
from voxcpm.server.settings import ServerSettings

pytestmark = NEEDED


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return issued(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def service(papers: Issued) -> Iterator[Service]:
    with Service({"sign_key": papers.key, "sign_cert": papers.cert, "name": "tones"}) as service:
        yield service


def manifest(body: bytes, papers: Issued, folder: Path) -> Manifest | None:
    path = folder / "answer"
    path.write_bytes(body)
    assert read_marks(path) is not None
    return read_manifest(path, papers.root)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "m4a"])
def test_a_whole_answer_is_signed(form: str, service: Service, papers: Issued, tmp_path: Path) -> None:
    answer = service.speak("hello", response_format=form, stream=False, seed=5)
    found = manifest(answer.body, papers, tmp_path)
    assert answer.status == 200 and answer.headers["x-c2pa"] == "embedded"
    assert found is not None and found.state == "Trusted" and found.generation["seed"] == 5


@pytest.mark.parametrize(("form", "stream"), [("opus", False), ("aac", False), ("mp3", True), ("wav", True)])
def test_streams_and_formats_without_a_place_carry_the_statement_only(
    form: str, stream: bool, service: Service, papers: Issued, tmp_path: Path
) -> None:
    options = {"stream_format": "audio"} if stream else {"stream": False}
    answer = service.speak("hello", response_format=form, **options)
    assert answer.status == 200 and "x-c2pa" not in answer.headers
    assert manifest(answer.body, papers, tmp_path) is None


def test_a_clip_of_the_request_is_an_ingredient(service: Service, papers: Issued, tmp_path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(np.arange(32_000) * 0.1), 16_000, format="WAV")
    clip = "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    for words, role, source in (
        (None, "reference", "trainedAlgorithmicMedia"),
        ("one", "prompt", "compositeWithTrainedAlgorithmicMedia"),
    ):
        answer = service.speak("hello", response_format="flac", ref_audio=clip, ref_text=words)
        found = manifest(answer.body, papers, tmp_path)
        assert found is not None and found.source_type == source
        assert [(one.title, one.identity) for one in found.ingredients] == [(role, f"sha256:{digest}")]


def test_the_items_of_a_batch_are_signed(service: Service, papers: Issued, tmp_path: Path) -> None:
    items = [{"input": "one"}, {"input": "two", "response_format": "opus"}]
    answer = service.ask("POST", "/v1/audio/speech/batch", {"items": items, "response_format": "wav"})
    bodies = [base64.b64decode(one["audio_data"]) for one in answer.json["results"]]
    assert [one.get("c2pa") for one in answer.json["results"]] == ["embedded", None]
    found = [manifest(body, papers, tmp_path) for body in bodies]
    assert found[0] is not None and found[0].state == "Trusted" and found[1] is None


def spoken_in_a_session(service: Service, **fields: object) -> tuple[list[dict[str, Any]], bytes]:
    """Return the messages of a session of one unit, and its audio."""
    url = f"ws://127.0.0.1:{service.port}/v1/audio/speech/stream"
    messages: list[dict[str, Any]] = []
    audio = b""
    with connect(url, compression=None) as socket:
        for values in ({"type": "session.config", **fields}, {"type": "input.text", "text": "hello"}):
            socket.send(json.dumps(values))
        socket.send('{"type": "input.done"}')
        while not messages or messages[-1]["type"] != "session.done":
            message = socket.recv(60.0)
            if isinstance(message, bytes):
                audio += message
            else:
                messages.append(json.loads(message))
    return messages, audio


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "m4a"])
def test_a_whole_unit_of_a_session_is_signed(form: str, service: Service, papers: Issued, tmp_path: Path) -> None:
    (_, start, done, _), audio = spoken_in_a_session(service, response_format=form, seed=5)
    found = manifest(audio, papers, tmp_path)
    assert found is not None and found.state == "Trusted" and found.generation["seed"] == 5
    assert start["c2pa"] == "embedded" and done["total_bytes"] == len(audio)


def test_a_streamed_unit_of_a_session_is_not_signed(service: Service, papers: Issued, tmp_path: Path) -> None:
    (_, start, _, _), audio = spoken_in_a_session(service, response_format="mp3", stream_audio=True)
    assert manifest(audio, papers, tmp_path) is None and "c2pa" not in start


def test_a_unit_that_cannot_be_signed_is_not_sent(
    service: Service, papers: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer(papers.key, papers.cert)
    monkeypatch.setattr(signer, "_key", "broken")
    monkeypatch.setattr(service.state, "signing", Signing(signer))
    messages, audio = spoken_in_a_session(service, response_format="wav")
    assert not audio and [one.get("code") for one in messages if one["type"] == "error"] == ["not_signed"]


def test_an_answer_that_cannot_be_signed_is_not_sent(
    service: Service, papers: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer(papers.key, papers.cert)
    monkeypatch.setattr(signer, "_key", "broken")
    monkeypatch.setattr(service.state, "signing", Signing(signer))
    answer = service.speak("hello", response_format="wav")
    assert answer.status == 500 and answer.json["error"]["code"] == "not_signed"


def test_settings_that_cannot_sign_stop_the_start(papers: Issued) -> None:
    with pytest.raises(ValueError, match="belong together"):
        build_state(ServerSettings("tones", sign_key=papers.key))
    with pytest.raises(ValueError, match="--no-mark"):
        build_state(ServerSettings("tones", sign_key=papers.key, sign_cert=papers.cert, no_mark=True))
