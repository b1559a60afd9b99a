"""The pass over a corpus: what it writes, that it starts from what the annotator said, and that a kill harms nothing."""

from __future__ import annotations

import itertools
import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_builders import make_unit

from annotators.experts.base import ExpertError
from annotators.rows import description_columns, description_path
from annotators.schema import Attributes, Caption, VoiceDescription
from annotators.verification import verify
from annotators.verification.answered import checks_path, original_of, spoken_words
from annotators.verification.verify import verify_corpus
from annotators.words.render import render
from catalogs.corpus.commit import CorpusError, commit_unit, create_corpus, write_in_corpus
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import CHECKS, DESCRIPTIONS

WOMAN = {"gender": "female", "gender_p": 0.98, "pitch_hz": 210.0, "pitch_low_hz": 195.0, "formant_hz": 4050.0}
TRUTH = Attributes(gender="female", rate="normal", age="young", texture=("warm",))


def corpus_of(root: Path, units: int = 2, clips: int = 6, **changes: Any) -> Path:
    """A corpus of one woman per unit, whose clips are measured alike."""
    create_corpus(root, name="small")
    for name in "abcdefgh"[:units]:
        unit = make_unit(name, clips + 1)
        for row in unit.rows:
            row |= {**WOMAN, "voiced_share": 0.6, "effort_db": -14.0, "rate_sps": 4.5, "expressive_p": 0.5, **changes}
        commit_unit(root, unit)
    return root


def describe(root: Path, said: dict[int, VoiceDescription] | None = None, name: str = "fake") -> None:
    """Write descriptions of all kept clips: the truth, but `said` for the clips of these numbers in each unit."""
    corpus = Corpus(root)
    for part in corpus.kept_parts(("segment_id", "shard")):
        units: dict[str, list[str]] = {}
        for row in part.to_pylist():
            units.setdefault(Path(row["shard"]).name.split(".")[0], []).append(row["segment_id"])
        for unit, segments in units.items():
            rows = []
            for number, segment in enumerate(segments):
                default = VoiceDescription(attributes=TRUTH, captions=render(TRUTH, segment))
                description = (said or {}).get(number, default)
                rows.append(
                    {"segment_id": segment, "annotator": name, "model": "m", "prompt_version": "1", "tokens_in": 0,
                     "tokens_out": 0, "cost_usd": 0.1, "status": "ok", "verdict": None, "disagreements": [],
                     **description_columns(description)}
                )  # fmt: skip
            path = description_path(root, name, unit)
            path.parent.mkdir(parents=True, exist_ok=True)
            schema = DESCRIPTIONS.with_metadata({b"identity": b"prompt 7"})
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "annotations").rglob("*.parquet")}


def liar(gender: str = "male") -> VoiceDescription:
    wrong = TRUTH.model_copy(update={"gender": gender})
    return VoiceDescription(attributes=wrong, captions=render(wrong, "liar"))


def test_emphasized_words_that_the_transcript_lacks_are_left_out(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", units=1, text="Well, I NEVER said so")
    stressed = TRUTH.model_copy(update={"emphasis": ("never", "banana", "said so")})
    describe(root, {0: VoiceDescription(attributes=stressed, captions=render(stressed, "x"))})
    for _ in range(2):  # a second pass changes nothing
        verify_corpus(root, "fake")
        (row,) = (r for r in Corpus(root).annotations("descriptions").to_pylist() if r["answered"])
        assert row["labels"]["emphasis"] == ["never", "said so"] and row["verdict"] == "agree"
        assert json.loads(row["answered"])["attributes"]["emphasis"] == ["never", "banana", "said so"]
    assert spoken_words(("重要", "香蕉"), "这很重要。") == ("重要",)
    assert spoken_words(("banana",), "") == ("banana",)


def by_verdict(root: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in Corpus(root).annotations("descriptions").to_pylist():
        found.setdefault(row["verdict"], []).append(row)
    return found


def test_a_wrong_description_is_repaired_and_what_the_annotator_said_is_kept(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c")
    describe(root, {1: liar()})
    stats = verify_corpus(root, "fake")
    assert stats.verdicts == {"agree": 10, "repaired": 2} and stats.prose_only == 0 and stats.leaks == 0
    assert stats.confusions["gender", "male", "female"] == 2 and stats.states["gender", "contradict"] > 2
    assert "2 repaired" in stats.line
    summary = json.loads((root / "annotations" / "fake" / "verify.json").read_text())
    assert (summary["annotator"], summary["experts"]) == ("fake", ["gender", "age"])
    assert summary["verdicts"] == {"agree": 10, "repaired": 2} and (summary["prose_only"], summary["leaks"]) == (0, 0)
    assert summary["retrieval"] == {"tried": 0, "top1": 0.0, "expected": 0.05} and summary["at"]
    found = by_verdict(root)
    for row in found["repaired"]:
        assert row["attributes"]["gender"] == "female" and row["labels"]["gender"] == "female"
        assert row["disagreements"] == ["gender"] and row["cost_usd"] == 0.1
        assert "woman" in row["full"] or "female" in row["full"] or "lady" in row["full"]
        assert original_of(row) == liar()
    assert all(row["answered"] is None and not row["disagreements"] for row in found["agree"])
    checks = Corpus(root).annotations("checks").to_pylist()
    assert {row["segment_id"] for row in checks if row["state"] == "contradict"} == {
        row["segment_id"] for row in found["repaired"]
    }
    assert {(row["claimed"], row["found"]) for row in checks if row["state"] == "contradict"} == {("male", "female")}
    assert not fsck(root)


def test_a_second_pass_changes_no_byte(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c")
    describe(root, {1: liar(), 2: VoiceDescription(attributes=TRUTH, captions=liar().captions)})
    first = verify_corpus(root, "fake")
    before = files(root)
    second = verify_corpus(root, "fake")
    assert files(root) == before and second.verdicts == first.verdicts and second.prose_only == first.prose_only == 2
    path = next(path for path in before if "checks" not in path)
    assert pq.read_schema(root / path).metadata[b"identity"] == b"prompt 7", "the ledger's mark stays"


def test_new_evidence_starts_from_what_was_said_and_can_take_a_repair_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = corpus_of(tmp_path / "c", units=1)
    describe(root, {1: liar()})
    verify_corpus(root, "fake")
    assert len(by_verdict(root)["repaired"]) == 1
    monkeypatch.setattr(verify, "vote_gender", lambda expert, answers: None)
    verify_corpus(root, "fake")
    found = by_verdict(root)
    assert list(found) == ["agree"]
    assert original_of(next(r for r in found["agree"] if r["attributes"]["gender"] == "male")) == liar()
    assert all(row["answered"] is None for row in found["agree"])


def test_gender_is_that_of_the_voice_and_not_of_the_clip(tmp_path: Path) -> None:
    """A clip in which the voice shouts too high for a verdict of its own."""
    root = corpus_of(tmp_path / "c", units=1)
    unit = make_unit("loud", 7)
    for number, row in enumerate(unit.rows):
        low = {"pitch_hz": 290.0, "pitch_low_hz": 262.0} if number == 2 else {}
        row |= {**WOMAN, "voiced_share": 0.6, **low}
    commit_unit(root, unit)
    describe(root, {2: liar()})
    verify_corpus(root, "fake")
    assert len(by_verdict(root)["repaired"]) == 2


def test_a_voice_in_the_grey_zone_keeps_what_was_said_unless_its_own_answers_agree(tmp_path: Path) -> None:
    grey = {"pitch_hz": 150.0, "pitch_low_hz": 140.0, "formant_hz": 3850.0, "gender": None, "gender_p": None}
    root = corpus_of(tmp_path / "c", units=1, clips=4, **grey)
    describe(root, {1: liar(), 2: liar()})
    assert verify_corpus(root, "fake").verdicts == {"agree": 4}
    one = corpus_of(tmp_path / "d", units=1, clips=20, **grey)
    describe(one, {1: liar()})
    assert verify_corpus(one, "fake").verdicts == {"agree": 19, "repaired": 1}


def test_words_of_the_clip_drop_the_description(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", units=1, text="my xylophone broke on the zebra crossing")
    leaky = VoiceDescription(
        attributes=TRUTH, captions=(Caption("full", "en", "A woman complains about a xylophone and a zebra."),)
    )
    describe(root, {1: leaky})
    stats = verify_corpus(root, "fake")
    assert stats.verdicts == {"agree": 5, "dropped": 1} and stats.leaks == 1
    [row] = by_verdict(root)["dropped"]
    assert row["captions"] == [] and row["full"] is None, "nothing of it can be trained on"
    assert "xylophone" not in repr(Corpus(root).annotations("checks").to_pylist())
    assert original_of(row) == leaky


def test_rows_that_failed_or_are_no_valid_description_are_left_alone(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", units=1)
    describe(root)
    [path] = [root / name for name in files(root)]
    rows = pq.read_table(path).to_pylist()
    rows[0] |= {"status": "failed: busy", "labels": None, "attributes": None, "captions": None}
    rows[1]["labels"] |= {"gender": "robot"}
    rows[2] |= {"captions": [{"register": "full", "language": "en", "text": "A (bad) text"}]}
    pq.write_table(pa.Table.from_pylist(rows, schema=DESCRIPTIONS), path)
    stats = verify_corpus(root, "fake")
    assert stats.verdicts == {"agree": 3} and stats.invalid == 2
    after = {row["segment_id"]: row for row in pq.read_table(path).to_pylist()}
    for row in rows[:3]:
        assert after[row["segment_id"]] == row


def test_older_rows_without_labels_and_captions_are_verified_too(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", units=1)
    describe(root, {1: liar()})
    [path] = [root / name for name in files(root)]
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["labels", "captions", "style", "persona", "answered", "pass_key"]), path)
    assert verify_corpus(root, "fake").verdicts == {"agree": 5, "repaired": 1}
    [row] = by_verdict(root)["repaired"]
    assert row["attributes"]["gender"] == "female"


def test_checks_have_the_declared_columns_and_are_read_by_kind(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", units=1)
    describe(root)
    verify_corpus(root, "fake")
    unit = next(path for path in files(root) if "checks" not in path)
    path = checks_path(root, "fake", Path(unit).stem)
    assert pq.read_schema(path).names == CHECKS.names
    corpus = Corpus(root)
    assert corpus.annotations("checks").num_rows == pq.read_table(path).num_rows > 0
    assert corpus.annotations("descriptions").num_rows == 6


def test_a_folder_that_is_no_corpus_and_experts_that_are_not_allowed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError):
        verify_corpus(tmp_path, "fake")
    root = corpus_of(tmp_path / "c", units=1)
    for nobody in ("nobody", "../units"):
        with pytest.raises(CorpusError, match="no descriptions by"):
            verify_corpus(root, nobody)
    assert not list(root.rglob("verify.json"))
    with pytest.raises(ExpertError, match="non-commercial"):
        verify_corpus(root, "fake", experts=["fakes.experts:Forbidden"])
    with pytest.raises(ExpertError, match="moody judges arousal"):
        verify_corpus(root, "fake", experts=["gender", "fakes.experts:Moody"])


def test_rows_that_are_written_during_the_pass_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = corpus_of(tmp_path / "c", units=1)
    describe(root)
    [path] = [root / name for name in files(root)]
    whole = path.read_bytes()
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    judge = verify._unit_verdicts

    def slow(*parts: Any) -> dict[str, verify.Verdict]:
        found = judge(*parts)
        if len(found) == 2:
            path.with_name("new").write_bytes(whole)
            path.with_name("new").replace(path)
        return found

    monkeypatch.setattr(verify, "_unit_verdicts", slow)
    assert verify_corpus(root, "fake").verdicts == {"agree": 6}
    assert pq.read_table(path).num_rows == 6


def _dies_after(root: Path, files_written: int) -> None:
    """Verify a corpus in a process that is killed when it has written a number of files."""
    count = itertools.count(1)

    def dying(*arguments: Any) -> None:
        write_in_corpus(*arguments)
        if next(count) == files_written:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("annotators.verification.answered.write_in_corpus", dying)
        verify_corpus(root, "fake")


@pytest.mark.kill
def test_a_pass_that_is_killed_between_two_files_is_completed_by_the_next(tmp_path: Path) -> None:
    root, whole = corpus_of(tmp_path / "c", units=3), corpus_of(tmp_path / "w", units=3)
    for each in (root, whole):
        describe(each, {1: liar()})
    verify_corpus(whole, "fake")
    for after in (1, 2):
        pid = os.fork()
        if pid == 0:
            try:
                _dies_after(root, after)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        assert not fsck(root)
    verify_corpus(root, "fake")
    assert {name: data for name, data in files(root).items() if "tmp" not in name} == files(whole)


def test_the_row_of_a_check_is_its_fields(tmp_path: Path) -> None:
    row = verify.Check("rate", "fast", "contradict", "prose", "slow", "rate_sps", 0.9, "phrase", "full", "en")
    assert set(asdict(row)) | {"segment_id", "annotator"} == set(CHECKS.names)
