"""What recordings say of themselves: flags, reasons in the funnel, dropped by default, kept if the settings say so."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from fakes.certificates import NEEDED, Issued, issued
from fakes.chaos_run import CheapConfig
from fakes.recordings import noise, write
from sessions import make_stage, run_stages, session_of

from catalogs.corpus.fsck import fsck
from catalogs.corpus.thresholds import FLAGS, Thresholds
from catalogs.query.views import query
from pipeline.audio import marks
from pipeline.config import load_config
from pipeline.inputs.find import find_sources
from pipeline.prepare import prepare
from pipeline.records import MARKED_SYNTHETIC, NO_TRAINING, Session
from pipeline.runs.fingerprint import fingerprint
from pipeline.runs.to_rows import recording_rows, segment_rows
from voxcpm.provenance.c2pa.store import sidecar_of
from voxcpm.provenance.statement import Statement
from voxcpm.server.encode import encoder_for
from voxcpm.watermark import mark

ANSWERS = ("wav", "flac", "mp3", "m4a", "aac", "opus")
STATEMENT = Statement("tiny", created="2026-11-30T06:00:00Z")


@pytest.fixture(scope="module")
def speech(corpora: Path) -> tuple[np.ndarray, int]:
    """Three seconds of a real recording."""
    samples, rate = soundfile.read(corpora / "read" / "5142_33396_000002_000004.flac", dtype="float32")
    return samples, rate


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return issued(tmp_path_factory.mktemp("papers"))


def encoded(name: str, speech: tuple[np.ndarray, int], statement: Statement | None = STATEMENT) -> bytes:
    samples, rate = speech
    encoder = encoder_for(name, rate, 24_000, statement, whole=True)
    return encoder.push(samples) + encoder.finish()


def rows_of(session: Session, thresholds: Thresholds) -> list[dict[str, Any]]:
    """The rows of a session; the only reasons that count are those of its marks."""
    texts = {segment.segment_id: "words" for segment in session.segments}
    for segment in session.segments:
        segment.text = texts[segment.segment_id]
    return segment_rows(session, thresholds)


@pytest.mark.parametrize("name", ANSWERS)
def test_speech_that_states_its_origin_is_flagged_in_every_format(
    name: str, speech: tuple[np.ndarray, int], tmp_path: Path
) -> None:
    (tmp_path / f"marked.{name}").write_bytes(encoded(name, speech))
    (tmp_path / f"plain.{name}").write_bytes(encoded(name, speech, None))
    session = session_of(tmp_path / f"marked.{name}", tmp_path / f"plain.{name}")
    run_stages(session, "decode", "detect_speech", "segment", "cut_clips")
    assert [recording.marks for recording in session.recordings] == [[MARKED_SYNTHETIC], []]
    assert [row["marks"] for row in recording_rows(session)] == [[MARKED_SYNTHETIC], []]
    marked, plain = (recording.source.source_id for recording in session.recordings)
    for thresholds, reason in ((Thresholds(), [MARKED_SYNTHETIC]), (Thresholds(drop_flags=("looping_text",)), [])):
        rows = rows_of(session, thresholds)
        assert {row["source_id"] for row in rows} == {marked, plain}
        for row in rows:
            mine = row["source_id"] == marked
            assert (MARKED_SYNTHETIC in row["flags"]) == mine
            assert [r for r in row["reasons"] if r in FLAGS] == (reason if mine else [])


@NEEDED
@pytest.mark.parametrize("name", ANSWERS)
def test_a_signed_file_without_a_statement_is_flagged_and_decoded(
    name: str, speech: tuple[np.ndarray, int], papers: Issued, tmp_path: Path
) -> None:
    from voxcpm.provenance.c2pa.signer import Signer

    path = tmp_path / f"signed.{name}"
    signed = Signer(papers.key, papers.cert).sign(encoded(name, speech, None), STATEMENT)
    path.write_bytes(signed.data)
    if signed.sidecar is not None:
        sidecar_of(path).write_bytes(signed.sidecar)
    session = run_stages(session_of(path), "decode")
    (recording,) = session.recordings
    assert recording.status == "ok" and recording.duration_s == pytest.approx(3.0, abs=0.1), session.quarantine
    assert recording.marks == [MARKED_SYNTHETIC, NO_TRAINING]


def foreign(path: Path, papers: Issued, assertions: list[dict[str, Any]]) -> Path:
    """A WAV that another program signed."""
    import c2pa

    info = c2pa.C2paSignerInfo(b"es256", papers.cert.read_bytes(), papers.key.read_bytes(), None)
    manifest = {"claim_generator_info": [{"name": "Other Recorder", "version": "3"}], "assertions": assertions}
    plain = write(path.with_name("plain.wav"), noise(2.6, 16_000), 16_000)
    with plain.open("rb") as source, path.open("w+b") as sink, c2pa.Signer.from_info(info) as signer:
        c2pa.Builder(manifest).sign(signer, "audio/wav", source, sink)
    plain.unlink()
    return path


def action(kind: str, name: str = "c2pa.created") -> dict[str, Any]:
    words = f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}"
    return {"label": "c2pa.actions.v2", "data": {"actions": [{"action": name, "digitalSourceType": words}]}}


def mining(label: str, **uses: str) -> dict[str, Any]:
    prefix = label.partition(".")[0]
    entries = {f"{prefix}.{name}": {"use": use} for name, use in uses.items()}
    return {"label": label, "data": {"entries": entries}}


RECORDED = action("digitalCapture")
FOREIGN: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "a recording": ([RECORDED], []),
    "generated": ([action("trainedAlgorithmicMedia")], [MARKED_SYNTHETIC]),
    "extended": ([action("compositeWithTrainedAlgorithmicMedia")], [MARKED_SYNTHETIC]),
    "no training": ([RECORDED, mining("cawg.training-mining", ai_generative_training="notAllowed")], [NO_TRAINING]),
    "no training, old": ([RECORDED, mining("c2pa.training-mining", ai_training="notAllowed")], [NO_TRAINING]),
    "on conditions": ([RECORDED, mining("cawg.training-mining", data_mining="constrained")], [NO_TRAINING]),
    "allowed": ([RECORDED, mining("cawg.training-mining", ai_generative_training="allowed")], []),
    "the nearest use counts": (
        [RECORDED, mining("cawg.training-mining", ai_generative_training="allowed", ai_training="notAllowed")],
        [],
    ),
    "only inference": ([RECORDED, mining("cawg.training-mining", ai_inference="notAllowed")], []),
    "both": (
        [action("trainedAlgorithmicMedia"), mining("cawg.training-mining", ai_training="notAllowed")],
        [MARKED_SYNTHETIC, NO_TRAINING],
    ),
}


@NEEDED
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_manifest_of_another_program_is_understood(kind: str, papers: Issued, tmp_path: Path) -> None:
    assertions, expected = FOREIGN[kind]
    assert list(marks.read_tags(foreign(tmp_path / "talk.wav", papers, assertions)).flags) == expected


@NEEDED
def test_without_the_extra_a_manifest_is_noted(papers: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foreign(tmp_path / "talk.wav", papers, FOREIGN["both"][0])
    monkeypatch.setitem(sys.modules, "c2pa", None)
    session = run_stages(session_of(path), "decode")
    assert session.recordings[0].status == "ok" and not session.recordings[0].marks
    (notice,) = session.notices
    assert "manifest (C2PA) that was not read" in notice and "pip install 'voxmill[provenance]'" in notice


def test_a_run_reports_what_it_does_not_keep(
    speech: tuple[np.ndarray, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/marked.flac").write_bytes(encoded("flac", speech))
    (tmp_path / "in/plain.flac").write_bytes(encoded("flac", speech, None))
    kept = {"require_text": False, "min_bandwidth_hz": None, "drop_flags": list(Thresholds().drop_flags)}
    reasons, found = {}, "select reasons, kept, parse_filename(path) from segments order by path"
    for name in ("dropped", "kept"):
        corpus = tmp_path / name
        drop = kept["drop_flags"] if name == "dropped" else ["stock_phrase"]
        settings = CheapConfig(engine={"executor": "inline"}, describe="none", thresholds={**kept, "drop_flags": drop})
        with caplog.at_level(logging.INFO):
            prepare([str(tmp_path / "in")], corpus, settings)
        reasons[name] = {row[2]: (row[0], row[1]) for row in query(corpus, found)[1]}
        assert query(corpus, "select marks from recordings order by path")[1] == [([MARKED_SYNTHETIC],), ([],)]
        assert not fsck(corpus)
    assert reasons["dropped"] == {"marked.flac": ([MARKED_SYNTHETIC], False), "plain.flac": ([], True)}
    assert reasons["kept"] == {"marked.flac": ([], True), "plain.flac": ([], True)}
    assert any("state that they are synthetic (flag marked_synthetic)" in line for line in caplog.messages)


def test_the_setting_turns_it_off_and_changes_no_fingerprint(speech: tuple[np.ndarray, int], tmp_path: Path) -> None:
    path = tmp_path / "marked.flac"
    path.write_bytes(encoded("flac", speech))
    session = make_stage("decode", read_marks="off")(session_of(path))
    assert not session.recordings[0].marks and not session.notices
    assert make_stage("decode", read_marks="tags")(session_of(path)).recordings[0].marks
    assert fingerprint(load_config(None, ["decode.read_marks=off"])) == fingerprint(load_config())


def test_a_manifest_beside_a_recording_is_not_a_recording(tmp_path: Path) -> None:
    write(tmp_path / "in/talk.wav", noise(1, 16_000), 16_000)
    (tmp_path / "in/talk.c2pa").write_bytes(b"\0\0\0\x10jumb" + bytes(8))
    assert [Path(source.path).name for source in find_sources([str(tmp_path / "in")]).sources] == ["talk.wav"]
    found = marks.read_tags(tmp_path / "in/talk.wav")
    assert not found.flags and len(found.notices) == 1 and "was not read" in found.notices[0]


def test_a_manifest_that_fits_two_recordings_is_of_neither(tmp_path: Path) -> None:
    for name in ("talk.wav", "talk.flac"):
        write(tmp_path / name, noise(1, 16_000), 16_000)
    (tmp_path / "talk.c2pa").write_bytes(b"\0\0\0\x10jumb" + bytes(8))
    assert [marks.read_tags(tmp_path / name) for name in ("talk.wav", "talk.flac")] == [marks.Marks()] * 2
    (tmp_path / "talk.c2pa").rename(tmp_path / "talk.flac.c2pa")
    assert marks.read_tags(tmp_path / "talk.wav") == marks.Marks() != marks.read_tags(tmp_path / "talk.flac")


@pytest.mark.parametrize("reader", ["files.read_marks", "c2pa.store.find_manifest"])
def test_a_reader_that_fails_costs_no_recording(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Any) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(f"voxcpm.provenance.{reader}", fail)
    session = make_stage("decode", read_marks="tags")(session_of(write(tmp_path / "a.wav", noise(1, 16_000), 16_000)))
    assert session.recordings[0].status == "ok" and not session.recordings[0].marks
    (notice,) = session.notices
    assert notice.endswith("not read: out of range")


def test_a_watermark_flags_the_segments_that_it_is_in(corpora: Path, tmp_path: Path) -> None:
    voice, rate = soundfile.read(corpora / "read/jfk.flac", dtype="float32", always_2d=True)
    voice = soxr.resample(voice[:, 0], rate, 16_000).astype(np.float32)[: 10 * 16_000]
    samples = np.concatenate([voice, voice, mark(voice, 16_000, 7), voice, voice])
    session = run_stages(session_of(write(tmp_path / "a.wav", samples, 16_000)), "decode")
    (recording,) = session.recordings
    ((start, end),) = recording.watermarked
    assert abs(start - 20) < 1.5 and abs(end - 30) < 1.5 and not recording.marks
    assert recording.flags_of(0.0, 18.0) == [] and recording.flags_of(19.0, 22.0) == [MARKED_SYNTHETIC]
    assert recording.flags_of(32.0, 50.0) == []
    assert any("marked_synthetic" in notice for notice in session.notices)
    tags = session_of(tmp_path / "a.wav")
    make_stage("decode", read_marks="tags")(tags)
    assert not tags.recordings[0].watermarked


@pytest.mark.parametrize("duration_s", [0.0, 0.9, 1.0, 29.99, 30.0, 61.3])
def test_every_sample_of_a_recording_is_searched(duration_s: float) -> None:
    searched: list[float] = []

    def pcm(start: float, end: float) -> np.ndarray:
        searched.append(end - start)
        return np.zeros(round((end - start) * 16_000), np.int16)

    assert marks.find_watermark(pcm, duration_s) == []
    assert sum(searched) == pytest.approx(duration_s if duration_s >= 1 else 0)


def test_the_marks_are_read_without_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1, 16_000), 16_000)
    code = (
        f"import sys; from pipeline.audio import marks; marks.read_tags({str(path)!r}); print('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_copy_in_the_spool_is_asked_not_the_container(speech: tuple[np.ndarray, int], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/marked.flac").write_bytes(encoded("flac", speech))
    shutil.make_archive(str(tmp_path / "talks"), "zip", tmp_path / "in")
    settings = CheapConfig(engine={"executor": "inline"}, describe="none")
    prepare([str(tmp_path / "talks.zip")], tmp_path / "corpus", settings)
    assert query(tmp_path / "corpus", "select marks from recordings")[1] == [([MARKED_SYNTHETIC],)]
