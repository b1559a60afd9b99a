"""A server of OpenAI's speech route: what is sent, what comes back, and what a server may do wrong."""

from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes.speech_server import PAUSE_S, RATE, SpeechServer, tone

from evaluation.errors import EvaluationError, SpeakError, TimedOutError
from evaluation.items import Item
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech, System
from evaluation.systems.spoken_bytes import decoded

KEY = "planted-key-0123456789abcdef"
Opener = Callable[..., System]


@pytest.fixture
def server() -> Iterator[SpeechServer]:
    with SpeechServer() as running:
        yield running


@pytest.fixture
def opened(server: SpeechServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Open systems on the server; no wait between requests is long."""
    monkeypatch.setattr("evaluation.systems.openai_speech.FIRST_WAIT_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    systems: list[System] = []

    def start(url: str = "", **options: Any) -> System:
        systems.append(open_system(f"openai:{url or server.url}", options))
        return systems[-1]

    yield start
    for system in systems:
        system.close()


def said(system: System, text: str = "Hello", **fields: Any) -> Speech | Exception:
    (answer,) = system.speak([Ask(Item(text, "en", **fields), 7)])
    return answer


def failed(system: System, text: str = "Hello", **fields: Any) -> str:
    answer = said(system, text, **fields)
    assert isinstance(answer, SpeakError), answer
    assert "\n" not in str(answer)
    return str(answer)


@pytest.mark.parametrize("form", ["wav", "pcm", "flac", "mp3"])
def test_every_format_is_the_audio_that_was_sent(opened: Opener, form: str) -> None:
    answer = said(opened(format=form))
    assert isinstance(answer, Speech) and answer.rate == RATE and answer.samples.dtype == np.float32
    assert answer.wall_s is not None and answer.first_audio_s is None
    if form == "mp3":
        # A lossy format with a delay.
        assert abs(len(answer.samples) / RATE - 0.4) < 0.1 and np.abs(answer.samples).max() > 0.25
    else:
        assert np.abs(answer.samples - tone("Hello")).max() < 1e-4


def test_the_fields_are_those_of_the_wire_format(opened: Opener, server: SpeechServer) -> None:
    system = opened(url=f"{server.url}/v1/", model="m", voice="v", speed=1.5, fields={"extra": {"a": 1}, "voice": "w"})
    assert isinstance(said(system, instruction="sadly"), Speech)
    headers, body = server.requests[0]
    assert body == {
        "model": "m", "input": "Hello", "voice": "w", "response_format": "wav", "speed": 1.5, "instructions": "sadly",
        "extra": {"a": 1},
    }  # fmt: skip
    assert "authorization" not in headers and headers["content-type"] == "application/json"
    assert not system.seeded


def test_clips_words_language_and_seed_are_sent_by_option(opened: Opener, server: SpeechServer, tmp_path: Path) -> None:
    clip = tmp_path / "clip.flac"
    soundfile.write(clip, tone("x"), RATE)
    names = {
        "send_reference": "ref_audio",
        "send_reference_text": "ref_text",
        "send_language": "lang",
        "send_seed": "seed",
    }
    system = opened(**names)
    assert system.seeded
    assert isinstance(said(system, reference=clip, reference_text="its words"), Speech)
    body = server.requests[-1][1]
    assert base64.b64decode(body["ref_audio"], validate=True) == clip.read_bytes()
    assert (body["ref_text"], body["lang"], body["seed"]) == ("its words", "en", 7)
    assert isinstance(said(opened(**names, data_url=True), reference=clip), Speech)
    assert server.requests[-1][1]["ref_audio"] == f"data:audio/flac;base64,{body['ref_audio']}"
    assert "no reference clip" in failed(system)


def test_voices_are_chosen_by_speaker(opened: Opener, server: SpeechServer) -> None:
    system = opened(voices={"anna": "nova", "clip7": "onyx"})
    said(system, groups={"speaker": "anna"})
    said(system, reference=Path("/somewhere/clip7.wav"))
    assert [body["voice"] for _, body in server.requests] == ["nova", "onyx"]
    assert "names no voice for bob" in failed(system, groups={"speaker": "bob"})
    assert "voices" not in system.describe() and len(system.describe()["voices_sha256"]) == 64


def test_busy_then_ok_is_asked_again(opened: Opener, server: SpeechServer) -> None:
    server.plan("Hello", "429", "503", "half", "ok")
    answer = said(opened())
    assert isinstance(answer, Speech) and len(answer.samples) == len(tone("Hello"))
    assert answer.notes == {"requests": 4} and answer.attempts == 1


@pytest.mark.parametrize(
    ("planned", "message", "requests"),
    [
        ("500", "answered 500: planned 500 for nobody (asked 3 times)", 3),
        ("400", "answered 400: planned 400", 1),
        ("broken", "cannot be decoded as wav", 1),
        ("json", "answered audio/wav instead of audio: the engine died", 1),
        ("json_type", "answered application/json instead of audio: the engine died", 1),
        ("sse", "answered text/event-stream instead of audio", 1),
    ],
)
def test_a_text_that_fails_costs_that_text_only(
    opened: Opener, server: SpeechServer, planned: str, message: str, requests: int
) -> None:
    server.plan("Hello", planned)
    system = opened(retries=2)
    assert message in failed(system)
    assert len(server.requests) == requests
    assert isinstance(said(system, "Another text"), Speech)


def test_a_server_that_hangs_is_left_after_the_time(opened: Opener, server: SpeechServer) -> None:
    server.plan("Hello", "hang")
    system = opened(timeout_s=1)
    answer = said(system)
    assert isinstance(answer, TimedOutError) and "no whole answer in 1 s" in str(answer)
    assert len(server.requests) == 1


def test_a_stream_has_the_time_of_its_first_audio_not_of_its_header(opened: Opener, server: SpeechServer) -> None:
    answer = said(opened(stream=True))
    assert server.requests[0][1]["stream_format"] == "audio"
    assert isinstance(answer, Speech) and np.abs(answer.samples - tone("Hello")).max() < 1e-4
    assert answer.first_audio_s is not None and answer.wall_s is not None
    assert PAUSE_S <= answer.first_audio_s < answer.wall_s
    pcm = said(opened(stream=True, format="pcm"))
    assert isinstance(pcm, Speech) and pcm.first_audio_s is not None and len(pcm.samples) == len(tone("Hello"))


def test_requests_of_a_batch_keep_their_order(opened: Opener, server: SpeechServer) -> None:
    server.plan("one", "429", "ok")
    server.plan("two", "500")
    system = opened(batch=3, retries=1)
    first, second, third = system.speak([Ask(Item(text, "en"), 0) for text in ("one", "two", "three")])
    assert isinstance(first, Speech) and isinstance(second, SpeakError) and isinstance(third, Speech)
    assert np.abs(first.samples - tone("one")).max() < 1e-4 and np.abs(third.samples - tone("three")).max() < 1e-4
    assert first.wall_s == third.wall_s


def test_the_key_is_sent_and_shown_nowhere(
    opened: Opener, server: SpeechServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.key = KEY
    monkeypatch.setenv("MY_KEY", KEY)
    server.plan("echo", "400")
    system = opened(key_env="MY_KEY")
    assert isinstance(said(system), Speech)
    message = failed(system, "echo")
    assert "planned 400 for" in message and KEY not in message
    assert KEY not in str(system.describe()) and KEY not in caplog.text


@pytest.mark.parametrize("status", ["401", "404"])
def test_what_no_text_can_pass_ends_the_run(opened: Opener, server: SpeechServer, status: str, tmp_path: Path) -> None:
    server.plan("b", status)
    system = opened()
    run = create_run(tmp_path / "run", {"system": system.describe()}, [Item(text, "en") for text in "abc"], [0, 1])
    with pytest.raises(EvaluationError, match=f"answered {status}.*no text can be spoken"):
        generate(run, system)
    assert [row["status"] for row in run.generated.rows()] == ["ok"]
    server.plan("b", "ok")
    # Without seeds, the first seed only.
    assert generate(run, system) == {"ok": 3}
    assert [body["input"] for _, body in server.requests] == ["a", "b", "b", "c"]


def test_no_server_ends_the_run(opened: Opener) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        system = opened(url=f"http://127.0.0.1:{taken.getsockname()[1]}", retries=1)
        with pytest.raises(EvaluationError, match=r"no connection to 127.0.0.1 .*start the server"):
            said(system)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://host", {}, "not of the form https://host/path: correct the URL"),
        ("http://host", {"voise": "x"}, "openai: unknown setting voise; did you mean voice?"),
        ("http://host", {"format": "ogg"}, "openai: setting format"),
    ],
)
def test_a_wrong_specification_is_one_line(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        open_system(f"openai:{url}", options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_empty_bodies_and_odd_bytes() -> None:
    assert len(decoded(b"", "wav", 16_000)[0]) == 0
    assert len(decoded(b"\1\2\3", "pcm", 16_000)[0]) == 1
    with pytest.raises(ValueError, match="raw PCM; set format=wav"):
        decoded(b"RIFF1234WAVE", "pcm", 16_000)
