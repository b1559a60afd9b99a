"""The pass over a corpus: marks without deleting, free when nothing is new, stable when more comes, and what a split goes by."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_damage import DAMAGES, RATE

from catalogs.corpus.commit import UnitContent, commit_unit, create_corpus, read_records
from catalogs.corpus.duplicates import duplicates_path, read_duplicates
from catalogs.corpus.fsck import fsck
from catalogs.corpus.ids import segment_id, unit_id
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import Thresholds
from catalogs.query.views import query
from pipeline.duplicates.audio_print import audio_print, sha256_of
from pipeline.duplicates.mark import mark_duplicates
from pipeline.records import Recording, Segment, Session, Source
from pipeline.runs.to_rows import recording_rows, segment_rows
from trainer.config import ValidationSettings
from trainer.data.corpora import Corpora
from trainer.data.mixture import find_candidates, hold_out

FINGERPRINT = "0123456789abcdef"


def speech(corpora: Path, name: str) -> np.ndarray:
    samples, rate = soundfile.read(corpora / name, dtype="float32")
    import soxr

    return np.asarray(soxr.resample(samples, rate, RATE) if rate != RATE else samples, dtype=np.float32)


def commit(root: Path, name: str, clips: list[tuple[np.ndarray, str, int]]) -> list[str]:
    """A unit of one recording with (samples, text, voice) clips one after another; returns their ids."""
    seconds = sum(len(samples) for samples, _, _ in clips) / RATE
    source = Source(f"source-{name}", f"/{name}.wav", f"{name}.wav", name, 1, name * 8)
    session = Session(name, FINGERPRINT, "/nowhere", [Recording(source, seconds, RATE, 1, "wav")])
    start = 0
    for seq, (samples, text, voice) in enumerate(clips):
        end = start + len(samples)
        segment = Segment(source.source_id, seq, start / RATE, end / RATE, text=text, language="en")
        segment.segment_id = segment_id(source.source_id, start, end, FINGERPRINT)
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        segment.audio_sha256, segment.audio_print = sha256_of(pcm), audio_print(samples)
        segment.embedding = np.eye(256, dtype=np.float32)[voice]
        sink = io.BytesIO()
        soundfile.write(sink, pcm, RATE, format="FLAC")
        segment.flac, segment.flac_rate = sink.getvalue(), RATE
        session.segments.append(segment)
        start = end
    unit = UnitContent(
        unit_id=unit_id([(source.source_id, 1, name * 8)], FINGERPRINT),
        fingerprint=FINGERPRINT,
        sessions=[name],
        rows=segment_rows(session, Thresholds()),
        recordings=recording_rows(session),
    )
    commit_unit(root, unit)
    return [segment.segment_id for segment in session.segments]


@pytest.fixture
def corpus(tmp_path: Path, corpora: Path) -> tuple[Path, dict[str, str]]:
    """A corpus of three recordings: an original and an exact copy, another take, a telephone copy, an excerpt."""
    root = tmp_path / "corpus"
    create_corpus(root)
    one, take = (speech(corpora, f"ravdess/actor_03/03-01-0{k}-01-01-03.flac") for k in ("1-01", "2-02"))
    other = speech(corpora, "read/2412-153948-0000.flac")
    long_text = "something about mountains and the sea"
    ids = commit(root, "m", [(one, "kids are talking by the door", 0), (other, long_text, 1)])
    ids += commit(root, "n", [(one, "kids are talking by the door", 0), (take, "Kids are talking by the door!", 0)])
    ids += commit(root, "o", [(DAMAGES["telephone"](other), "", 1), (other[RATE : 4 * RATE], "about", 1)])
    return root, dict(zip(["one", "other", "one again", "take", "telephone", "excerpt"], ids, strict=True))


def marks(root: Path) -> dict[str, tuple[str | None, str | None, str | None]]:
    rows = query(root, "select segment_id, duplicate_of, duplicate_kind, duplicate_group from segments")[1]
    return {segment: (of, kind, group) for segment, of, kind, group in rows}


def test_everything_planted_is_marked_and_nothing_is_lost(corpus: tuple[Path, dict[str, str]]) -> None:
    root, ids = corpus
    before = query(root, "select segment_id, kept, reasons, shard, row from segments order by 1")
    found = mark_duplicates(root, 0.78)
    assert found.kinds == {"exact": 1, "part": 1, "reencode": 1, "same_text": 1} and found.segments == 4
    assert query(root, "select segment_id, kept, reasons, shard, row from segments order by 1") == before
    assert marks(root) == {
        ids["one"]: (None, None, ids["one"]),
        ids["one again"]: (ids["one"], "exact", ids["one"]),
        ids["take"]: (ids["one"], "same_text", ids["one"]),
        ids["other"]: (None, None, ids["other"]),
        ids["telephone"]: (ids["other"], "reencode", ids["other"]),
        ids["excerpt"]: (ids["other"], "part", ids["other"]),
    }
    index = Corpus(root).index
    assert marks(root) == {
        row["segment_id"]: (row["duplicate_of"], row["duplicate_kind"], row["duplicate_group"])
        for row in index.to_pylist()
    }
    assert not [problem for problem in fsck(root) if problem.severity == "error"]


def test_a_second_pass_is_free_and_a_lost_one_is_made_again(corpus: tuple[Path, dict[str, str]]) -> None:
    root, _ = corpus
    mark_duplicates(root, 0.78)
    written = duplicates_path(root).read_bytes()
    again = mark_duplicates(root, 0.78)
    assert not again.done and again.segments == 4
    duplicates_path(root).unlink()
    assert mark_duplicates(root, 0.78).done
    assert duplicates_path(root).read_bytes() == written


def test_firsts_stay_firsts_when_a_later_run_brings_more(corpus: tuple[Path, dict[str, str]], corpora: Path) -> None:
    root, ids = corpus
    mark_duplicates(root, 0.78)
    before = marks(root)
    # Session "a" comes before all others in every order.
    (mp3,) = commit(root, "a", [(DAMAGES["mp3_64k"](speech(corpora, "read/2412-153948-0000.flac")), "", 1)])
    found = mark_duplicates(root, 0.78)
    assert found.done and found.kinds["reencode"] == 2
    after = marks(root)
    assert after.pop(mp3) == (ids["other"], "reencode", ids["other"])
    assert after == before


def test_duplicates_fall_on_one_side_of_the_split(corpus: tuple[Path, dict[str, str]]) -> None:
    root, ids = corpus
    mark_duplicates(root, 0.78)
    (root / "thresholds.yaml").write_text("require_text: false\nmin_chars_per_s: null\nmax_chars_per_s: null\n")
    corpora = Corpora([root])
    marks = read_duplicates(root)
    groups = dict(zip(*(marks.column(name).to_pylist() for name in ("segment_id", "duplicate_group")), strict=True))
    assert groups[ids["take"]] == groups[ids["one"]] != groups[ids["excerpt"]]
    candidates = {"all": find_candidates(corpora, "true", 60.0, "all")}
    assert len(candidates["all"]) == 5
    for share in (0.05, 0.3, 0.6):
        training, held = hold_out(candidates, ValidationSettings(every=1, share=share))
        sides = {c.segment_id: "held" for c in held} | {c.segment_id: "trained" for c in training["all"]}
        assert set(sides.values()) == {"held", "trained"}
        assert sides[ids["one"]] == sides[ids["one again"]] == sides[ids["take"]]
        assert sides[ids["other"]] == sides[ids["excerpt"]]
    only = find_candidates(corpora, "duplicate_of is null", 60.0, "all")
    assert {c.segment_id for c in only} == {ids["one"], ids["other"]}


def test_a_damaged_copy_of_the_same_unit_set_gives_the_same_marks(tmp_path: Path, corpora: Path) -> None:
    """Units that were committed in another order (a run that was killed and resumed) give the same marks."""
    one = speech(corpora, "ravdess/actor_03/03-01-01-01-01-01-03.flac")
    clips = {"a": one, "b": DAMAGES["mp3_64k"](one), "c": DAMAGES["gain"](one)}
    found = []
    for order in ("abc", "cab"):
        root = tmp_path / order
        create_corpus(root)
        for name in order:
            commit(root, name, [(clips[name], "", 0)])
        mark_duplicates(root, 0.78)
        found.append(marks(root))
        assert len(list(read_records(root))) == 3
    assert found[0] == found[1] and len({group for _, _, group in found[0].values()}) == 1
