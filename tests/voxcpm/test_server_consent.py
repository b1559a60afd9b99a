"""A server that requires consents: sentences, checks in a process of their own, uploads and clips of requests."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("multipart", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes import consent_program
from fakes.scripted_link import ScriptedLink
from starlette.testclient import TestClient

from voxcpm.server import app as server
from voxcpm.server.access.keys import make_key
from voxcpm.server.process.messages import Encode
from voxcpm.server.settings import ServerSettings
from voxcpm.server.voices import checks
from voxcpm.server.voices import consent as consents
from voxcpm.server.voices.offline import VoiceMaker
from voxcpm.server.voices.store import Voice, VoiceFolder

REPOSITORY = Path(__file__).resolve().parents[2]


def clip(pitch: int = 200) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * pitch * np.arange(32_000) / 16_000), 16_000, format="WAV")
    return file.getvalue()


@dataclass
class Served:
    client: TestClient
    link: ScriptedLink
    folder: Path

    def plan(self, **plan: Any) -> None:
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def checks(self) -> int:
        return sum(call[0] == "check" for call in self.calls())

    def consent(self, **fields: str) -> str:
        asked = {"speaker": "Anna Weber", "recipient": "Example Studio"}
        challenge = self.client.post("/v1/audio/voice_consents/sentence", json=asked).json()["challenge"]
        data = {"name": "Anna", "language": "en", "challenge": challenge, **fields}
        made = self.client.post(
            "/v1/audio/voice_consents", data=data, files={"recording": ("c.wav", clip(300), "audio/wav")}
        )
        return str(made.json()["id"])

    def upload(self, consent: str, audio: bytes | None = None, name: str = "anna") -> Any:
        files = {"audio_sample": ("a.wav", clip() if audio is None else audio, "audio/wav")}
        return self.client.post("/v1/audio/voices", data={"name": name, "consent": consent}, files=files)

    def speak(self, **fields: Any) -> Any:
        body = {"input": "Hello there.", "response_format": "pcm", **fields}
        return self.client.post("/v1/audio/speech", json=body)


@contextmanager
def serving(folder: Path, **values: Any) -> Iterator[Served]:
    given: dict[str, Any] = {
        "voices": folder / "voices",
        "require_consent": True,
        "consent_program": (sys.executable, consent_program.__file__, str(folder)),
    }
    state = server.build_state(ServerSettings("model", **given | values))
    link = ScriptedLink()
    state.link = link
    state.references.cache._link = link  # type: ignore[union-attr]
    with TestClient(server.make_app(state), base_url="http://localhost") as client:
        yield Served(client, link, folder)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as found:
        yield found


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def data_url(audio: bytes) -> str:
    return "data:audio/wav;base64," + base64.b64encode(audio).decode()


def test_a_sentence_comes_from_the_program(served: Served) -> None:
    asked = {"speaker": "Zoë --evil", "recipient": "--store=/tmp", "language": "de", "purpose": "research"}
    made = served.client.post("/v1/audio/voice_consents/sentence", json=asked).json()
    assert made["sentence"] == "I am Zoë --evil." and made["challenge"] == "c" * 16 and len(made["words"]) == 4
    (call,) = served.calls()
    store = str(served.folder / "voices" / "consents")
    assert call == [
        "ask", "--speaker=Zoë --evil", "--to=--store=/tmp", "--language=de", "--purpose=research", f"--store={store}", "--json",
    ]  # fmt: skip
    for wrong in ({"speaker": ""}, {"recipient": "a\nb"}, {"speaker": "a\x00"}, {"language": 3}):
        assert served.client.post("/v1/audio/voice_consents/sentence", json=asked | wrong).status_code == 400
    served.plan(act="fail")
    failed = served.client.post("/v1/audio/voice_consents/sentence", json=asked)
    assert failed.status_code == 400 and "/secret" not in failed.text


def test_a_voice_with_a_checked_consent(served: Served) -> None:
    consent = served.consent()
    assert served.client.get(f"/v1/audio/voice_consents/{consent}").json()["challenge"] == "c" * 16
    made = served.upload(consent)
    assert made.status_code == 200 and served.checks() == 1
    assert served.speak(voice="anna").status_code == 200 and served.link.calls()[-1].voice is not None
    (voice,) = VoiceFolder(served.folder / "voices").all()
    record = json.loads((served.folder / "voices" / "consents" / f"{voice.consent_record}.json").read_text())
    assert record["verdict"] == "plausible" and record["reference_sha256"] == [voice.clip_sha256]
    # The same consent serves for another clip, which is checked by itself; the same clip is not checked again.
    assert served.upload(consent, clip(210), "anna-2").status_code == 200 and served.checks() == 2
    assert served.upload(consent, name="anna-3").status_code == 200 and served.checks() == 2
    assert not list((served.folder / "voices" / "consents").glob(".check-*"))
    with serving(served.folder) as again:
        assert again.upload(consent, name="anna-4").status_code == 200 and again.checks() == 2


@pytest.mark.parametrize("consent", ["I, Anna, agree.", "cons_" + "0" * 24])
def test_a_statement_in_words_is_not_enough(served: Served, consent: str) -> None:
    answer = served.upload(consent)
    error = answer.json()["error"]
    assert answer.status_code in (400, 403) and error["code"] in ("consent_required", "consent_missing")
    assert served.checks() == 0 and not VoiceFolder(served.folder / "voices").all()
    if error["code"] == "consent_required":
        assert "POST /v1/audio/voice_consents/sentence" in error["message"] and error["param"] == "consent"


def test_a_consent_without_a_challenge_is_not_checked(served: Served) -> None:
    assert refusal(served.upload(served.consent(challenge=""))) == (403, "consent_required")
    for wrong in ("d" * 16, "../../x"):
        answer = served.client.post(
            "/v1/audio/voice_consents", data={"name": "A", "language": "en", "challenge": wrong},
            files={"recording": ("c.wav", clip(), "audio/wav")},
        )  # fmt: skip
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "challenge"


def test_a_refused_consent_says_why_and_stores_nothing(served: Served) -> None:
    served.plan(verdict="refused")
    consent = served.consent()
    for _ in range(2):
        answer = served.upload(consent)
        assert refusal(answer) == (403, "consent_refused") and "the voice is another one" in answer.text
    assert served.checks() == 1 and not VoiceFolder(served.folder / "voices").all()
    # Refusals would fill the disk.
    assert not [path for path in (served.folder / "voices" / "consents").glob("*.json") if len(path.stem) == 16]
    assert not [message for message in served.link.sent if isinstance(message, Encode)]


def test_clips_of_requests_need_a_consent_too(served: Served) -> None:
    url = data_url(clip())
    assert refusal(served.speak(ref_audio=url)) == (403, "consent_required")
    consent = served.consent()
    for _ in range(2):
        assert served.speak(ref_audio=url, consent=consent).status_code == 200
        assert served.speak(ref_audio=url, ref_text="The words.", consent=consent).status_code == 200
    assert served.checks() == 1
    served.plan(verdict="refused")
    assert refusal(served.speak(ref_audio=data_url(clip(220)), consent=consent)) == (403, "consent_refused")
    assert (
        served.speak(ref_audio="data:audio/wav;base64,AAAA", consent=consent).json()["error"]["code"] == "invalid_audio"
    )
    # Designed voices and plain speech are nobody's.
    assert served.speak(voice="alloy").status_code == 200 and served.speak().status_code == 200


def test_voices_from_before_and_consents_that_ended(served: Served) -> None:
    tensors = {"ref_audio_feat": np.ones((4, 2, 3), np.float32)}
    VoiceFolder(served.folder / "voices").add(Voice("bert", "uploaded", consent="yes"), tensors)
    assert refusal(served.speak(voice="bert")) == (403, "consent_required")
    served.plan(expires="2001-01-01")
    assert refusal(served.upload(served.consent())) == (403, "consent_refused")
    served.plan(expires="2999-01-01")
    consent = served.consent()
    assert served.upload(consent, clip(230)).status_code == 200 and served.speak(voice="anna").status_code == 200
    (path,) = (p for p in (served.folder / "voices" / "consents").glob("*.json") if "2999" in p.read_text())
    path.write_text(path.read_text().replace("2999", "2001"))
    assert refusal(served.speak(voice="anna")) == (403, "consent_required")


def test_deleting_a_consent_deletes_its_records(served: Served) -> None:
    consent = served.consent()
    assert served.speak(ref_audio=data_url(clip()), consent=consent).status_code == 200
    assert served.client.delete(f"/v1/audio/voice_consents/{consent}").status_code == 200
    assert [p.name for p in (served.folder / "voices" / "consents").rglob("*") if p.is_file()] == [".lock"]
    assert refusal(served.speak(ref_audio=data_url(clip()), consent=consent)) == (403, "consent_required")


def test_a_voice_that_the_command_added(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made = np.ones((4, 2, 3), np.float32)
    monkeypatch.setattr(VoiceMaker, "_encode", lambda maker, samples, side: made)
    config = SimpleNamespace(sample_rate=16_000, out_patch_samples=7680)
    model: Any = SimpleNamespace(config=config, sample_rate=48_000, folder=None)
    maker = VoiceMaker(model, VoiceFolder(served.folder / "voices"))
    (served.folder / "a.wav").write_bytes(clip())
    (served.folder / "b.wav").write_bytes(clip(240))
    assert served.speak(ref_audio=data_url(clip()), consent=served.consent()).status_code == 200
    (record,) = (p.stem for p in (served.folder / "voices" / "consents").glob("[0-9a-f]*.json") if len(p.stem) == 16)
    maker.add("anna", served.folder / "a.wav", record)
    assert served.speak(voice="anna").status_code == 200
    with pytest.raises(ValueError, match=f"consent {record} is not an accepted one for .*b.wav"):
        maker.add("berta", served.folder / "b.wav", record)
    maker.add("carla", served.folder / "b.wav", "I, Carla, agree.")
    assert refusal(served.speak(voice="carla")) == (403, "consent_required")


def test_records_are_found_by_their_id(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.voice.consent.record import record_id

    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(2)]
    assert checks.record_id(digests[0], digests[1], "c" * 16) == record_id(digests[0], digests[1:], "c" * 16)
    consent = served.consent()
    assert served.upload(consent).status_code == 200

    def all_of_them(folder: Path) -> None:
        raise AssertionError("a request reads every consent")

    monkeypatch.setattr(consents, "read_records", all_of_them)
    with serving(served.folder) as again:
        assert again.speak(ref_audio=data_url(clip()), consent=consent).status_code == 200
        assert again.checks() == 1
        assert refusal(again.speak(ref_audio=data_url(clip()), consent="cons_" + "0" * 24)) == (403, "consent_required")


def test_sentences_are_bounded_and_stale_ones_are_removed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, folder = {"speaker": "Anna", "recipient": "Bo"}, served.folder / "voices" / "consents" / "challenges"
    folder.mkdir(parents=True)
    now = datetime.now(UTC)
    for name, hours, used in (("a", -2, None), ("b", -2, "f" * 64), ("d", -0.5, None), ("e", 1, None)):
        about = {"id": name * 16, "expires": (now + timedelta(hours=hours)).isoformat(), "statement_sha256": used}
        (folder / f"{name * 16}.json").write_text(json.dumps(about))
    (folder / f"{'0' * 16}.json").write_text("[]")
    path = "/v1/audio/voice_consents/sentence"
    monkeypatch.setattr(checks, "MOST_OPEN", 2)
    full = served.client.post(path, json=asked)
    assert full.status_code == 429 and "2 sentences wait" in full.text and full.headers["retry-after"]
    assert sorted(p.stem[0] for p in folder.iterdir()) == ["0", "b", "d", "e"] and not served.calls()
    monkeypatch.setattr(checks, "MOST_OPEN", 3)
    assert served.client.post(path, json=asked).status_code == 200
    monkeypatch.setattr(checks, "MOST_WAITING", 0)
    assert served.client.post(path, json=asked).status_code == 429 and len(served.calls()) == 1


def test_one_process_at_a_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_WAITING", 2)
    service = checks.ConsentChecks(
        (sys.executable, consent_program.__file__, str(served.folder)), served.folder / "voices" / "consents"
    )
    running, most = 0, 0
    run = service._run

    async def counted(words: list[str], most_s: float) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await run(words, most_s)
        finally:
            running -= 1

    service._run = counted  # type: ignore[method-assign]

    async def ask() -> list[Any]:
        asked = (service.sentence("Anna", "Bo", "en", ["cloning"]) for _ in range(4))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    assert most == 1 and [getattr(one, "status", 200) for one in answers] == [200, 200, 429, 429]


def test_clips_of_one_consent_leave_room_for_others(served: Served) -> None:
    service = checks.ConsentChecks(("false",), served.folder / "voices" / "consents")

    async def ask() -> list[Any]:
        async with service._next():  # a sentence is being made
            one = [asyncio.create_task(wait("cons_one")) for _ in range(4)]
            await asyncio.sleep(0)
            other = asyncio.create_task(wait("cons_other"))
            await asyncio.sleep(0)
        return await asyncio.gather(*one, other, return_exceptions=True)

    async def wait(consent_id: str) -> int:
        async with service._next(consent_id):
            return 200

    answers = asyncio.run(ask())
    assert [getattr(one, "status", one) for one in answers] == [200, 200, 429, 429, 200]
    assert not service._waiting, "nothing is kept of those that are through"


def test_a_consent_whose_sentence_ended_unused(served: Served) -> None:
    consent = served.consent()
    (served.folder / "voices" / "consents" / "challenges" / f"{'c' * 16}.json").unlink()
    answer = served.upload(consent)
    assert refusal(answer) == (403, "consent_refused") and "sentence ended" in answer.text and served.checks() == 0


def test_clips_that_a_kill_left_are_removed_but_not_those_of_a_check(tmp_path: Path) -> None:
    folder = tmp_path / "voices" / "consents"
    (folder / ".check-left").mkdir(parents=True)
    (folder / ".check-left" / "reference").write_bytes(b"a voice")
    with checks._draft(folder) as draft:
        (draft / "reference").write_bytes(b"another voice")
        with serving(tmp_path):
            assert [path.name for path in folder.glob(".check-*")] == [draft.name]
            assert (draft / "reference").read_bytes() == b"another voice"
    assert not list(folder.glob(".check-*"))


def test_a_consent_that_is_not_read_is_named(served: Served, tmp_path: Path) -> None:
    consent = served.consent()
    assert "x-ignored-fields" not in served.speak(ref_audio=data_url(clip()), consent=consent).headers
    assert served.speak(voice="alloy", consent=consent).headers["x-ignored-fields"] == "consent"
    with serving(tmp_path / "open", require_consent=False, cors=("https://ours.example",)) as free:
        body = {"input": "Hello.", "response_format": "pcm", "ref_audio": data_url(clip()), "consent": consent}
        answer = free.client.post("/v1/audio/speech", json=body, headers={"origin": "https://ours.example"})
        assert answer.headers["x-ignored-fields"] == "consent"
        exposed = answer.headers["access-control-expose-headers"]
        assert all(name in exposed for name in ("x-watermark", "x-c2pa", "x-ignored-fields"))


def test_a_check_that_fails_or_takes_too_long(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    consent = served.consent()
    served.plan(act="fail")
    failed = served.upload(consent)
    assert refusal(failed) == (503, "consent_not_checked") and "/secret" not in failed.text
    served.plan(act="hang")
    monkeypatch.setattr(checks, "CHECK_S", 0.3)
    assert refusal(served.upload(consent)) == (503, "consent_not_checked")
    monkeypatch.setattr(checks, "MOST_WAITING", 0)
    assert served.upload(consent).status_code == 429
    monkeypatch.undo()
    served.plan(act="answer")
    assert served.upload(consent).status_code == 200


def test_without_the_option_nothing_is_checked(tmp_path: Path) -> None:
    with serving(tmp_path, require_consent=False) as served:
        assert served.upload("I, Anna, agree.").status_code == 200
        assert served.speak(voice="anna").status_code == 200
        assert served.speak(ref_audio=data_url(clip())).status_code == 200
        assert served.calls() == []
    with pytest.raises(ValueError, match="--require-consent keeps consents beside the stored voices"):
        ServerSettings("model", require_consent=True).check()


def test_only_admins_get_sentences(tmp_path: Path) -> None:
    user, line = make_key("user")
    (tmp_path / "keys").write_text(f"{line}\n")
    with serving(tmp_path, keys=tmp_path / "keys") as served:
        served.client.headers["authorization"] = f"Bearer {user}"
        asked = {"speaker": "Anna", "recipient": "Bo"}
        assert refusal(served.client.post("/v1/audio/voice_consents/sentence", json=asked)) == (403, "admin_required")


def test_the_real_program(tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_whisper", reason="the extra pipeline is not installed")
    from fakes.consent_clips import challenge_of, reference_of, statement_of

    from pipeline.voice.consent.store import ConsentStore
    from voxmill.consent_check import check_models

    try:
        check_models()
    except OSError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]))
    program = ServerSettings("model").consent_program
    with serving(tmp_path, consent_program=program) as served:
        asked = {"speaker": "Linda", "recipient": "Example Studio", "language": "fr"}
        made = served.client.post("/v1/audio/voice_consents/sentence", json=asked).json()
        assert made["sentence"].startswith("Aujourd'hui, le ") and len(made["words"]) == 4
        # Nobody can read that one here: the sentence of a recording takes its place.
        known = challenge_of()
        ConsentStore(tmp_path / "voices" / "consents").add_challenge(known)
        data = {"name": "Linda", "language": "en", "challenge": known.id}
        recording = ("c.flac", statement_of(corpora).read_bytes(), "audio/flac")
        consent = served.client.post("/v1/audio/voice_consents", data=data, files={"recording": recording}).json()["id"]
        answer = served.upload(consent, reference_of(corpora).read_bytes(), "linda")
        assert answer.status_code == 200, answer.text
        assert served.speak(voice="linda").status_code == 200
        (record,) = ConsentStore(tmp_path / "voices" / "consents").records()
        assert record.verdict in ("plausible", "verified") and record.audio is None and record.speaker == "Linda"
