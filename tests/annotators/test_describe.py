"""Describing a corpus: what the words may say, and a pass that resumes where it was broken off."""

from __future__ import annotations

import dataclasses
import errno
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_builders import FINGERPRINT, make_unit
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.providers import provider
from annotators.providers.acoustic import Acoustic
from annotators.providers.base import Provider
from annotators.runner import describe_corpus
from annotators.schema import Answer, Caption, Clip, KeptRows, VoiceDescription
from annotators.words.claims import claims
from catalogs.corpus.commit import CorpusError, bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import DECOUPLED, INDEX
from catalogs.query.views import query
from catalogs.vocabulary.voices import REGISTERS

SECRET = "xylophone zebra quagmire"


def corpus_of(root: Path, *names: str) -> Path:
    create_corpus(root, name="small")
    for name in names:
        unit = make_unit(name, 4)
        for number, row in enumerate(unit.rows):
            row |= {"text": SECRET, "pitch_hz": 90.0 + 40 * number, "expressive_p": 0.2 * number}
        commit_unit(root, unit)
    return root


def kept_rows(rows: list[dict[str, Any]]) -> KeptRows:
    """The rows as a describer is shown a corpus: in several tables."""

    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        schema = pa.schema([INDEX.field(name) for name in columns])
        for part in (rows[::2], rows[1::2]):
            yield pa.Table.from_pylist(part, schema=schema)

    return tables


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def annotation_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "annotations").rglob("*.parquet")}


def test_a_pass_describes_every_kept_segment_once(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a", "b")
    stats = describe_corpus(root)
    kept = {row["segment_id"] for row in Corpus(root).kept().to_pylist()}
    rows = Corpus(root).annotations("descriptions").to_pylist()
    assert (stats.annotator, stats.described, stats.failed, stats.already) == ("acoustic", len(kept), 0, 0)
    assert len(kept) == 6 and {row["segment_id"] for row in rows} == kept and len(rows) == len(kept)
    for row in rows:
        assert 2 <= len(words(row["brief"])) <= 8
        assert 10 <= len(words(row["full"])) <= 50
        assert not set(words(SECRET)) & set(words(row["brief"] + " " + row["full"]))
        assert (row["status"], row["verdict"], row["cost_usd"], row["language"]) == ("ok", "agree", 0.0, "en")
        assert row["attributes"]["gender"] == row["labels"]["gender"] == "female"
        assert ("gender", "female") in {(c.attribute, c.value) for c in claims(row["brief"], "en")}
        assert row["attributes"]["intensity"] is None and row["labels"]["age"] == "unsure"
        assert {(c["register"], c["language"]) for c in row["captions"]} == {
            (r, g) for r in REGISTERS for g in ("en", "zh")
        }
        english = {c["register"]: c["text"] for c in row["captions"] if c["language"] == "en"}
        assert english == {register: row[register] for register in REGISTERS}


def test_a_second_pass_changes_nothing(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a", "b")
    describe_corpus(root)
    before = annotation_files(root)
    stats = describe_corpus(root)
    assert (stats.described, stats.already) == (0, 6)
    assert annotation_files(root) == before


def test_units_committed_later_are_described_and_the_others_left_alone(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a")
    describe_corpus(root)
    before = annotation_files(root)
    commit_unit(root, make_unit("b", 3))
    stats = describe_corpus(root)
    assert (stats.described, stats.already) == (2, 3)
    assert before.items() <= annotation_files(root).items()


class Moody(Provider):
    """A describer that fails on some clips and breaks off after some batches."""

    name, model, prompt_version, listens = "moody", "moody-1", "1", True

    def __init__(self, refuses: Set[int] = frozenset(), breaks_after: int | None = None) -> None:
        self.refuses, self.breaks_after, self.batches = refuses, breaks_after, 0
        self.seen: list[str] = []

    def prepare(self, kept: KeptRows) -> None:
        pass

    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        if self.batches == self.breaks_after:
            raise ConnectionError("the line is dead")
        self.batches += 1
        answers = []
        for clip in clips:
            assert clip.flac is not None and clip.flac.startswith(b"fLaC")
            number = len(self.seen)
            self.seen.append(clip.segment_id)
            said = VoiceDescription(captions=(Caption("brief", "en", "A voice"),))
            refused = number in self.refuses
            answers.append(Answer(clip.segment_id, None if refused else said, "busy" if refused else None))
        return answers


def test_a_broken_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a", "b", "d")
    with pytest.raises(ConnectionError):
        describe_corpus(root, Moody(breaks_after=2), batch=3)
    assert len(annotation_files(root)) == 2
    second = Moody()
    stats = describe_corpus(root, second, batch=3)
    assert (stats.described, stats.already) == (3, 6)
    assert len(second.seen) == 3
    assert not [path for path in (root / "tmp").rglob("*") if path.is_file()]


def test_what_failed_is_kept_as_failed_and_tried_again(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a")
    stats = describe_corpus(root, Moody(refuses={1}))
    assert (stats.described, stats.failed) == (2, 1)
    statuses = sorted(row["status"] for row in Corpus(root).annotations("descriptions").to_pylist())
    assert statuses == ["failed: busy", "ok", "ok"]
    stats = describe_corpus(root, Moody())
    assert (stats.described, stats.failed, stats.already) == (1, 0, 2)
    rows = Corpus(root).annotations("descriptions").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert len({row["segment_id"] for row in rows}) == 3


def test_two_describers_stand_side_by_side(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a")
    describe_corpus(root)
    describe_corpus(root, Moody())
    names = {row["annotator"] for row in Corpus(root).annotations("descriptions").to_pylist()}
    assert names == {"acoustic", "moody"}


def test_a_corpus_that_cannot_be_written_to_is_told_before_anything_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = corpus_of(tmp_path / "c", "a")

    def refuse(**options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    describer = Moody()
    with pytest.raises(CorpusError, match=r"cannot be written to \(Read-only file system\): make it writable"):
        describe_corpus(root, describer)
    assert describer.batches == 0


def test_descriptions_of_replaced_segments_are_not_read(tmp_path: Path) -> None:
    root = tmp_path / "c"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    unit = make_unit("a", 4)
    commit_unit(root, unit)
    describe_corpus(root)
    old = {row["segment_id"] for row in unit.rows}
    row = {"segment_id": next(iter(old)), "described_id": "x", "timbre_id": "y", "text": "hello", "accepted": True}
    made = root / "annotations" / "made" / "aa" / "a.parquet"
    made.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schema=DECOUPLED), made)
    assert len(Corpus(root).annotations("descriptions")) == 3 and len(Corpus(root).annotations("decoupled")) == 1
    assert query(root, "select count(*) from decoupled")[1] == [(1,)]
    rows = [row | {"segment_id": f"{number:016x}"} for number, row in enumerate(unit.rows)]
    commit_unit(root, dataclasses.replace(unit, unit_id="f" * 16, generation=1, rows=rows, references=()))
    assert not old & set(Corpus(root).index.column("segment_id").to_pylist())
    assert len(Corpus(root).annotations("descriptions")) == 0 and len(Corpus(root).annotations("decoupled")) == 0
    assert query(root, "select count(*) from decoupled")[1] == [(0,)]


def test_a_segment_that_was_processed_again_has_one_description(tmp_path: Path) -> None:
    """`--redo` with the same settings: other units, the same segments."""
    root = tmp_path / "c"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    unit = make_unit("a", 4)
    commit_unit(root, unit)
    describe_corpus(root)
    commit_unit(root, dataclasses.replace(unit, unit_id="f" * 16, generation=1))
    assert len(Corpus(root).annotations("descriptions")) == 0
    assert describe_corpus(root).described == 3
    assert len(Corpus(root).annotations("descriptions")) == 3
    assert query(root, "select count(*), count(distinct segment_id) from descriptions")[1] == [(3, 3)]


def test_errors_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no annotator 'gpt'; annotators: acoustic"):
        provider("gpt")
    with pytest.raises(CorpusError):
        describe_corpus(tmp_path)


measured = st.fixed_dictionaries(
    {"segment_id": st.text("0123456789abcdef", min_size=16, max_size=16)},
    optional={
        "pitch_hz": st.one_of(st.none(), st.floats(60, 500)),
        "rate_sps": st.one_of(st.none(), st.floats(0, 12)),
        "loudness_lufs": st.one_of(st.none(), st.floats(-60, 0)),
        "pitch_range_st": st.one_of(st.none(), st.floats(0, 30)),
        "expressive_p": st.one_of(st.none(), st.floats(0, 1)),
        "gender": st.sampled_from([None, "male", "female"]),
        "gender_p": st.one_of(st.none(), st.floats(0, 1)),
        "language": st.sampled_from([None, "en", "zh"]),
    },
)


@settings(max_examples=25, deadline=None)
@given(st.lists(measured, min_size=1, max_size=12, unique_by=lambda row: row["segment_id"]))
def test_whatever_was_measured_the_words_keep_their_form(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["text"] = SECRET
    describer = Acoustic()
    describer.prepare(kept_rows(rows))
    answers = describer.describe([Clip(row) for row in rows])
    assert [answer.segment_id for answer in answers] == [row["segment_id"] for row in rows]
    for row, answer in zip(rows, answers, strict=True):
        said = answer.description
        measures = ("pitch_hz", "rate_sps", "loudness_lufs", "pitch_range_st", "expressive_p")
        if all(row.get(name) is None for name in measures):
            assert said is None and answer.error == "nothing of the voice was measured"
            continue
        assert said is not None and answer.error is None
        assert len(said.captions) >= 6 and all(said.caption("full", language) for language in ("en", "zh"))
        for caption in said.captions:
            assert not set(words(SECRET)) & set(words(caption.text)) and "None" not in caption.text
        if (row.get("gender_p") or 0) < 0.6:
            assert said.attributes.gender == "unsure"
        assert said.attributes.pitch == "unsure" if row.get("pitch_hz") is None else said.attributes.pitch != "unsure"
        # Expressiveness says how much feeling is heard, never which.
        assert said.attributes.emotion in ("unsure", "neutral") and said.attributes.age == "unsure"
    assert describer.describe([Clip(row) for row in rows]) == answers


def labels(describer: Acoustic, rows: list[dict[str, Any]], name: str) -> list[str]:
    answers = describer.describe([Clip(row) for row in rows])
    return [getattr(answer.description.attributes, name) for answer in answers if answer.description]


def test_high_and_low_are_the_corpus_own_within_a_gender() -> None:
    """Men of 145 to 195 Hz: 148 Hz is low among them, though it is not for men at large. The women count for nothing."""
    men = [{"segment_id": f"m{n}", "pitch_hz": 145.0 + n / 10, "gender": "male", "gender_p": 0.9} for n in range(500)]
    women = [
        {"segment_id": f"w{n}", "pitch_hz": 210.0 + n / 10, "gender": "female", "gender_p": 0.9} for n in range(500)
    ]
    describer = Acoustic()
    describer.prepare(kept_rows([*men, *women]))
    for rows in (men, women):
        assert labels(describer, [rows[30], rows[250], rows[-1]], "pitch") == ["low", "mid", "very_high"]


def test_few_clips_are_compared_with_speech_at_large() -> None:
    """Three deep voices are deep, though they are all that the corpus has."""
    rows = [{"segment_id": f"{n}", "pitch_hz": 90.0 + n, "gender": "male", "gender_p": 0.9} for n in range(3)]
    describer = Acoustic()
    describer.prepare(kept_rows(rows))
    assert labels(describer, rows, "pitch") == ["low"] * 3


def test_no_two_clips_of_a_unit_have_the_same_caption_and_a_later_pass_knows_the_earlier_ones() -> None:
    """One voice, measured alike in all its clips: only the draw of the words can tell them apart."""
    same = {"session_id": "s", "speaker": "v", "gender": "male", "gender_p": 0.95, "pitch_hz": 120.0, "rate_sps": 4.5}
    rows = [
        {"segment_id": f"{n:04}", **same, "effort_db": -14.0, "pitch_range_st": 7.0, "expressive_p": 0.4}
        for n in range(300)
    ]
    table = pa.Table.from_pylist(rows, schema=INDEX)
    describer = Acoustic()
    describer.begin_unit(table)
    answers = describer.describe([Clip(row) for row in rows])
    said = [
        (c.register, c.language, c.text)
        for answer in answers
        if answer.description
        for c in answer.description.captions
    ]
    assert len(said) == len(set(said)) == 8 * len(rows)
    assert describer.describe([Clip(row) for row in rows]) == answers
    later = Acoustic()
    later.begin_unit(table)
    for answer in answers[150:]:
        assert answer.description is not None
        later.remember("another", answer.description.captions)
    fresh = later.describe([Clip(row) for row in rows[150:]])
    again = {(c.register, c.language, c.text) for a in fresh if a.description for c in a.description.captions}
    assert not again & set(said[8 * 150 :])


def test_captions_of_one_voice_agree_on_its_identity() -> None:
    """Its clips differ by an octave, and one is heard as the other gender."""
    rows = [
        {
            "segment_id": f"{voice}{n}", "session_id": "s", "speaker": f"spk{voice}", "gender": "male" if n else "female",
            "gender_p": 0.9, "pitch_hz": 80.0 + 40 * voice + 12 * n, "rate_sps": 2.0 + n / 2, "duration_s": 5.0,
        }
        for voice in range(3)
        for n in range(9)
    ]  # fmt: skip
    describer = Acoustic()
    describer.prepare(kept_rows(rows))
    describer.begin_unit(pa.Table.from_pylist(rows, schema=INDEX))
    answers = describer.describe([Clip(row) for row in rows])
    for language in ("en", "zh"):
        said = []
        for voice in range(3):
            found = [a.description for a in answers[9 * voice : 9 * voice + 9] if a.description]
            assert len({(d.attributes.gender, d.attributes.pitch) for d in found}) == 1
            briefs = [d.caption("brief", language) or "" for d in found]
            assert len(set(briefs)) >= 5
            said.append(
                {
                    tuple(c.phrase.lower() for c in claims(b, language) if c.attribute in ("gender", "pitch"))
                    for b in briefs
                }
            )
        assert all(len(words_of_voice) == 1 for words_of_voice in said) and len(set.union(*said)) == 3


def test_clips_that_differ_have_captions_that_differ() -> None:
    rng = np.random.default_rng(3)
    rows = [
        {
            "segment_id": f"{n:04}", "session_id": "s", "speaker": f"spk{n % 20}", "gender": ("male", "female")[n % 2],
            "gender_p": 0.95, "pitch_hz": float(rng.normal(120 + 90 * (n % 2), 20)), "rate_sps": float(rng.normal(4.6, 0.9)),
            "loudness_lufs": float(rng.normal(-23, 4)), "pitch_range_st": float(rng.gamma(5, 1.4)), "language": "en",
            "expressive_p": float(rng.beta(1.3, 1.6)), "duration_s": 5.0,
        }
        for n in range(600)
    ]  # fmt: skip
    describer = Acoustic()
    describer.prepare(kept_rows(rows))
    describer.begin_unit(pa.Table.from_pylist(rows, schema=INDEX))
    by_kind: dict[tuple[str, str], list[str]] = {}
    for answer in describer.describe([Clip(row) for row in rows]):
        for caption in answer.description.captions if answer.description else ():
            by_kind.setdefault((caption.register, caption.language), []).append(caption.text)
    assert len(by_kind) == 8
    for (_, language), texts in by_kind.items():
        assert len(texts) == 600 and len(set(texts)) >= 599
        openings = Counter(" ".join(text.split()[:3]) if language == "en" else text[:4] for text in texts)
        assert max(openings.values()) <= 60, openings.most_common(1)
