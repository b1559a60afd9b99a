"""When a request is admitted, and that what was admitted is spoken to its end: pieces, batches, drain, quotas, cancelling."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes.scripted_link import ScriptedLink
from starlette.testclient import TestClient

from voxcpm.server import app as server
from voxcpm.server.access.keys import Ticket, make_key
from voxcpm.server.calls import SpeechCall
from voxcpm.server.errors import ApiError
from voxcpm.server.presets import DESIGN_TEXT
from voxcpm.server.process.link import EngineLink
from voxcpm.server.process.messages import Encode, Forget, Load, Speak, ToEngine
from voxcpm.server.settings import ServerSettings
from voxcpm.server.speech.pieces import SpeechPieces, speak_pieces
from voxcpm.server.state import ServerState

LONG = " ".join(f"This is sentence number {n}, and it takes quite a while to say all of it aloud." for n in range(6))
PATH = "/v1/audio/speech"


class Watched(ScriptedLink):
    """A scripted engine that tells of what it is sent."""

    heard: Callable[[ToEngine], None] = staticmethod(lambda message: None)

    def send(self, message: ToEngine) -> None:
        self.heard(message)
        super().send(message)


def made(**values: Any) -> tuple[ServerState, Watched]:
    state = server.build_state(replace(ServerSettings("model"), **values))
    state.link = link = Watched()
    state.references.cache._link = link  # type: ignore[union-attr]
    return state, link


def client_of(state: ServerState) -> TestClient:
    return TestClient(server.make_app(state), base_url="http://localhost")


def keys_file(folder: Path, **limits: int) -> tuple[Path, dict[str, str]]:
    """Write a file with one key. Returns (file, the header that has the key)."""
    secret, line = make_key("anna", False, **limits)
    path = folder / "keys.txt"
    path.write_text(line + "\n")
    return path, {"authorization": f"Bearer {secret}"}


def long_text(client: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(
        PATH, json={"input": LONG, "long": True, "response_format": "pcm"} | fields, headers=headers or {}
    )


def test_a_later_piece_waits_for_its_place() -> None:
    state, link = made(deadline=1.0)
    link.refusals = ["busy", "busy"]
    with client_of(state) as client:
        answer = long_text(client)
    assert answer.status_code == 200
    deadlines = [call.deadline_s for call in link.calls()]
    assert deadlines[0] == 1.0 and len(deadlines) > 3 and set(deadlines[1:]) == {math.inf}
    spoken = [call.text for call in link.calls()]
    assert spoken[1] == spoken[2] == spoken[3]


def test_the_quota_of_a_long_text_is_charged_once(tmp_path: Path) -> None:
    path, key = keys_file(tmp_path, characters=len(LONG) - 1)
    state, link = made(keys=path)
    with client_of(state) as client:
        assert long_text(client, key).status_code == 429 and not link.calls()
    path, key = keys_file(tmp_path, characters=len(LONG), running=1, queued=0)
    state, link = made(keys=path)
    with client_of(state) as client:
        assert long_text(client, key).status_code == 200 and len(link.calls()) > 1
        # All of it counts, and the key's place is free again.
        assert "characters per minute" in long_text(client, key).json()["error"]["message"]
        assert client.post(PATH, json={"input": LONG}, headers=key).status_code == 429


def test_a_long_text_is_spoken_to_its_end_by_a_server_that_stops() -> None:
    state, link = made()
    link.heard = lambda message: setattr(state, "draining", True)
    with client_of(state) as client:
        assert long_text(client).status_code == 200 and len(link.calls()) > 1
        assert long_text(client).status_code == 503


def test_a_batch_is_spoken_to_its_end_by_a_server_that_stops() -> None:
    state, link = made()
    link.heard = lambda message: setattr(state, "draining", True)
    body = {"items": [{"input": f"Item {n}"} for n in range(6)], "response_format": "wav"}
    with client_of(state) as client:
        assert client.post(f"{PATH}/batch", json=body).json()["succeeded"] == 6
        assert client.post(f"{PATH}/batch", json=body).status_code == 503


@pytest.mark.parametrize("why", ["quota", "drain", "queue"])
def test_the_clip_of_a_request_that_is_refused_is_not_read(tmp_path: Path, why: str) -> None:
    path, key = keys_file(tmp_path, characters=3)
    state, link = made(keys=path)
    state.draining = why == "drain"
    if why == "queue":
        link.load = Load(2, 2, 8)
    clip = "data:audio/wav;base64," + base64.b64encode(b"no clip").decode()
    with client_of(state) as client:
        body = {"input": "One two three" if why == "quota" else "One", "ref_audio": clip}
        refused = client.post(PATH, json=body, headers=key)
        assert refused.status_code == (503 if why == "drain" else 429)
        assert not any(isinstance(message, Encode | Speak) for message in link.sent)
        # A refused request gives back what it was charged.
        state.draining, link.load = False, Load(2, 0, 0)
        assert client.post(PATH, json=body | {"input": "One"}, headers=key).status_code == 400
        assert client.post(PATH, json={"input": "One"}, headers=key).status_code == 200


def test_a_wait_for_the_next_piece_can_be_cancelled() -> None:
    async def scenario() -> None:
        state, link = made()
        link.refusals = ["busy"] * 1000
        speech = await speak_pieces(state, SpeechCall("One", min_len=1), ("One", "Two"), Ticket())
        assert isinstance(speech, SpeechPieces)
        waits = asyncio.Event()
        link.heard = lambda message: waits.set() if isinstance(message, Speak) else None
        await anext(speech)
        going_on = asyncio.create_task(anext(speech))
        await waits.wait()
        speech.cancel()
        with pytest.raises(ApiError) as ended:
            await going_on
        assert ended.value.status == 499 and speech.result.ending == "cancelled"
        assert not link.channels and link.calls()[0].call in {m.call for m in link.sent if isinstance(m, Forget)}

    asyncio.run(scenario())


def test_a_cancelled_request_ends_though_its_piece_was_complete() -> None:
    async def scenario() -> None:
        state, link = made()
        speech = await speak_pieces(state, SpeechCall("One", min_len=1), ("One", "Two"), Ticket())
        await anext(speech)
        speech.cancel()
        with pytest.raises(ApiError) as ended:
            await anext(speech)
        assert ended.value.status == 499 and link.texts == ["One"]

    asyncio.run(scenario())


def test_slots_are_known_when_the_model_is_and_not_after_its_death() -> None:
    heard: list[Load] = []
    link = EngineLink((), b"", heard.append)
    ready = ScriptedLink().about
    link._take(msgspec.structs.replace(ready, slots=3))
    assert link.load == Load(3, 0, 0)
    link._take(Load(3, 2, 1))
    link._fail_all()
    assert link.load == heard[-1] == Load(0, 0, 0)


def test_a_moved_link_changes_neither_the_name_nor_what_is_loaded(tmp_path: Path) -> None:
    for name in ("step-1", "step-2"):
        (tmp_path / name).mkdir()
    latest = tmp_path / "latest"
    latest.symlink_to("step-1")
    state = server.build_state(ServerSettings(str(latest), lora=(f"anna={latest}",)))
    latest.unlink()
    latest.symlink_to("step-2")
    assert state.settings.model_name == "step-1" and "step-1" in state.models
    options = msgspec.json.decode(state.link.options)
    assert options["checkpoint"] == options["adapters"]["anna"] == str((tmp_path / "step-1").resolve())


def test_a_preset_of_a_model_without_references_is_a_prompt(tmp_path: Path) -> None:
    for made_here in (True, False):  # also after a start that finds it in the folder
        state, link = made(voices=tmp_path / "voices")
        link._take(msgspec.structs.replace(link.about, takes_references=False))
        with client_of(state) as client:
            assert client.post(PATH, json={"input": "One", "voice": "alloy"}).status_code == 200
            spoken = link.calls()[-1]
            assert len(link.calls()) == 1 + made_here and spoken.voice is not None
            assert spoken.voice.reference is None and spoken.voice.prompt is not None
            assert spoken.voice.prompt_text == DESIGN_TEXT
            body = {"name": "b", "type": "prompt", "prompt": "A calm voice"}
            assert "designs no voices" in client.post("/v1/audio/voices", json=body).json()["error"]["message"]


def test_a_session_counts_as_busy_until_its_units_are_spoken() -> None:
    state, link = made()
    with client_of(state) as client, client.websocket_connect(f"ws://localhost{PATH}/stream") as socket:
        busy: list[bool] = []
        link.heard = lambda message: (setattr(state, "draining", True), busy.append(state.answering == 1))  # type: ignore[assignment, func-returns-value]
        socket.send_json({"type": "session.config", "split_granularity": "sentence"})
        assert socket.receive_json()["type"] == "session.configured"
        socket.send_json({"type": "input.text", "text": "One two three four. Five six seven eight nine. Ten"})
        socket.send_json({"type": "input.done"})
        errors = []
        while True:
            message = socket.receive()
            found = json.loads(message["text"]) if message.get("text") else {}
            errors += [found] if found.get("type") == "error" else []
            if found.get("type") == "session.done":
                break
        assert not errors and all(busy) and len(link.calls()) == 3
    assert state.answering == 0
