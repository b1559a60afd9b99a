"""The Wyoming protocol: the client of the package `wyoming`, a recorded exchange of Home Assistant, errors, limits, garbage."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")
pytest.importorskip("wyoming", reason="the extra dev is not installed")

import numpy as np
from fakes.scripted_link import PATCH, RATE, ScriptedLink
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_service import WAIT_S, Service, until
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

from catalogs.vocabulary.languages import languages
from voxcpm.provenance.statement import Statement
from voxcpm.server.app import build_state
from voxcpm.server.process.messages import Cancel
from voxcpm.server.run import _listen
from voxcpm.server.settings import ServerSettings
from voxcpm.server.state import ServerState
from voxcpm.server.voices.store import Voice, VoiceFolder
from voxcpm.server.wyoming import connection, description, server
from voxcpm.server.wyoming import events as our_events

MODEL = SynthesizeVoice(name="default")
#: As Home Assistant sends it, with the package wyoming 1.10.2: the text in pieces, then the whole of it again.
RECORDED = (
    b'{"type": "synthesize-start", "version": "1.10.2", "data_length": 30}\n{"voice": {"name": "default"}}'
    b'{"type": "synthesize-chunk", "version": "1.10.2", "data_length": 25}\n{"text": "It is now sev"}'
    b'{"type": "synthesize-chunk", "version": "1.10.2", "data_length": 37}\n{"text": "en in the morning. The ki"}'
    b'{"type": "synthesize-chunk", "version": "1.10.2", "data_length": 30}\n{"text": "tchen light is on."}'
    b'{"type": "synthesize", "version": "1.10.2", "data_length": 98}\n'
    b'{"text": "It is now seven in the morning. The kitchen light is on.", "voice": {"name": "default"}}'
    b'{"type": "synthesize-stop", "version": "1.10.2"}\n'
)


class Spoken:
    """A server around the scripted engine, in this event loop."""

    def __init__(self, state: ServerState, link: ScriptedLink, port: int) -> None:
        self.state, self.link, self.port = state, link, port

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncTcpClient]:
        async with AsyncTcpClient("127.0.0.1", self.port, WAIT_S, WAIT_S) as client:
            yield client

    async def answer(self, *events: Any, until: str = "audio-stop") -> list[Event]:
        """Send events on a new connection; return those that come until one of this type, or the end."""
        async with self.client() as client:
            for event in events:
                await client.write_event(event if isinstance(event, Event) else event.event())
            return await heard(client, until)

    async def fault(self, *events: Any) -> Error:
        """Return the error that the events end in."""
        found = await self.answer(*events, until="error")
        return Error.from_event(found[-1])


async def heard(client: AsyncTcpClient, until: str) -> list[Event]:
    found = []
    while (event := await client.read_event()) is not None:
        found.append(event)
        if event.type == until:
            break
    return found


def audio(events: list[Event]) -> bytes:
    return b"".join(AudioChunk.from_event(event).audio for event in events if AudioChunk.is_type(event.type))


def serving(scenario: Callable[[Spoken], Awaitable[None]], **values: Any) -> None:
    """Run a scenario against a server around the scripted engine."""

    async def run() -> None:
        state = build_state(replace(ServerSettings("model", pcm_rate="native", no_watermark=True), **values))
        link = ScriptedLink()
        state.link = link
        state.references.cache._link = link  # type: ignore[union-attr]
        served = server.WyomingServer(state, _listen("127.0.0.1", 0))
        await served.start()
        try:
            await asyncio.wait_for(scenario(Spoken(state, link, served.port)), WAIT_S)
        finally:
            await served.stop()
            assert not state.running and state.answering == 0 and not link.channels

    asyncio.run(run())


# -- what the server says about itself ---------------------------------------------------------------------------------


def test_describe_lists_programs_voices_and_languages(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()

    async def scenario(spoken: Spoken) -> None:
        found = Info.from_event((await spoken.answer(Describe(), until="info"))[-1])
        assert [program.name for program in found.tts] == ["speaker", "anna"]
        program = found.tts[0]
        assert program.installed and program.supports_synthesize_streaming and program.attribution.url
        voices = {voice.name: voice for voice in program.voices}
        assert set(voices) == {*spoken.state.voices.names(), "default"}  # type: ignore[union-attr]
        assert len(voices) == 14 and all(voice.installed and voice.attribution.name for voice in program.voices)
        assert (voices["alloy"].description or "").startswith("alloy: A young adult")
        assert sorted(voices["alloy"].languages) == sorted(languages())
        assert not (found.asr or found.wake or found.handle or found.intent or found.mic or found.snd)

    serving(scenario, name="speaker", lora=(f"anna={tmp_path / 'anna'}",))


def test_ping_is_answered() -> None:
    async def scenario(spoken: Spoken) -> None:
        found = await spoken.answer(Ping("are you there"), until="pong")
        assert Pong.from_event(found[-1]).text == "are you there"

    serving(scenario)


# -- speech ------------------------------------------------------------------------------------------------------------


def test_a_text_is_spoken() -> None:
    async def scenario(spoken: Spoken) -> None:
        found = await spoken.answer(Synthesize("One two three four.", MODEL))
        start = AudioStart.from_event(found[0])
        assert (start.rate, start.width, start.channels) == (RATE, 2, 1)
        assert len(audio(found)) == 2 * 4 * PATCH and spoken.link.texts == ["One two three four."]
        chunks = [AudioChunk.from_event(event) for event in found[1:-1]]
        assert [chunk.timestamp for chunk in chunks] == [0, 160, 320, 480]
        assert AudioStop.from_event(found[-1]).timestamp == 640
        # The audio says that it is synthetic.
        about = Statement.from_tags({"comment": json.dumps(found[0].data)})
        assert about is not None and about.checkpoint == "d" * 64 and about.model == "model"

    serving(scenario)


def test_the_statement_is_left_out_on_request() -> None:
    async def scenario(spoken: Spoken) -> None:
        found = await spoken.answer(Synthesize("One two.", MODEL))
        assert set(found[0].data) == {"rate", "width", "channels", "timestamp"}

    serving(scenario, no_mark=True)


def test_a_long_text_is_spoken_in_pieces_that_continue_each_other() -> None:
    text = " ".join(f"This is sentence number {n} of a text that is much longer than one piece." for n in range(12))

    async def scenario(spoken: Spoken) -> None:
        found = await spoken.answer(Synthesize(text, MODEL))
        calls = spoken.link.calls()
        assert len(calls) > 2 and " ".join(call.text for call in calls) == text
        assert [call.after for call in calls] == [None, *(call.call for call in calls[:-1])]
        assert [event.type for event in found].count("audio-start") == 1 and len(audio(found)) > 0

    serving(scenario)


def test_a_request_without_a_voice_has_the_default(tmp_path: Path) -> None:
    async def scenario(spoken: Spoken) -> None:
        await spoken.answer(Synthesize("One two."))
        await spoken.answer(Synthesize("Three four.", SynthesizeVoice(language="de-DE")))
        *_, first, second = spoken.link.calls()
        assert first.voice is None and second.voice is None
        names = await description.voice_names(spoken.state)
        assert names[:3] == ["default", "her", "alloy"]

    _store(tmp_path, "her")
    serving(scenario, voices=tmp_path)


def test_voices_without_a_consent_that_counts_are_not_listed(tmp_path: Path) -> None:
    async def scenario(spoken: Spoken) -> None:
        names = await description.voice_names(spoken.state)
        assert "her" not in names and names[:2] == ["default", "alloy"]
        assert (await spoken.answer(Synthesize("One two.")))[-1].type == "audio-stop"
        assert "no checked consent" in (await spoken.fault(Synthesize("One.", SynthesizeVoice(name="her")))).text

    _store(tmp_path, "her")
    serving(scenario, voices=tmp_path, require_consent=True)


def _store(folder: Path, name: str) -> None:
    voice = Voice(name, "uploaded", consent="She agreed.", clip_sha256="0" * 64)
    VoiceFolder(folder).add(voice, {"ref_audio_feat": np.zeros((3, 4, 64), np.float32)})


def test_a_program_is_an_adapter(tmp_path: Path) -> None:
    async def scenario(spoken: Spoken) -> None:
        await spoken.answer(SelectProgram("anna"), Synthesize("One two.", MODEL))
        assert spoken.link.calls()[-1].adapter == "anna"
        assert "did you mean 'anna'" in (await spoken.fault(SelectProgram("ana"))).text

    serving(scenario, lora=(f"anna={tmp_path}",))


def test_home_assistant_streams() -> None:
    """The recorded exchange: audio once, although the text comes twice; the end is synthesize-stopped."""

    async def scenario(spoken: Spoken) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", spoken.port)
        for start in range(0, len(RECORDED), 50):
            writer.write(RECORDED[start : start + 50])
            await writer.drain()
        found: list[Event] = []
        while not found or not SynthesizeStopped.is_type(found[-1].type):
            event = await async_read_event(reader)
            assert event is not None
            found.append(event)
        writer.close()
        assert spoken.link.texts == ["It is now seven in the morning.", "The kitchen light is on."]
        kinds = [event.type for event in found]
        assert kinds == ["audio-start", *["audio-chunk"] * 12, "audio-stop", "synthesize-stopped"]
        assert len(audio(found)) == 2 * 12 * PATCH

    serving(scenario)


def test_home_assistant_hears_the_first_sentence_before_the_last_is_written() -> None:
    async def scenario(spoken: Spoken) -> None:
        async with spoken.client() as client:
            await client.write_event(SynthesizeStart(MODEL).event())
            await client.write_event(SynthesizeChunk("One two three four. And").event())
            assert len(audio(await heard(client, "audio-chunk"))) == 2 * PATCH
            await client.write_event(SynthesizeChunk(" now five six.").event())
            await client.write_event(SynthesizeStop().event())
            await heard(client, "synthesize-stopped")
            # The connection stays, and takes a further text.
            await client.write_event(Synthesize("Seven eight.", MODEL).event())
            assert len(audio(await heard(client, "audio-stop"))) == 2 * 2 * PATCH
        first, second, third = spoken.link.calls()
        assert second.after == first.call and third.after is None

    serving(scenario)


def test_texts_on_one_connection_are_spoken_in_turn() -> None:
    async def scenario(spoken: Spoken) -> None:
        async with spoken.client() as client:
            for text in ("One two three four five.", "Six seven."):
                await client.write_event(Synthesize(text, MODEL).event())
            await client.write_event(Ping().event())
            first, second = await heard(client, "audio-stop"), await heard(client, "audio-stop")
            assert "pong" in {event.type for event in first + second}
        assert (len(audio(first)), len(audio(second))) == (2 * 5 * PATCH, 2 * 2 * PATCH)

    serving(scenario)


@pytest.mark.parametrize("text", ["", " ", "...", "🙂"])
def test_a_text_with_nothing_to_say_is_empty_audio(text: str) -> None:
    async def scenario(spoken: Spoken) -> None:
        found = await spoken.answer(Synthesize(text, MODEL))
        assert [event.type for event in found] == ["audio-start", "audio-stop"] and not spoken.link.texts
        found = await spoken.answer(SynthesizeStart(), SynthesizeStop(), until="synthesize-stopped")
        assert [event.type for event in found] == ["audio-start", "audio-stop", "synthesize-stopped"]

    serving(scenario)


def test_a_client_that_leaves_frees_its_slot() -> None:
    async def scenario(spoken: Spoken) -> None:
        async with spoken.client() as client:
            await client.write_event(Synthesize("hold this", MODEL).event())
            await heard(client, "audio-chunk")
        while spoken.state.running:
            await asyncio.sleep(0.01)
        assert Cancel(spoken.link.calls()[0].call) in spoken.link.sent

    serving(scenario)


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


# -- the whole server --------------------------------------------------------------------------------------------------


def test_the_whole_server_speaks_it_beside_http(dice: random.Random) -> None:
    with Service({"wyoming": "127.0.0.1:0"}) as service:
        assert service.server.wyoming is not None
        port = service.server.wyoming.port

        async def ask(text: str) -> list[Event]:
            async with AsyncTcpClient("127.0.0.1", port, WAIT_S, WAIT_S) as client:
                await client.write_event(Synthesize(text, MODEL).event())
                return await heard(client, "audio-stop")

        found = asyncio.run(ask("hello"))
        assert len(audio(found)) == 2 * round(0.8 * 24_000)
        # The engine's death is an error, and the next request is spoken.
        lost = asyncio.run(ask("kill"))
        assert Error.from_event(lost[-1]).code == "engine_lost"
        until(lambda: service.state.link.status == "ready")
        assert asyncio.run(ask("hello"))[-1].type == "audio-stop"
        # A client that never leaves does not keep the server.
        loop = asyncio.new_event_loop()
        _, writer = loop.run_until_complete(asyncio.open_connection("127.0.0.1", port))
    writer.transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_server_that_stops_speaks_what_was_asked() -> None:
    async def scenario(spoken: Spoken) -> None:
        async with spoken.client() as client:
            await client.write_event(Synthesize("hold this", MODEL).event())
            await heard(client, "audio-chunk")
            spoken.state.draining = True
            assert spoken.state.busy
            assert "stopping" in (await spoken.fault(Synthesize("One two.", MODEL))).text

    serving(scenario)


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
