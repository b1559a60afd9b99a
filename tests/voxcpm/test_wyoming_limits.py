"""The Wyoming protocol: errors, limits, garbage, addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")
pytest.importorskip("wyoming", reason="the extra dev is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from speech_service import Service
from wyoming.error import Error
from wyoming.event import Event, async_read_event
from wyoming.ping import Ping
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice
from wyoming_client import MODEL, RECORDED, Spoken, heard, serving

from voxcpm.server.run import _listen
from voxcpm.server.settings import ServerSettings
from voxcpm.server.wyoming import connection, server
from voxcpm.server.wyoming import events as our_events

# -- errors and limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([Synthesize("One.", SynthesizeVoice(name="aloy"))], "did you mean 'alloy'"),
        ([Synthesize("One.", SynthesizeVoice(language="tlh"))], "unknown language 'tlh'"),
        ([Synthesize("One.", SynthesizeVoice(name="alloy", speaker="two"))], "no speakers"),
        ([Synthesize("<speak>One.</speak>", MODEL, text_format="ssml")], "plain text"),
        ([Synthesize("fault", MODEL)], "could not generate"),
        ([Synthesize("busy", MODEL)], "queue is full"),
        ([Synthesize("a" * 100_001, MODEL)], "more than 100000 characters"),
        ([SynthesizeChunk("One.")], "send synthesize-start first"),
        ([SynthesizeStop()], "send synthesize-start first"),
        ([SynthesizeStart(MODEL), SynthesizeStart(MODEL)], "streamed already"),
        ([SynthesizeStart(MODEL), *[SynthesizeChunk("a" * 60_000)] * 2], "more than 100000 characters"),
        ([Event("synthesize", {"voice": {"name": "default"}})], "text is missing"),
        ([Event("synthesize", {"text": "One.", "voice": "alloy"})], "voice: send an object"),
        ([Event("synthesize", {"text": "One.", "voice": {"name": ["alloy"]}})], "voice: send an object"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_and_the_connection_ends(events: list[Any], words: str) -> None:
    async def scenario(spoken: Spoken) -> None:
        async with spoken.client() as client:
            for event in events:
                await client.write_event(event if isinstance(event, Event) else event.event())
            # Home Assistant ignores errors and reads on: only the end of the connection tells it.
            found = await heard(client, "nothing ends it")
        assert words in Error.from_event(found[-1]).text and Error.from_event(found[-1]).code
        assert "audio-stop" not in {event.type for event in found}

    serving(scenario)


def test_unknown_events_are_dropped() -> None:
    async def scenario(spoken: Spoken) -> None:
        unknown = Event("transcribe", {"name": "x"}, payload=b"\0" * 2048)
        assert (await spoken.answer(unknown, Ping("a"), until="pong"))[-1].type == "pong"

    serving(scenario)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + RECORDED, "not_an_event"),
        (b"\x16\x03\x01\x02\x00\n", "not_an_event"),
        (b"[]\n", "not_an_event"),
        (b'{"type": 5}\n', "not_an_event"),
        (b'{"type": "ping", "data": [1]}\n', "not_an_event"),
        (b'{"type": "ping", "data_length": 4}\n[1]\n', "not_an_event"),
        (b'{"type": "ping", "data": ' + b'{"a":' * 40 + b"1" + b"}" * 41 + b"\n", "not_an_event"),
        (b'{"type": "ping", "data_length": -1}\n', "invalid_request_error"),
        (b'{"type": "ping", "data_length": true}\n', "invalid_request_error"),
        (b'{"type": "ping", "data_length": 262145}\n', "event_too_long"),
        (b'{"type": "ping", "payload_length": 1e99}\n', "invalid_request_error"),
        (b'{"type": "ping", "payload_length": 99999999999}\n', "event_too_long"),
        (b'{"type": "' + b"a" * 200_000, "event_too_long"),
    ],
)  # fmt: skip
def test_what_is_not_an_event_ends_the_connection(raw: bytes, code: str) -> None:
    """A web page can make a browser send a form to this port: nothing behind its first line is read."""

    async def scenario(spoken: Spoken) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", spoken.port)
        writer.write(raw)
        event = await async_read_event(reader)
        assert event is not None and Error.from_event(event).code == code
        assert await reader.read() == b"" and not spoken.link.texts
        writer.close()

    serving(scenario)


def test_waiting_events_are_bounded() -> None:
    async def scenario(spoken: Spoken) -> None:
        texts = [Synthesize("hold this", MODEL), *[Synthesize("One.", MODEL)] * (connection.MOST_WAITING + 1)]
        assert "events are waiting" in (await spoken.fault(*texts)).text

    serving(scenario)


def test_waiting_characters_are_bounded() -> None:
    async def scenario(spoken: Spoken) -> None:
        long = [Synthesize("a" * 30_000, MODEL)] * 4
        assert "characters are waiting" in (await spoken.fault(Synthesize("hold this", MODEL), *long)).text
        # A text that is too long is refused at once, not when its turn comes.
        longer = Synthesize("a" * 100_001, MODEL)
        assert "the text has more than" in (await spoken.fault(Synthesize("hold this", MODEL), longer)).text
        # The whole of a streamed text, which is not spoken, does not count.
        pieces = [SynthesizeStart(MODEL), SynthesizeChunk("a" * 90_000), Synthesize("a" * 90_000), SynthesizeStop()]
        found = await spoken.answer(Synthesize("hold this", MODEL), *pieces, Ping(), until="pong")
        assert found[-1].type == "pong"

    serving(scenario)


def test_an_event_that_waits_holds_only_what_is_used() -> None:
    rest = {"context": ["x"] * 9, "name": None, "voice": {"name": "default", "more": [1]}}
    kept = connection._reduced(our_events.Event("synthesize", {"text": "One.", **rest}, b"sound"))
    assert kept == our_events.Event("synthesize", {"text": "One.", "voice": {"name": "default"}})


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)

    async def scenario(spoken: Spoken) -> None:
        async with spoken.client() as first, spoken.client() as second:
            for client in (first, second):
                await client.write_event(Ping().event())
                await heard(client, "pong")
            async with spoken.client() as third:
                assert "2 connections" in Error.from_event((await heard(third, "error"))[-1]).text
        while (await spoken.answer(Ping(), until="pong"))[-1].type != "pong":
            await asyncio.sleep(0.01)

    serving(scenario)


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_S", 0.05)

    async def scenario(spoken: Spoken) -> None:
        async with spoken.client() as client:
            assert await heard(client, "") == []
        # Half an event is none.
        reader, writer = await asyncio.open_connection("127.0.0.1", spoken.port)
        writer.write(b'{"type": "pi')
        assert await reader.read() == b""
        writer.close()

    serving(scenario)


def test_a_reader_that_stops_is_dropped() -> None:
    async def scenario(spoken: Spoken) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", spoken.port, limit=1024)
        text = " ".join(f"This is sentence number {n} of a very long text." for n in range(1900))
        writer.write(our_events.Event("synthesize", {"text": text, "voice": {"name": "default"}}).packed())
        while not spoken.state.running:
            await asyncio.sleep(0.01)
        while spoken.state.answering:
            await asyncio.sleep(0.01)
        assert len(spoken.link.texts) < 1900 / 3
        writer.transport.abort()

    serving(scenario, slow_reader_s=0.2)


EVENTS = st.sampled_from(
    ["synthesize", "synthesize-start", "synthesize-chunk", "synthesize-stop", "select-program", "ping"]
)
VALUES = (
    st.none()
    | st.integers()
    | st.text(max_size=8)
    | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2)
)
DATA = st.dictionaries(st.sampled_from(["text", "voice", "text_format", "name", "data"]), VALUES, max_size=4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(EVENTS, DATA), max_size=6), st.binary(max_size=20))
def test_any_events_leave_nothing_behind(sent: list[tuple[str, dict[str, Any]]], rest: bytes) -> None:
    async def scenario(spoken: Spoken) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", spoken.port)
        writer.write(b"".join(our_events.Event(*one).packed() for one in sent) + rest)
        writer.write_eof()
        await reader.read()
        writer.close()

    serving(scenario)


@settings(max_examples=25, deadline=None)
@given(
    st.text(min_size=1, max_size=10), st.dictionaries(st.text(max_size=5), VALUES, max_size=3), st.binary(max_size=30)
)
def test_events_are_those_of_the_package(kind: str, data: dict[str, Any], payload: bytes) -> None:
    async def scenario() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(our_events.Event(kind, data, payload).packed())
        reader.feed_eof()
        event = await async_read_event(reader)
        assert event is not None and (event.type, event.data, event.payload or b"") == (kind, data, payload)

    asyncio.run(scenario())


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "address"),
    [("10200", ("127.0.0.1", 10200)), (":0", ("127.0.0.1", 0)), ("[::1]:80", ("::1", 80)), ("localhost:1", ("localhost", 1))],
)  # fmt: skip
def test_addresses(given: str, address: tuple[str, int]) -> None:
    settings = ServerSettings("tones", wyoming=given)
    settings.check()
    assert settings.wyoming_address == address


@pytest.mark.parametrize("given", ["", "here", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "a:b"])
def test_wrong_addresses_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        ServerSettings("tones", wyoming=given).check()


def test_a_port_without_keys_is_opened_consciously(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "[::]", "192.168.1.4"):
        with pytest.raises(ValueError, match="--wyoming-no-keys"):
            ServerSettings("tones", wyoming=f"{host}:10200").check()
        ServerSettings("tones", wyoming=f"{host}:10200", wyoming_no_keys=True).check()
        ServerSettings("tones", wyoming=f"{host}:10200", no_keys=True).check()
    # Behind keys, a port that asks for none is a way around them, on this machine too.
    with pytest.raises(ValueError, match="--wyoming-no-keys"):
        ServerSettings("tones", wyoming="10200", keys=tmp_path / "keys").check()
    ServerSettings("tones", wyoming="10200", keys=tmp_path / "keys", wyoming_no_keys=True).check()


def test_a_taken_address_is_told() -> None:
    taken = _listen("127.0.0.1", 0)
    with pytest.raises(OSError, match="choose another --wyoming"):
        Service({"wyoming": str(taken.getsockname()[1])}).__enter__()
    taken.close()
