"""Held-out segments of a voxmill corpus: the trainer's rule, texts that were never heard, references and recordings."""

from __future__ import annotations

import dataclasses
import io
import logging
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

# The builders of unit rows belong to the tests of catalogs.
sys.path.append(str(Path(__file__).parent.parent / "catalogs"))

from corpus_builders import FINGERPRINT, flac, make_unit, tone

from catalogs.candidates import HELD_OUT_SHARE
from catalogs.candidates.held_out import held_out_draw
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.duplicates import duplicates_path
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import DESCRIPTIONS, DUPLICATES
from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.lists import open_lists
from evaluation.lists.corpus import read, text_key
from trainer.config import ValidationSettings
from trainer.data.corpora import Corpora
from trainer.data.holdout import find_candidates, hold_out
from trainer.runtime.seeds import hash_number

SHARE = 0.3
VOICES = 6
SEGMENTS = 9
"""Segments per voice; the last is rejected."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sessions of one voice each. Sentences differ, apart from one that every session has in another spelling."""
    root = tmp_path_factory.mktemp("held") / "corpus"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    for number in range(VOICES):
        unit = make_unit(f"voice{number}", SEGMENTS, seconds=1.6)
        for place, row in enumerate(unit.rows[:-1]):
            row["text"] = f"sentence {chr(97 + number)} {chr(97 + place)}"
            row["audio"] = flac(tone(1.6, 100.0 + 20 * number + place))
        for place in (3, 6):
            unit.rows[place]["text"] = ("Everyone says this.", "everyone says, this")[number % 2]
        commit_unit(root, dataclasses.replace(unit, references=_pairs(unit.rows) if number < 4 else []))
    _describe(root)
    return root


def _pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two references for every other segment, the closest first; the others have none."""
    return [
        {
            "segment_id": rows[at]["segment_id"],
            "reference_id": rows[other]["segment_id"],
            "cosine": 0.8,
            "gap": at - other,
        }
        for at in range(0, SEGMENTS - 1, 2)
        for other in ((at + 5) % (SEGMENTS - 1), (at + 3) % (SEGMENTS - 1))
    ]


def _describe(root: Path) -> None:
    rows = [
        {"segment_id": row["segment_id"], "annotator": "acoustic", "brief": "calm", "full": f"A calm voice {n}.",
         "verdict": "agree", "status": "ok", "disagreements": []}
        for n, row in enumerate(Corpus(root)) if row["seq"] % 2 == 0
    ]  # fmt: skip
    path = root / "annotations/acoustic/part.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=DESCRIPTIONS), path)


def opened(corpus: Path, tmp_path: Path, more: str = "", **named: Any) -> list[Item]:
    return open_lists([f"corpus:{corpus},share={SHARE},cache={tmp_path / 'cache'}{more}"], **named)


def held_by_the_trainer(corpus: Path, share: float = SHARE) -> set[str]:
    found = find_candidates(Corpora([corpus]), "true", 60.0, "a")
    _, held = hold_out({"a": found}, ValidationSettings(every=1, share=share))
    return {candidate.segment_id for candidate in held}


def rows_of(corpus: Path) -> dict[str, dict[str, Any]]:
    return {row["segment_id"]: row for row in Corpus(corpus)}


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.9])
def test_the_segments_are_those_that_the_trainer_holds_out(corpus: Path, tmp_path: Path, share: float) -> None:
    items = read(str(corpus), pick=list, share=share, unseen_text=False, cache=str(tmp_path))
    assert [item.name for item in items] == sorted(held_by_the_trainer(corpus, share))
    assert {item.list_name for item in items} == {"corpus-corpus"}


def test_linked_segments_are_held_out_together(corpus: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy, ignore=shutil.ignore_patterns("candidates"))
    kept = sorted(row["segment_id"] for row in Corpus(copy) if row["kept"])
    groups = {segment: kept[at - at % 4] for at, segment in enumerate(kept)}
    rows = [{"segment_id": segment, "duplicate_group": name} for segment, name in groups.items()]
    duplicates_path(copy).parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=DUPLICATES), duplicates_path(copy))
    items = read(str(copy), pick=list, share=0.4, unseen_text=False, cache=str(tmp_path))
    names = {item.name for item in items}
    assert names == held_by_the_trainer(copy, 0.4) == {one for one in kept if held_out_draw(groups[one]) < 0.4}
    references = _reference_rows(copy, items)
    assert all(groups[references[name]] != groups[name] for name in references)


def test_the_draw_is_as_it_was() -> None:
    assert [held_out_draw(name) for name in ("a", "segment-1")] == [
        hash_number("held out", name) / 2**56 for name in ("a", "segment-1")
    ]
    assert ValidationSettings().share == HELD_OUT_SHARE == 0.02


def test_texts_that_are_trained_on_are_left_out_and_counted(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, held = rows_of(corpus), held_by_the_trainer(corpus)
    trained = {text_key(row["text"]) for name, row in rows.items() if row["kept"] and name not in held}
    common = {name for name in held if text_key(rows[name]["text"]) in trained}
    assert common and text_key("Everyone says this.") in trained, "the corpus has a sentence on both sides"
    with caplog.at_level(logging.WARNING):
        items = opened(corpus, tmp_path)
    assert {item.name for item in items} == held - common
    assert f"{len(common)} of {len(held)} held-out segments left out: their text is also" in caplog.text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Don’t stop, NOW!", "dont stop now", True),
        ("Ｆｕｌｌ width", "full width", True),
        ("你好，世界。", "你好世界", True),
        ("कि", "का", False),
        ("one two", "one too", False),
        ("!", "?", False),
    ],
)
def test_texts_are_compared_without_case_and_punctuation(one: str, other: str, same: bool) -> None:
    assert (text_key(one) == text_key(other)) == same


def _reference_rows(corpus: Path, items: list[Item]) -> dict[str, str]:
    """The segment that each item's reference is, found by its audio."""
    reader = Corpus(corpus)
    audio = {reader.audio_buffer(row["segment_id"]).to_pybytes(): row["segment_id"] for row in reader if row["kept"]}
    return {item.name: audio[item.reference.read_bytes()] for item in items if item.reference}


def test_references_are_mined_ones_or_others_of_the_voice_never_the_clip_before(corpus: Path, tmp_path: Path) -> None:
    items = read(str(corpus), pick=list, share=0.6, unseen_text=False, cache=str(tmp_path))
    rows, held = rows_of(corpus), held_by_the_trainer(corpus, 0.6)
    references = _reference_rows(corpus, items)
    assert len(references) == len(items)
    mined: dict[str, list[str]] = {}
    for pair in Corpus(corpus).table("references").to_pylist():
        mined.setdefault(pair["segment_id"], []).append(pair["reference_id"])
    assert any(item.name in mined for item in items) and any(item.name not in mined for item in items)
    same = [name for name, found in mined.items() if text_key(rows[found[0]]["text"]) == text_key(rows[name]["text"])]
    assert {item.name for item in items}.intersection(same), "the closest reference of some item has the same words"
    for item in items:
        own, other = rows[item.name], rows[references[item.name]]
        assert item.reference_text == other["text"] and text_key(other["text"]) != text_key(own["text"])
        if usable := [one for one in mined.get(item.name, []) if text_key(rows[one]["text"]) != text_key(own["text"])]:
            assert references[item.name] == next((one for one in usable if one in held), usable[0])
        else:
            assert other["speaker"] == own["speaker"] and own["seq"] - other["seq"] != 1


def test_recordings_are_the_segments_audio_and_groups_are_known(corpus: Path, tmp_path: Path) -> None:
    items = opened(corpus, tmp_path)
    reader, rows = Corpus(corpus), rows_of(corpus)
    for item in items:
        assert item.human is not None and item.human.suffix == ".flac"
        assert item.human.read_bytes() == reader.audio_buffer(item.name).to_pybytes()
        assert soundfile.info(io.BytesIO(item.human.read_bytes())).duration == pytest.approx(1.6)
        row = rows[item.name]
        assert item.text == row["text"] and item.language == "en" and not item.instruction
        assert item.groups == {
            "speaker": row["speaker"], "session": row["session_id"], "duration": "under 3 s", "gender": "female",
        }  # fmt: skip
    assert [item.name for item in items] == sorted(item.name for item in items)
    again = opened(corpus, tmp_path)
    assert [item.id for item in again] == [item.id for item in items]


def test_descriptions_become_instructions(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = rows_of(corpus)
    every = {item.name for item in opened(corpus, tmp_path)}
    described = {name for name in every if rows[name]["seq"] % 2 == 0}
    assert described and described < every
    with caplog.at_level(logging.WARNING):
        design = opened(corpus, tmp_path, ",recipe=design")
    assert {item.name for item in design} == described
    assert f"{len(every) - len(described)} of {len(every)} segments left out: they have no description" in caplog.text
    assert all(item.instruction.startswith("A calm voice") and item.reference is None for item in design)
    assert all(not item.reference_text and item.human for item in design)
    controllable = opened(corpus, tmp_path, ",recipe=controllable")
    assert all(item.instruction and item.reference and item.reference_text for item in controllable)


def test_only_chosen_clips_are_stored(corpus: Path, tmp_path: Path) -> None:
    items = opened(corpus, tmp_path, limit=2)
    assert len(items) == 2
    assert len(list((tmp_path / "cache").rglob("*.flac"))) <= 4
    assert {item.name for item in items} <= {item.name for item in opened(corpus, tmp_path)}


def test_faults_are_one_line(corpus: Path, tmp_path: Path) -> None:
    for more, fault in (
        (",recipe=sing", "recipe=sing is not one of clone, design, controllable"),
        (",share=2", "share=2 is not between 0 and 1"),
        (",share=x", "share=x is not a number"),
        (",unseen_text=maybe", "unseen_text=maybe is not yes or no"),
    ):
        with pytest.raises(EvaluationError, match=fault):
            open_lists([f"corpus:{corpus}{more}"])
    empty = tmp_path / "empty"
    create_corpus(empty)
    with pytest.raises(EvaluationError, match="has no kept segment with text"):
        open_lists([f"corpus:{empty}"])
    with pytest.raises(EvaluationError):
        open_lists([f"corpus:{tmp_path}"])
