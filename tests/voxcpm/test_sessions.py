"""WebSocket sessions: the messages of vLLM-Omni and ours, what continues what, cancelling, limits, and garbage."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes.scripted_link import PATCH, ScriptedLink
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from voxcpm.server import app as server
from voxcpm.server.process.messages import Cancel, Forget
from voxcpm.server.settings import ServerSettings
from voxcpm.server.websocket import messages, session
from voxcpm.server.websocket.messages import parse_message

PATH = "ws://localhost/v1/audio/speech/stream"
TEXT = "One two three four. Five six seven eight nine. Ten eleven twelve"


class Talk:
    """A client of one session."""

    def __init__(self, socket: WebSocketTestSession, link: ScriptedLink) -> None:
        self.socket, self.link = socket, link

    def say(self, kind: str, **values: Any) -> None:
        self.socket.send_text(json.dumps({"type": kind, **values}))

    def configure(self, **values: Any) -> dict[str, Any]:
        self.say("session.config", **{"split_granularity": "sentence", "stream_audio": True, "seed": 5, **values})
        return self.next()

    def next(self) -> dict[str, Any]:
        """The next message that is not audio."""
        return self.until()[0]

    def until(self, kind: str | None = None) -> tuple[dict[str, Any], bytes, list[dict[str, Any]]]:
        """(the next message of this type, the audio before it, the messages before it)."""
        audio = b""
        before: list[dict[str, Any]] = []
        while True:
            message = self.socket.receive()
            if message["type"] == "websocket.close":
                raise WebSocketDisconnect(message["code"])
            if message.get("bytes") is not None:
                audio += message["bytes"]
                continue
            found: dict[str, Any] = json.loads(message["text"])
            if kind in (None, found["type"]):
                return found, audio, before
            before.append(found)


@contextmanager
def served(**values: Any) -> Iterator[tuple[TestClient, ScriptedLink]]:
    """A server around the scripted engine."""
    state = server.build_state(replace(ServerSettings("model"), **values))
    link = ScriptedLink()
    state.link = link
    state.references.cache._link = link  # type: ignore[union-attr]
    with TestClient(server.make_app(state), base_url="http://localhost") as client:
        yield client, link


@contextmanager
def talking(**values: Any) -> Iterator[Talk]:
    with served(**values) as (client, link), client.websocket_connect(PATH) as socket:
        yield Talk(socket, link)


def test_messages_of_an_utterance() -> None:
    with talking() as talk:
        configured = talk.configure(response_format="pcm", sample_rate=48000, nonsense=1, language="en")
        assert configured["type"] == "session.configured" and configured["sample_rate"] == 48000
        assert {"nonsense", "language"} <= set(configured["ignored_fields"])
        for letter in TEXT:
            talk.say("input.text", text=letter)
        talk.say("input.done")
        done, audio, before = talk.until("session.done")
        assert done == {"type": "session.done", "utterance_index": 0, "total_sentences": 3}
        starts = [message for message in before if message["type"] == "audio.start"]
        ends = [message for message in before if message["type"] == "audio.done"]
        assert [message["sentence_text"] for message in starts] == talk.link.texts
        assert "".join(talk.link.texts).replace(" ", "") == TEXT.replace(" ", "")
        assert [message["sentence_index"] for message in starts] == [0, 1, 2]
        assert all(m["format"] == "pcm" and m["sample_rate"] == 48000 and m["channels"] == 1 for m in starts)
        assert len(audio) == 12 * PATCH * 2 == sum(message["total_bytes"] for message in ends)
        assert not any(message["error"] for message in ends)
        # The connection stays.
        talk.say("input.text", text="Again.")
        talk.say("input.done")
        assert talk.until("session.done")[0]["utterance_index"] == 1


def test_a_character_may_be_divided_between_two_messages() -> None:
    with talking() as talk:
        talk.configure()
        for part in ("I like it \ud83d", "\ude00 very much. ", "\ude00 Or not \ud83d"):
            talk.say("input.text", text=part)
        talk.say("input.done")
        starts = [m for m in talk.until("session.done")[2] if m["type"] == "audio.start"]
        assert [m["sentence_text"] for m in starts] == ["I like it \U0001f600 very much.", "\ufffd Or not"]
        assert talk.configure(voice="\ud83d")["type"] == "error"


def test_every_unit_continues_the_one_before() -> None:
    with talking() as talk:
        talk.configure(instructions="A calm voice")
        for _ in range(2):
            talk.say("input.text", text=TEXT)
            talk.say("input.done")
            talk.until("session.done")
        calls = talk.link.calls()
        assert [call.after for call in calls] == [None, *(call.call for call in calls[:-1])]
        assert all(call.keep for call in calls) and [call.seed for call in calls] == [5, 6, 7, 8, 9, 10]
        assert calls[0].text.startswith("(A calm voice)One") and not any("(" in call.text for call in calls[1:])
    # The engine keeps nothing of a session that is over.
    assert {m.call for m in talk.link.sent if isinstance(m, Forget)} == {call.call for call in calls}


def test_units_stand_alone_without_carry() -> None:
    with talking() as talk:
        talk.configure(carry=False, instructions="A calm voice")
        talk.say("input.text", text=TEXT)
        talk.say("input.done")
        talk.until("session.done")
        calls = talk.link.calls()
        assert all(call.after is None and not call.keep and call.seed == 5 for call in calls) and len(calls) == 3
        assert all(call.text.startswith("(A calm voice)") for call in calls)


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus"])
def test_whole_units(form: str) -> None:
    with talking() as talk:
        assert talk.configure(stream_audio=False, response_format=form, split_granularity="none")["format"] == form
        talk.say("input.text", text=TEXT)
        talk.say("input.done")
        talk.until("audio.start")
        message = talk.socket.receive()
        assert message["bytes"][:4] in (b"RIFF", b"fLaC", b"OggS") or message["bytes"][:3] == b"ID3"
        assert talk.next()["total_bytes"] == len(message["bytes"])
        assert talk.link.texts == [TEXT]


@pytest.mark.parametrize(("form", "streams"), [("wav", True), ("flac", True), ("pcm", False)])
def test_streamed_units_are_live_in_every_format(form: str, streams: bool) -> None:
    with talking() as talk:
        talk.configure(stream_audio=streams, response_format=form)
        talk.say("input.text", text=TEXT)
        talk.say("input.done")
        talk.until("session.done")
        assert {call.kind for call in talk.link.calls()} == {"live" if streams else "whole"}


def test_a_long_configuration_is_read_by_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: dict[str, int] = {}

    def read(raw: str, most: int) -> dict[str, Any]:
        message = parse_message(raw, most)
        readers[message["type"]] = threading.get_ident()
        return message

    monkeypatch.setattr(session, "parse_message", read)
    with talking() as talk:
        talk.configure(unused="a" * 100_000)
        talk.say("input.cancel")
        talk.until("audio.cancelled")
    assert readers["session.config"] != readers["input.cancel"]


def test_defaults_are_those_of_the_dialect() -> None:
    with talking() as talk:
        talk.say("session.config")
        assert talk.next()["format"] == "wav"
        talk.say("input.text", text="One. Two. Three.")
        talk.say("input.commit")
        found, _, before = talk.until("input.committed")
        assert found["units"] == 1 and not [m for m in before if m["type"] == "session.done"]
        talk.say("input.done")
        assert talk.until("session.done")[0]["total_sentences"] == 1


def test_cancel_in_the_middle_of_a_unit() -> None:
    with talking() as talk:
        talk.configure()
        talk.say(
            "input.text",
            text="This one is spoken well. Now hold it until the end. This is never spoken. And this is not",
        )
        start = [talk.until("audio.start")[0] for _ in range(2)][-1]
        assert start["sentence_index"] == 1
        talk.say("input.cancel")
        cancelled, _, before = talk.until("audio.cancelled")
        assert cancelled == {"type": "audio.cancelled", "utterance_index": 0, "sentence_index": 1, "dropped": 1}
        assert not [m for m in before if m["type"] == "audio.done"]
        held = talk.link.calls()[1]
        assert held.text == "Now hold it until the end." and Cancel(held.call) in talk.link.sent
        talk.say("input.text", text="Go ahead with something else.")
        talk.say("input.done")
        done, _, before = talk.until("session.done")
        assert done["utterance_index"] == 1 and done["total_sentences"] == 1
        assert talk.link.texts[-1] == "Go ahead with something else."
        # It continues what was spoken to its end, not what was interrupted.
        assert talk.link.calls()[-1].after == talk.link.calls()[0].call and Forget(held.call) in talk.link.sent


def test_cancel_without_anything_to_cancel() -> None:
    with talking() as talk:
        talk.configure()
        talk.say("input.cancel")
        assert talk.next() == {"type": "audio.cancelled", "utterance_index": 0, "sentence_index": None, "dropped": 0}


def test_a_unit_that_fails_does_not_end_the_session() -> None:
    with talking() as talk:
        talk.configure()
        talk.say("input.text", text="This one is fine. Here is a fault of it. This one is fine, too.")
        talk.say("input.done")
        _, _, before = talk.until("session.done")
        errors = [message for message in before if message["type"] == "error"]
        ends = [message for message in before if message["type"] == "audio.done"]
        assert len(errors) == 1 and errors[0]["sentence_index"] == 1 and errors[0]["partial_audio"] is True
        assert [message["error"] for message in ends] == [False, True, False]
        calls = talk.link.calls()
        assert calls[2].after == calls[0].call


def test_a_first_unit_may_be_refused() -> None:
    with talking() as talk:
        talk.configure()
        talk.say("input.text", text="The engine is busy now. This one is fine.")
        talk.say("input.done")
        _, _, before = talk.until("session.done")
        (error,) = [message for message in before if message["type"] == "error"]
        assert error["sentence_index"] == 0 and error["action"] == "retry" and not error["partial_audio"]


def test_a_later_unit_waits_for_its_place() -> None:
    with talking() as talk:
        talk.configure()
        talk.link.refusals = ["busy", "busy"]
        talk.say("input.text", text=TEXT)
        talk.say("input.done")
        done, audio, before = talk.until("session.done")
        assert done["total_sentences"] == 3 and not any(message["type"] == "error" for message in before)
        assert audio and [m["error"] for m in before if m["type"] == "audio.done"] == [False] * 3
        assert [call.deadline_s for call in talk.link.calls()] == [None, *[math.inf] * 4]


def test_a_unit_whose_continuation_is_lost_begins_again() -> None:
    with talking() as talk:
        talk.configure(instructions="A calm voice")
        talk.link.refusals = ["lost"]
        talk.say("input.text", text=TEXT)
        talk.say("input.done")
        _, audio, before = talk.until("session.done")
        assert audio and not any(message["type"] == "error" for message in before)
        first, lost, again, last = talk.link.calls()
        assert lost.after == first.call and not lost.text.startswith("(")
        assert again.after is None and again.text == f"(A calm voice){lost.text}"
        assert last.after == again.call


def test_close_waits_for_the_audio() -> None:
    with talking() as talk:
        talk.configure()
        talk.say("input.text", text=TEXT)
        talk.say("input.done")
        talk.say("session.close")
        talk.until("session.done")
        with pytest.raises(WebSocketDisconnect) as closed:
            talk.next()
        assert closed.value.code == 1000


def test_a_client_that_leaves_cancels_its_unit() -> None:
    with served() as (client, link):
        with client.websocket_connect(PATH) as socket:
            talk = Talk(socket, link)
            talk.configure()
            talk.say("input.text", text="Please hold this one for me. ")
            talk.until("audio.start")
        assert Cancel(link.calls()[0].call) in link.sent and not link.channels


def test_words_that_wait_are_spoken_after_a_while() -> None:
    with talking() as talk:
        talk.configure(max_buffer_delay_ms=1)
        talk.say("input.text", text="These words have no end")
        talk.until("audio.done")
        talk.say("input.done")
        talk.until("session.done")
        assert talk.link.texts == ["These words have no", "end"]


def test_configurations_that_are_refused() -> None:
    for values in (
        {"split_granularity": "words"},
        {"max_buffer_delay_ms": -1},
        {"carry": "perhaps"},
        {"response_format": "midi"},
        {"voice": "nobody"},
        {"speaker_embedding": [1.0]},
        {"cfg_value": 99},
        {"ref_audio": "file:///etc/passwd"},
        {"strict": True, "nonsense": 1},
    ):
        with talking() as talk:
            assert talk.configure(**values)["type"] == "error", values
            with pytest.raises(WebSocketDisconnect) as closed:
                talk.next()
            assert closed.value.code == 1008


def test_a_wrong_configuration_leaves_the_earlier_one() -> None:
    with talking() as talk:
        talk.configure()
        assert talk.configure(voice="nobody")["code"] == "voice_not_found"
        talk.say("input.text", text="Hello there. ")
        talk.say("session.config")
        assert "in progress" in talk.until("error")[0]["message"]
        talk.say("input.done")
        talk.until("session.done")
        assert talk.configure(response_format="wav")["format"] == "wav"


def test_text_before_the_configuration_ends_the_session() -> None:
    with talking() as talk:
        talk.say("input.text", text="Hello")
        assert "session.config" in talk.next()["message"]
        with pytest.raises(WebSocketDisconnect):
            talk.next()


@pytest.mark.parametrize(("name", "configured"), [("CONFIG_S", False), ("IDLE_S", True)])
def test_a_silent_client_is_left(monkeypatch: pytest.MonkeyPatch, name: str, configured: bool) -> None:
    monkeypatch.setattr(session, name, 0.01)
    with talking() as talk:
        if configured:
            talk.configure()
        assert "within 0.01 s" in talk.next()["message"]
        with pytest.raises(WebSocketDisconnect):
            talk.next()


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    with talking() as talk:
        talk.configure()
        talk.say("input.text", text="a" * messages.MOST_MESSAGE)
        assert talk.next()["code"] == "message_too_long"
        monkeypatch.setattr(session, "MOST_TEXT", 80_000)
        for _ in range(5):
            talk.say("input.text", text=" " * 20_000)
        assert talk.next()["code"] == "session_too_long"
        with pytest.raises(WebSocketDisconnect) as closed:
            talk.next()
        assert closed.value.code == 1009


def test_many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_SESSIONS", 1)
    with served() as (client, link):
        for _ in range(2):
            with client.websocket_connect(PATH) as first:
                assert Talk(first, link).configure()["type"] == "session.configured"
                with client.websocket_connect(PATH) as second, pytest.raises(WebSocketDisconnect) as closed:
                    assert Talk(second, link).next()["code"] == "rate_limit_exceeded"
                    Talk(second, link).next()
                assert closed.value.code == 1013


def test_keys(tmp_path: Path) -> None:
    from voxcpm.server.access.keys import make_key

    secret, line = make_key("anna")
    (tmp_path / "keys").write_text(line + "\n")
    with served(keys=tmp_path / "keys") as (client, link):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(PATH):
            pass
        headers = {"authorization": f"Bearer {secret}"}
        with client.websocket_connect(PATH, headers=headers) as socket:
            assert Talk(socket, link).configure()["type"] == "session.configured"
        protocols = ["realtime", f"openai-insecure-api-key.{secret}"]
        with client.websocket_connect(PATH, subprotocols=protocols) as socket:
            assert socket.accepted_subprotocol == "realtime"
            assert Talk(socket, link).configure()["type"] == "session.configured"


def test_pages_of_other_sites_are_refused() -> None:
    headers = {"origin": "https://evil.example.org"}
    with served() as (client, _), pytest.raises(WebSocketDisconnect), client.websocket_connect(PATH, headers=headers):
        pass


def test_the_death_of_the_engine_ends_a_unit_and_not_the_session() -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    client = pytest.importorskip("websockets.sync.client", reason="the extra serve is not installed")
    from speech_service import Service

    with Service() as service, client.connect(f"ws://127.0.0.1:{service.port}/v1/audio/speech/stream") as socket:

        def speak(text: str) -> list[dict[str, Any]]:
            socket.send(json.dumps({"type": "input.text", "text": text}))
            socket.send(json.dumps({"type": "input.done"}))
            found: list[dict[str, Any]] = []
            while not found or found[-1]["type"] != "session.done":
                message = socket.recv(60)
                if isinstance(message, str):
                    found.append(json.loads(message))
            return found

        socket.send(json.dumps({"type": "session.config", "stream_audio": True}))
        assert json.loads(socket.recv(60))["type"] == "session.configured"
        assert not any(message["type"] == "error" for message in speak("Hello."))
        (error,) = [message for message in speak("kill") if message["type"] == "error"]
        assert (error["code"], error["partial_audio"], error["action"]) == ("engine_lost", True, "discard")
        # The engine is started again.
        while service.ask("GET", "/ready").status != 200:
            pass
        assert not any(message["type"] == "error" for message in speak("Hello again."))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from([*messages.CLIENT, "input.txt", "", 3, None])
FIELDS = st.sampled_from(
    ["text", "voice", "seed", "speed", "ref_audio", "ref_text", "references", "carry", "instructions", "max_new_tokens",
     "split_granularity", "max_buffer_delay_ms", "response_format", "sample_rate", "model", "task_type"]
)  # fmt: skip
GARBAGE = st.one_of(
    st.text(max_size=60),
    JSON.map(json.dumps),
    st.builds(lambda kind, rest: json.dumps({**rest, "type": kind}), TYPES, st.dictionaries(FIELDS, JSON, max_size=4)),
    st.integers(100, 100_000).map(lambda depth: "[" * depth),
    st.integers(2, 200).map(lambda depth: '{"type":' * depth + '"input.text"' + "}" * depth),
)


@pytest.fixture(scope="module")
def one_server() -> Iterator[tuple[TestClient, ScriptedLink]]:
    with served() as found:
        yield found


@given(st.lists(GARBAGE, min_size=1, max_size=8), st.booleans())
@settings(max_examples=40)
def test_garbage_is_answered_or_ends_the_session(
    one_server: tuple[TestClient, ScriptedLink], sent: list[str], configured: bool
) -> None:
    client, link = one_server
    with client.websocket_connect(PATH) as socket:
        talk = Talk(socket, link)
        if configured:
            talk.configure()
        for text in sent:
            socket.send_text(text)
        talk.say("input.cancel")
        try:
            # Whatever came before, the session answers or is closed with a code of ours.
            talk.until("audio.cancelled")
        except WebSocketDisconnect as closed:
            assert closed.code in (1000, 1008, 1009)
    assert not link.channels


@given(JSON)
def test_parsed_messages_have_a_known_type(value: Any) -> None:
    from voxcpm.server.errors import ApiError

    try:
        found = parse_message(json.dumps(value), 1 << 20)
    except ApiError as error:
        assert error.status in (400, 413)
    else:
        assert found["type"] in messages.CLIENT
