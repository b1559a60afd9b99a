"""The Wyoming protocol: the client of the package `wyoming`, and a recorded exchange of Home Assistant."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")
pytest.importorskip("wyoming", reason="the extra dev is not installed")

import numpy as np
from fakes.scripted_link import PATCH, RATE
from speech_service import WAIT_S, Service, until
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice
from wyoming_client import MODEL, RECORDED, Spoken, audio, heard, serving

from catalogs.vocabulary.languages import languages
from voxcpm.provenance.statement import Statement
from voxcpm.server.process.messages import Cancel
from voxcpm.server.voices.store import Voice, VoiceFolder
from voxcpm.server.wyoming import description

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
