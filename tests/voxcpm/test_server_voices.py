"""Stored voices over HTTP: consent, both dialects, OpenAI's names, batches."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("multipart", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes.scripted_link import ScriptedLink
from starlette.testclient import TestClient

from voxcpm.server import app as server
from voxcpm.server.access.keys import make_key
from voxcpm.server.presets import PRESETS
from voxcpm.server.process.messages import Encode
from voxcpm.server.settings import ServerSettings
from voxcpm.server.voices.store import Voice, VoiceFolder

REFERENCE = {"ref_audio_feat": np.ones((4, 2, 3), np.float32)}
BOTH = {**REFERENCE, "audio_feat": np.full((5, 2, 3), 2.0, np.float32)}
CONSENT = "I, Anna, allow this server to speak with my voice."


def clip(seconds: float = 2.0, level: float = 0.5) -> bytes:
    file = io.BytesIO()
    wave = level * np.sin(2 * np.pi * 200 * np.arange(int(seconds * 16_000)) / 16_000)
    soundfile.write(file, wave, 16_000, format="WAV")
    return file.getvalue()


@contextmanager
def served(**values: Any) -> Iterator[tuple[TestClient, ScriptedLink]]:
    state = server.build_state(ServerSettings("model", **values))
    link = ScriptedLink()
    state.link = link
    state.references.cache._link = link  # type: ignore[union-attr]
    with TestClient(server.make_app(state), base_url="http://localhost") as client:
        yield client, link


@pytest.fixture
def voices(tmp_path: Path) -> Iterator[tuple[TestClient, ScriptedLink]]:
    with served(voices=tmp_path / "voices") as found:
        yield found


def upload(
    client: TestClient, name: str = "Anna", audio: bytes | None = None, kind: str = "audio/wav", **fields: str
) -> Any:
    data = {"name": name, "consent": CONSENT, **fields}
    return client.post(
        "/v1/audio/voices",
        data={k: v for k, v in data.items() if v},
        files={"audio_sample": ("a.wav", audio or clip(), kind)},
    )


def speak(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/audio/speech", json={"input": "Hello there.", "response_format": "pcm", **fields})


def test_upload_in_both_dialects(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, link = voices
    made = upload(client, speaker_description="warm").json()
    assert made["object"] == "audio.voice" and made["type"] == "audio_sample" and made["id"].startswith("voice_")
    assert made["success"] and made["voice"] | {"created_at": 0} == {
        "name": "anna", "consent": CONSENT, "created_at": 0, "file_size": len(clip()), "mime_type": "audio/wav",
        "speaker_description": "warm",
    }  # fmt: skip
    listed = client.get("/v1/audio/voices").json()
    assert set(listed["voices"]) == {"anna", *PRESETS} and [v["name"] for v in listed["uploaded_voices"]] == ["anna"]
    assert listed["object"] == "list" and {v["name"] for v in listed["data"]} == {"anna", *PRESETS}
    for name in ("anna", "ANNA", made["id"], {"id": made["id"]}):
        assert speak(client, voice=name).status_code == 200
        voice = link.calls()[-1].voice
        assert voice is not None and voice.reference is not None and voice.prompt is None
        # 2 s are 13 patches.
        assert voice.reference.shape == (13, 2, 3)  # type: ignore[union-attr]
    gone = client.delete("/v1/audio/voices/Anna").json()
    assert gone["deleted"] and gone["success"] and gone["id"] == made["id"]
    assert speak(client, voice="anna").json()["error"]["code"] == "voice_not_found"
    assert client.delete("/v1/audio/voices/anna").status_code == 404


def test_a_voice_with_its_words_continues_its_clip(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, link = voices
    assert upload(client, ref_text="What I said.").status_code == 200
    assert {m.side for m in link.sent if isinstance(m, Encode)} == {"left", "right"}
    speak(client, voice="anna")
    voice = link.calls()[-1].voice
    assert voice is not None and voice.reference and voice.prompt and voice.prompt_text == "What I said."


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"consent": ""}, 400, "consent"),
        ({"consent": "  "}, 400, "consent"),
        ({"consent": "cons_" + "0" * 24}, 400, "consent"),
        ({"consent": "cons_../../x"}, 400, "consent"),
        ({"name": ""}, 400, "name"),
        ({"name": "../../etc/cron"}, 400, "name"),
        ({"audio": b"nothing"}, 400, "audio_sample"),
        ({"audio": clip(0.4)}, 400, "audio_sample"),
        ({"audio": clip(2.0, 0.0)}, 400, "audio_sample"),
        ({"kind": "text/html"}, 415, "audio_sample"),
        ({"audio": bytes(10_000_001)}, 413, "audio_sample"),
        ({"type": "video"}, 400, "type"),
        ({"speaker_embedding": "[1.0]"}, 400, "speaker_embedding"),
        ({"ref_text": "a" * 5000}, 400, "ref_text"),
    ],
)
def test_uploads_that_are_refused(
    voices: tuple[TestClient, ScriptedLink], tmp_path: Path, fields: dict[str, Any], status: int, param: str
) -> None:
    client, _ = voices
    answer = upload(client, **fields)
    assert answer.status_code == status and answer.json()["error"]["param"] == param, answer.text
    assert str(tmp_path) not in answer.text and not list((tmp_path / "voices").glob("voice_*"))


def test_forms_that_are_refused(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, _ = voices
    for answer, status in (
        (client.post("/v1/audio/voices", content=b"x", headers={"content-type": "text/plain"}), 415),
        (client.post("/v1/audio/voices", content=b"x", headers={"content-type": "multipart/form-data"}), 400),
        (client.post("/v1/audio/voices", content=b"[", headers={"content-type": "application/json"}), 400),
        (client.post("/v1/audio/voices", json=[]), 400),
        (client.post("/v1/audio/voices", json={"name": "a", "consent": "yes"}), 400),
        (client.post("/v1/audio/voices", json={"name": "a", "consent": "yes", "type": [1]}), 400),
        (client.post("/v1/audio/voices", data={"name": "a", "consent": "yes"}, files=[("audio_sample", b"1"), ("x", b"2")]), 400),
    ):  # fmt: skip
        assert answer.status_code == status and answer.json()["error"]["message"], answer.text


def test_a_name_is_not_taken_twice(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, _ = voices
    assert upload(client).status_code == 200
    again = upload(client, "ANNA")
    assert again.status_code == 409 and again.json()["error"]["code"] == "voice_exists"


def test_openai_names_are_designed_once(voices: tuple[TestClient, ScriptedLink], tmp_path: Path) -> None:
    client, link = voices
    assert speak(client, voice="Alloy").status_code == 200
    designed, spoken = link.calls()
    assert (
        designed.text == PRESETS["alloy"].prompt and designed.seed == PRESETS["alloy"].seed and designed.voice is None
    )
    assert spoken.voice is not None and spoken.voice.reference is not None
    assert speak(client, voice="alloy").status_code == 200 and len(link.calls()) == 3
    (kept,) = VoiceFolder(tmp_path / "voices").all()
    assert (kept.name, kept.kind, kept.seed) == ("alloy", "designed", PRESETS["alloy"].seed)
    with served(voices=tmp_path / "voices") as (client, link):
        assert speak(client, voice="alloy").status_code == 200 and len(link.calls()) == 1
        # An uploaded voice may take the name; the designed one is back when it is deleted.
        assert upload(client, "alloy").status_code == 200
        assert client.get("/v1/audio/voices").json()["uploaded_voices"][0]["name"] == "alloy"
        assert client.delete("/v1/audio/voices/alloy").status_code == 200
        assert speak(client, voice="alloy").status_code == 200 and link.calls()[-2].text == PRESETS["alloy"].prompt


def test_a_preset_of_another_checkpoint_is_designed_again(
    voices: tuple[TestClient, ScriptedLink], tmp_path: Path
) -> None:
    client, link = voices
    VoiceFolder(tmp_path / "voices").add(Voice("alloy", "designed", checkpoint="older"), REFERENCE)
    assert speak(client, voice="alloy").status_code == 200 and len(link.calls()) == 2
    assert [voice.checkpoint for voice in VoiceFolder(tmp_path / "voices").all()] == [link.about.digest]


def test_designing_a_voice(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, link = voices
    body = {
        "name": "Old-Man",
        "type": "prompt",
        "prompt": "A calm old man",
        "seed": 3,
        "script_hint": "It was a long day at sea today.",
    }
    made = client.post("/v1/audio/voices", json=body).json()
    assert (made["name"], made["type"], made["prompt"], made["seed"]) == ("old-man", "prompt", "A calm old man", 3)
    assert link.calls()[0].text == "(A calm old man)It was a long day at sea today." and link.calls()[0].seed == 3
    assert speak(client, voice="old-man").status_code == 200
    for wrong in ({"prompt": ""}, {"prompt": "a) b"}, {"seed": -1}, {"seed": 1.5}, {"seed": "x"}, {"name": "old-man"}):
        assert client.post("/v1/audio/voices", json={**body, "name": "b", **wrong}).status_code in (400, 409)


def test_without_a_folder_nothing_is_stored() -> None:
    with served() as (client, link):
        assert upload(client).status_code == 403
        assert client.post("/v1/audio/voices", json={"name": "a", "prompt": "b"}).status_code == 403
        assert client.get("/v1/audio/voice_consents").status_code == 403
        assert client.get("/v1/audio/voices").json()["uploaded_voices"] == []
        speak(client, voice="alloy")
        speak(client, voice="alloy")
        assert len(link.calls()) == 3


def test_only_admins_change_voices(tmp_path: Path) -> None:
    (user, user_line), (admin, admin_line) = make_key("user"), make_key("boss", admin=True)
    (tmp_path / "keys").write_text(f"{user_line}\n{admin_line}\n")
    with served(voices=tmp_path / "voices", keys=tmp_path / "keys") as (client, _):
        assert client.get("/v1/audio/voices").status_code == 401
        client.headers["authorization"] = f"Bearer {user}"
        assert client.get("/v1/audio/voices").status_code == 200
        for answer in (
            upload(client),
            client.delete("/v1/audio/voices/anna"),
            client.get("/v1/audio/voice_consents"),
            client.post("/v1/audio/voice_consents", data={"name": "a"}),
        ):
            assert answer.status_code == 403 and answer.json()["error"]["code"] == "admin_required"
        client.headers["authorization"] = f"Bearer {admin}"
        assert upload(client).status_code == 200


def test_consents(voices: tuple[TestClient, ScriptedLink], tmp_path: Path) -> None:
    client, _ = voices
    made = client.post(
        "/v1/audio/voice_consents", data={"name": "Anna", "language": "en-US"}, files={"recording": ("c.wav", clip(), "audio/wav")}
    ).json()  # fmt: skip
    assert made["object"] == "audio.voice_consent" and made["language"] == "en-US"
    path = f"/v1/audio/voice_consents/{made['id']}"
    assert client.get(path).json() == made
    assert client.post(path, json={"name": "Anna B."}).json()["name"] == "Anna B."
    assert [one["name"] for one in client.get("/v1/audio/voice_consents").json()["data"]] == ["Anna B."]
    assert (tmp_path / "voices" / "consents" / f"{made['id']}.recording").read_bytes() == clip()
    assert upload(client, consent=made["id"]).status_code == 200
    assert client.delete(path).status_code == 409
    client.delete("/v1/audio/voices/anna")
    assert client.delete(path).json()["deleted"] and client.get(path).status_code == 404
    assert not list((tmp_path / "voices" / "consents").glob("cons_*"))
    for wrong in ("..", "voice_" + "0" * 24, "cons_" + "0" * 24):
        assert client.get(f"/v1/audio/voice_consents/{wrong}").status_code == 404


def test_pages_of_consents(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, _ = voices
    for number in range(3):
        client.post(
            "/v1/audio/voice_consents", data={"name": str(number), "language": "en"},
            files={"recording": ("c.wav", clip(1.1), "audio/wav")},
        )  # fmt: skip
    first = client.get("/v1/audio/voice_consents?limit=2").json()
    second = client.get(f"/v1/audio/voice_consents?limit=2&after={first['last_id']}").json()
    assert first["has_more"] and not second["has_more"]
    assert {one["name"] for one in first["data"] + second["data"]} == {"0", "1", "2"}
    for wrong in ("0", "101", "x"):
        assert client.get(f"/v1/audio/voice_consents?limit={wrong}").status_code == 400


def test_a_clip_is_encoded_once(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, link = voices
    url = "data:audio/wav;base64," + base64.b64encode(clip()).decode()
    for _ in range(3):
        assert speak(client, ref_audio=url).status_code == 200
    assert sum(isinstance(message, Encode) for message in link.sent) == 1
    assert speak(client, ref_audio=url, ref_text="The words.").status_code == 200
    assert link.calls()[-1].voice.prompt_text == "The words." and sum(isinstance(m, Encode) for m in link.sent) == 2  # type: ignore[union-attr]
    for wrong in ("file:///etc/passwd", "https://voices.example.org/a.wav", "data:audio/wav;base64,AAAA"):
        answer = speak(client, ref_audio=wrong)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "ref_audio"
        assert answer.json()["error"]["code"] == "invalid_audio"


def test_a_clip_as_a_file(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, link = voices
    data = {"input": "Hello there.", "response_format": "pcm", "seed": "7", "cfg_value": "1.5", "normalize": "true"}
    answer = client.post("/v1/audio/speech", data=data, files={"ref_audio": ("a.wav", clip(), "audio/wav")})
    call = link.calls()[-1]
    assert answer.status_code == 200 and (call.seed, call.cfg, call.normalize) == (7, 1.5, True)
    assert call.voice is not None and call.voice.reference.shape == (13, 2, 3)  # type: ignore[union-attr]
    for files, status in (
        ({"other": ("a.wav", clip(), "audio/wav")}, 400),
        ({"ref_audio": ("a.html", b"<p>", "text/html")}, 415),
        ({"ref_audio": ("a.wav", b"RIFF", "audio/wav")}, 400),
    ):
        assert client.post("/v1/audio/speech", data=data, files=files).status_code == status


def test_the_openai_client(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai", reason="needs the openai client")
    with served(voices=tmp_path / "voices") as (http, _):
        client = openai.OpenAI(api_key="none", base_url="http://localhost/v1", http_client=http, max_retries=0)
        consent = client.audio.voice_consents.create(
            name="Anna", language="en-US", recording=("c.wav", clip(), "audio/wav")
        )
        voice = client.audio.voices.create(name="anna", consent=consent.id, audio_sample=("a.wav", clip(), "audio/wav"))
        designed = client.audio.voices.create(name="old-man", type="prompt", prompt="A calm old man")
        assert voice.object == designed.object == "audio.voice" and (voice.type, designed.type) == (
            "audio_sample",
            "prompt",
        )
        spoken = client.audio.speech.create(
            model="tts-1", voice={"id": voice.id}, input="Hello.", response_format="pcm"
        )
        assert len(spoken.content) > 1000
        assert [one.id for one in client.audio.voice_consents.list()] == [consent.id]
        assert client.audio.voice_consents.update(consent.id, name="Anna B.").name == "Anna B."
        assert client.audio.voices.delete(voice.id).deleted and client.audio.voice_consents.delete(consent.id).deleted


# -- batches ---------------------------------------------------------------------------------------------------------------


def test_a_batch(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, link = voices
    body = {
        "items": [
            {"input": "One two."},
            {"input": "Three four five.", "seed": 9, "response_format": "mp3"},
            {"input": "This is a fault here"},
            {"input": ""},
            {"input": "Six", "voice": "nobody"},
            "text",
            {"input": "Seven", "nonsense": 1},
        ],
        "seed": 4,
        "response_format": "wav",
    }
    answer = client.post("/v1/audio/speech/batch", json=body).json()
    assert (answer["total"], answer["succeeded"], answer["failed"]) == (7, 3, 4)
    results = answer["results"]
    assert [one["index"] for one in results] == list(range(7))
    assert [one["status"] for one in results] == ["success", "success", "error", "error", "error", "error", "success"]
    first = soundfile.info(io.BytesIO(base64.b64decode(results[0]["audio_data"])))
    assert first.samplerate == 48_000 and first.frames == 2 * 7680 and results[0]["media_type"] == "audio/wav"
    assert results[1]["media_type"] == "audio/mpeg" and {results[0]["seed"], results[1]["seed"]} == {4, 9}
    assert results[0]["usage"]["output_tokens"] == 2 and results[6]["ignored_fields"] == ["nonsense"]
    assert not link.channels


def test_batches_that_are_refused(voices: tuple[TestClient, ScriptedLink]) -> None:
    client, _ = voices
    bodies: list[Any] = [{}, {"items": []}, {"items": "x"}, {"items": [{"input": "a"}] * 65}, []]
    for body in bodies:
        assert client.post("/v1/audio/speech/batch", json=body).status_code == 400
