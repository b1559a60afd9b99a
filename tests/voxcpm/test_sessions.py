"""WebSocket sessions: the messages of vLLM-Omni and ours, what continues what, cancelling, limits, and garbage."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes.scripted_link import PATCH
from starlette.websockets import WebSocketDisconnect
from talking import PATH, TEXT, Talk, served, talking

from voxcpm.server.process.messages import Cancel, Forget
from voxcpm.server.websocket import session
from voxcpm.server.websocket.messages import parse_message


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
