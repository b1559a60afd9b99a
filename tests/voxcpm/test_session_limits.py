"""WebSocket sessions: configurations that are refused, limits, keys, the death of the engine, and garbage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes.scripted_link import ScriptedLink
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from talking import PATH, Talk, served, talking

from voxcpm.server.websocket import messages, session
from voxcpm.server.websocket.messages import parse_message


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


@pytest.mark.parametrize("configures", [True, False])
def test_a_session_of_a_revoked_key_is_closed(tmp_path: Path, configures: bool) -> None:
    from voxcpm.server.access.keys import make_key

    secret, line = make_key("anna")
    file = tmp_path / "keys"
    file.write_text(line + "\n")
    headers = {"authorization": f"Bearer {secret}"}
    with served(keys=file) as (client, link), client.websocket_connect(PATH, headers=headers) as socket:
        talk = Talk(socket, link)
        talk.configure()
        talk.say("input.text", text="Hello there. ")
        talk.say("input.done")
        talk.until("session.done")
        file.write_text("# nobody\n")
        if configures:
            talk.say("session.config")
        else:
            talk.say("input.text", text="Hello again. ")
            talk.say("input.done")
        error = talk.until("error")[0]
        assert (error["code"], error["action"]) == ("key_revoked", "close")
        with pytest.raises(WebSocketDisconnect) as closed:
            talk.next()
        assert closed.value.code == 1008 and link.texts == ["Hello there."]


def test_sessions_of_a_key_are_counted(tmp_path: Path) -> None:
    from voxcpm.server.access.keys import make_key

    (anna, annas), (ben, bens) = make_key("anna", running=1, queued=0), make_key("ben")
    (tmp_path / "keys").write_text(f"{annas}\n{bens}\n")
    with served(keys=tmp_path / "keys") as (client, link):
        for _ in range(2):
            with client.websocket_connect(PATH, headers={"authorization": f"Bearer {anna}"}) as first:
                assert Talk(first, link).configure()["type"] == "session.configured"
                with client.websocket_connect(PATH, headers={"authorization": f"Bearer {anna}"}) as second:
                    assert "key anna has 1 sessions" in Talk(second, link).next()["message"]
                with client.websocket_connect(PATH, headers={"authorization": f"Bearer {ben}"}) as other:
                    assert Talk(other, link).configure()["type"] == "session.configured"


def test_a_clip_of_a_configuration_takes_one_of_the_keys_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxcpm.server.access.keys import make_key
    from voxcpm.server.speech.prepare import prepare
    from voxcpm.server.state import ServerState

    secret, line = make_key("anna", characters=10)
    (tmp_path / "keys").write_text(line + "\n")
    found: list[tuple[int, ServerState]] = []

    async def watched(state: ServerState, *arguments: Any) -> Any:
        found.append((state.keys._uses["anna"].running, state))
        return await prepare(state, *arguments)

    monkeypatch.setattr(session, "prepare", watched)
    with served(keys=tmp_path / "keys") as (client, link):
        with client.websocket_connect(PATH, headers={"authorization": f"Bearer {secret}"}) as socket:
            assert Talk(socket, link).configure(ref_audio="data:audio/wav;base64,AAAA")["type"] == "error"
        ((running, state),) = found
        assert running == 1 and state.keys._uses["anna"].running == 0 and not state.keys._uses["anna"].characters


@pytest.mark.parametrize("origin", ["https://evil.example.org", "http://["])
def test_pages_of_other_sites_are_refused(origin: str) -> None:
    headers = {"origin": origin}
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
