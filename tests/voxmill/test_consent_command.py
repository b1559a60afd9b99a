"""`voxmill consent`: what the commands print, keep and return; the check itself is tested in tests/pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("av", reason="the extra pipeline is not installed")

from fakes.consent_clips import statement_of

from catalogs.files import write_atomically
from pipeline.voice.consent import check as checking
from pipeline.voice.consent.challenge import Challenge, stamp
from pipeline.voice.consent.clips import Clip
from pipeline.voice.consent.record import Record, record_id
from pipeline.voice.consent.store import ConsentStore
from voxcpm.inference.write_audio import write_audio
from voxcpm.provenance.statement import Statement
from voxcpm.server.references.decode import decode_clip
from voxcpm.watermark import mark
from voxmill.cli import app
from voxmill.commands.consent import NotCheckedError
from voxmill.consent_check import read_clip

TONE = (0.3 * np.sin(np.arange(32_000) / 12)).astype(np.float32)


class Scripted:
    """Accepts the statements whose challenge is open, and those that used it up."""

    def __init__(self, encoder: str | None = None) -> None:
        self.encoder = encoder or "ge2e"

    def check(self, challenge: Challenge, statement: Clip, references: Sequence[Clip]) -> Record:
        reasons = [] if challenge.statement_sha256 in (None, statement.sha256) else ["the sentence was used up"]
        digests = tuple(clip.sha256 for clip in references)
        return Record(
            id=record_id(statement.sha256, digests, challenge.id), verdict="refused" if reasons else "plausible",
            reasons=tuple(reasons), speaker=challenge.speaker, speaker_id=challenge.speaker_id,
            recipient=challenge.recipient, purposes=challenge.purposes, language=challenge.language,
            challenge=challenge.id, sentence=challenge.sentence, words=challenge.words, missing_words=(),
            transcript=challenge.sentence, cer=0.0, statement_sha256=statement.sha256, statement_s=9.0, level_db=-20.0,
            snr_db=30.0, reference_sha256=digests, reference_s=(8.0,) * len(digests), cosine=(0.9,) * len(digests),
            least_cosine=(0.7,) * len(digests), encoder=self.encoder, recognizer="whisper-base",
            at=stamp(datetime.now(UTC)), expires=challenge.consent_expires, tool="voxmill",
        )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(checking, "ConsentChecker", Scripted)
    paths = {name: tmp_path / f"{name}.wav" for name in ("statement", "other", "reference")}
    for number, path in enumerate(paths.values(), 1):
        soundfile.write(path, TONE / number, 16_000)
    return paths


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, ["consent", *map(str, words)])


def test_a_reference_is_checked_to_where_cloning_uses_it(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[np.ndarray] = []

    class Listening(Scripted):
        def check(self, challenge: Challenge, statement: Clip, references: Sequence[Clip]) -> Record:
            heard.extend([statement.samples, references[0].samples])
            return super().check(challenge, statement, references)

    monkeypatch.setattr(checking, "ConsentChecker", Listening)
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 35 * 16_000).astype(np.float32)
    for name in ("statement", "reference"):
        soundfile.write(files[name], noise if name == "reference" else noise[::-1], 16_000)
    asked(tmp_path / "consent")
    run("check", files["statement"], "--reference", files["reference"], "--store", tmp_path / "consent")
    statement, reference = heard
    assert len(statement) == len(noise)
    assert np.array_equal(reference, decode_clip(files["reference"].read_bytes(), 16_000))


def asked(store: Path, *words: str) -> dict[str, Any]:
    done = run("ask", "--speaker", "Anna Weber", "--to", "Example Studio", "--store", store, "--json", *words)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_a_sentence_is_printed_and_stored(tmp_path: Path) -> None:
    made = asked(
        tmp_path, "--language", "de", "--purpose", "cloning", "--purpose", "Hörbücher", "--until", "2999-01-31"
    )
    assert (
        made["sentence"].startswith("Ich, Anna Weber, erlaube Example Studio am ")
        and "und Hörbücher zu" in made["sentence"]
    )
    stored = ConsentStore(tmp_path).challenge(made["id"])
    assert list(stored.words) == made["words"] and stored.consent_expires == "2999-01-31"
    told = run("ask", "--speaker", "Åsa", "--to", "Bo", "--language", "sv", "--store", tmp_path)
    assert "no sentence in 'sv' is known, so it is English" in told.stdout and "I, Åsa, agree on " in told.stdout
    assert f"--store {tmp_path}" in told.stdout


def test_accepted_once_then_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    store = tmp_path / "consent"
    challenge = asked(store, "--until", "2999-01-31")["id"]
    check = ("--reference", files["reference"], "--store", store)
    first = run("check", files["statement"], *check, "--json")
    record = json.loads(first.stdout)
    assert first.exit_code == 0 and record["verdict"] == "plausible" and record["challenge"] == challenge
    assert (store / record["audio"]).read_bytes() == files["statement"].read_bytes()
    assert json.loads((store / f"{record['id']}.json").read_text()) == record
    assert ConsentStore(store).challenge(challenge).statement_sha256 == record["statement_sha256"]
    # The same again is the same record; another recording of the sentence is too late, and is not kept.
    assert run("check", files["statement"], *check, "--challenge", challenge).exit_code == 0
    late = run("check", files["other"], *check, "--challenge", challenge)
    assert late.exit_code == 1 and "refused  the sentence was used up" in late.stdout
    assert len(list(store.glob("*.wav"))) == 1 and len(ConsentStore(store).records()) == 2
    waiting = asked(store)["id"]
    listed = json.loads(run("list", "--store", store, "--json").stdout)
    assert {one["state"] for one in listed["consents"]} == {"plausible", "refused"}
    assert [(one["id"], one["state"]) for one in listed["challenges"]] == [(waiting, "waiting")]
    assert "2999-01-31" in run("list", "--store", store).stdout


def test_the_recording_need_not_be_kept(tmp_path: Path, files: dict[str, Path]) -> None:
    asked(tmp_path / "consent")
    words = ("--reference", files["reference"], "--store", tmp_path / "consent", "--no-audio")
    assert run("check", files["statement"], *words).exit_code == 0
    assert not list((tmp_path / "consent").glob("*.wav"))


@pytest.mark.parametrize("fails", ["recording", "record"])
def test_killed_between_the_claim_and_the_record(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    store = tmp_path / "consent"
    challenge = asked(store)["id"]
    words = ("check", files["statement"], "--reference", files["reference"], "--store", store, "--challenge", challenge)

    def dying(path: Path, data: bytes) -> None:
        if path.parent == store and (path.suffix == ".wav") == (fails == "recording"):
            raise KeyboardInterrupt
        write_atomically(path, data)

    monkeypatch.setattr("pipeline.voice.consent.store.write_atomically", dying)
    assert run(*words).exit_code != 0
    assert ConsentStore(store).challenge(challenge).statement_sha256 and not ConsentStore(store).records()
    monkeypatch.setattr("pipeline.voice.consent.store.write_atomically", write_atomically)
    # The recording that has the claim goes on; another one cannot take its place.
    assert run(*words).exit_code == 0 and run("check", files["other"], *words[2:]).exit_code == 1
    assert {record.verdict for record in ConsentStore(store).records()} == {"plausible", "refused"}


def test_what_cannot_be_checked_has_its_own_status(tmp_path: Path, files: dict[str, Path]) -> None:
    store = tmp_path / "consent"
    asked(store)
    (tmp_path / "text.wav").write_text("not audio")
    for words, said in (
        ((tmp_path / "none.wav", "--reference", files["reference"]), "no audio file at"),
        ((tmp_path / "text.wav", "--reference", files["reference"]), "is not a WAV, FLAC"),
        ((files["statement"], "--reference", tmp_path / "text.wav"), "is not a WAV, FLAC"),
        ((files["statement"], "--reference", files["reference"], "--challenge", "../x"), "no challenge '../x'"),
    ):
        done = run("check", *words, "--store", store)
        assert isinstance(done.exception, NotCheckedError) and done.exception.exit_status == 2
        assert said in str(done.exception)
    assert not ConsentStore(store).records()


def test_marks_of_a_file(tmp_path: Path, corpora: Path) -> None:
    assert read_clip(statement_of(corpora)).marks == ()
    samples, rate = soundfile.read(statement_of(corpora), dtype="float32")
    write_audio(tmp_path / "stated.wav", samples, rate, Statement("toy"))
    soundfile.write(tmp_path / "marked.wav", mark(samples, rate, 4711), rate)
    (stated,), (marked,) = (read_clip(tmp_path / name).marks for name in ("stated.wav", "marked.wav"))
    assert stated.startswith("the file states that voxmill") and marked == "it has the watermark of voxmill"
