"""`decouple` with scripted stages: what is committed, why clips are rejected, kills, other bounds, and what the trainer sees."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from described_speech import ENGLISH, GERMAN, described_corpus
from fakes import scripted_speech
from fakes.decoupling_run import SETTINGS

from catalogs.corpus.commit import CorpusError, write_in_corpus
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import Thresholds, load_thresholds, save_thresholds
from catalogs.query.views import QueryError, query
from pipeline.synthesis.bounds import REASON_WORDS, Bounds, accepted_sql
from pipeline.synthesis.decouple import DecoupleSummary, decouple
from pipeline.synthesis.made import unit_rows
from pipeline.synthesis.output import decoupled_bytes, decoupled_path
from pipeline.synthesis.pairs import read_pairs
from pipeline.synthesis.settings import load_decouple_settings
from voxcpm.presets import PUBLISHED, config_dict, published_dict

Run = Callable[..., DecoupleSummary]
Finished = tuple[Path, DecoupleSummary]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of described segments, one in English and one in German."""
    sessions = [[("en", text) for text in ENGLISH], [("de", text) for text in GERMAN]]
    return described_corpus(tmp_path_factory.mktemp("described") / "corpus", sessions)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for a checkpoint: scripted stages load nothing."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(config_dict("toy", 512)), encoding="utf-8")
    return folder


@pytest.fixture
def run(corpus: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run with scripted stages."""
    monkeypatch.setattr("pipeline.synthesis.settings.GROUPS", scripted_speech.GROUPS)

    def call(out: Path, *overrides: str, **named: Any) -> DecoupleSummary:
        return decouple(corpus, model, out, load_decouple_settings(None, [*SETTINGS, *overrides]), **named)

    return call


@pytest.fixture(scope="module")
def finished(corpus: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run. Not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.synthesis.settings.GROUPS", scripted_speech.GROUPS)
        return out, decouple(corpus, model, out, load_decouple_settings(None, SETTINGS))


def made(out: Path) -> list[dict[str, Any]]:
    return [row for _, rows in unit_rows(out) for row in rows]


def test_a_run_keeps_nothing_that_breaks_a_bound_and_explains_the_rest(finished: Finished, corpus: Path) -> None:
    out, summary = finished
    rows, pairs = made(out), [pair for pair in read_pairs(out) if pair.reason is None]
    assert summary.pairs == len(pairs) > 6 and summary.clips == len(rows)
    bounds = Bounds()
    for row in rows:
        good = row["cer"] is not None and row["cer"] <= bounds.max_cer and row["pitch_st"] <= bounds.max_pitch_st
        good = good and row["source_cosine"] >= bounds.min_source_cosine
        assert row["accepted"] == good == (row["reasons"] == [])
        assert set(row["reasons"]) <= REASON_WORDS.keys() | {"failed_generate_speech"}
        assert row["model"] and row["seed"] and row["described_id"] != row["text_id"]
    # An accepted pair has one accepted clip and nothing after it; the others have used all their attempts.
    by_pair = {
        pair.pair_id: sorted((r for r in rows if r["pair_id"] == pair.pair_id), key=lambda r: r["attempt"])
        for pair in pairs
    }
    for mine in by_pair.values():
        assert [row["attempt"] for row in mine] == list(range(1, len(mine) + 1))
        assert len({row["seed"] for row in mine}) == len(mine)
        assert [row["accepted"] for row in mine[:-1]] == [False] * (len(mine) - 1)
        assert mine[-1]["accepted"] or len(mine) == 3
    assert summary.accepted == sum(mine[-1]["accepted"] for mine in by_pair.values()) > 0
    failed = [row for row in rows if scripted_speech.CANNOT in row["text"]]
    assert failed and all(row["reasons"] == ["failed_generation"] for row in failed)
    columns, found = query(out, "SELECT DISTINCT stage, error FROM quarantine")
    assert found == [("generate_speech", "the text is beyond the context")], columns
    assert query(corpus, "SELECT count(*) FROM decoupled")[1] == [(0,)]


def test_the_corpus_is_whole_and_marked(finished: Finished) -> None:
    out, _ = finished
    assert fsck(out) == []
    index = Corpus(out).index.to_pylist()
    assert index and all(row["synthetic"] and row["license"] == "CC0-1.0" for row in index)
    # It is known to be synthetic by its rows; the flag of recordings that say so would drop it.
    assert not any({"marked_synthetic", "no_training"} & set(row["flags"] or ()) for row in index)
    # The voice is that of the source: so are the rights to it.
    columns, rights = query(out, "SELECT DISTINCT attribution, consent, purposes, license FROM recordings")
    assert rights == [("Anna Example", "explicit", ["tts-training"], "CC0-1.0")], columns
    ids = {row["segment_id"] for row in index}
    assert {row["segment_id"] for row in made(out) if row["cer"] is not None} == ids
    assert query(out, "SELECT count(*) FROM reference_pairs")[1] == [(0,)]
    accepted = query(out, f"SELECT segment_id FROM decoupled WHERE {accepted_sql(Bounds())} AND cer IS NOT NULL")[1]
    assert {name for (name,) in accepted} == {row["segment_id"] for row in made(out) if row["accepted"]}


def test_again_does_nothing_and_another_model_is_refused(
    run: Run, finished: Finished, corpus: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out, first = tmp_path / "out", finished[1]
    shutil.copytree(finished[0], out)
    again = run(out)
    assert again.clips == 0 and (again.pairs, again.accepted, again.rejected) == (
        first.pairs,
        first.accepted,
        first.rejected,
    )
    other = tmp_path_factory.mktemp("other")
    (other / "config.json").write_text(json.dumps(config_dict("toy", 513)), encoding="utf-8")
    with pytest.raises(Exception, match="another model or other settings") as told:
        decouple(corpus, other, out, load_decouple_settings(None, SETTINGS))
    assert "\n" not in str(told.value)
    with pytest.raises(Exception, match="another model or other settings"):
        run(out, "seed=5")


def test_other_bounds_decide_again_without_a_clip(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wide = ["bounds.max_cer=1", "bounds.max_pitch_st=50", "bounds.min_source_cosine=-1"]
    strict = run(out, "attempts=1")
    loose = run(out, "attempts=1", *wide)
    assert loose.clips == 0 and loose.decided_again == loose.accepted - strict.accepted > 0
    rows = made(out)
    assert all(row["accepted"] == (row["cer"] is not None) for row in rows)
    back = run(out, "attempts=1")
    assert back.clips == 0 and back.accepted == strict.accepted
    # Of several attempts that satisfy wider bounds now, the first counts.
    more = run(out)
    assert more.clips > 0
    run(out, *wide)
    taken = Counter(row["pair_id"] for row in made(out) if row["accepted"])
    assert taken and set(taken.values()) == {1}


def test_a_limit_is_extended_later(run: Run, finished: Finished, tmp_path: Path) -> None:
    out, (whole, _) = tmp_path / "out", finished
    assert run(out, limit=3).pairs == 3
    run(out)
    assert read_pairs(out) == read_pairs(whole)
    assert sorted(row["segment_id"] for row in made(out)) == sorted(row["segment_id"] for row in made(whole))


def test_killed_anywhere_the_end_is_the_same(corpus: Path, model: Path, tmp_path: Path, dice: random.Random) -> None:
    """Runs are killed at random changes on the disk until one comes to its end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "fakes.decoupling_run"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runs:
        assert runs.stdin is not None and runs.stdout is not None

        def one(out: Path, kill_at: int) -> int:
            assert runs.stdin is not None and runs.stdout is not None
            runs.stdin.write(f"{corpus}\t{model}\t{out}\t{kill_at}\n")
            runs.stdin.flush()
            return int(runs.stdout.readline())

        assert one(whole, 0) == 0
        codes = [one(broken, dice.randint(1, 40)) for _ in range(10)]
        codes.append(one(broken, 0))
        runs.stdin.close()
    assert -9 in codes and codes[-1] == 0
    assert read_pairs(broken) == read_pairs(whole)

    def state(out: Path) -> list[dict[str, Any]]:
        return sorted(made(out), key=lambda row: (row["pair_id"], row["attempt"]))

    assert state(broken) == state(whole)
    counted = Counter((row["pair_id"], row["attempt"]) for row in made(broken))
    assert set(counted.values()) == {1}
    assert sorted(Corpus(broken).index.column("segment_id").to_pylist()) == sorted(
        Corpus(whole).index.column("segment_id").to_pylist()
    )
    assert [problem for problem in fsck(broken) if problem.severity == "error"] == []


def test_the_trainer_takes_them_as_such_alone(finished: Finished, corpus: Path, tmp_path: Path) -> None:
    from trainer.data.corpora import Corpora
    from trainer.data.holdout import find_candidates, hold_out
    from trainer.validation_settings import ValidationSettings

    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    accepted = {row["segment_id"]: row for row in made(out) if row["accepted"]}
    both = Corpora([corpus, out])
    found = {c.segment_id: c for c in find_candidates(both, "true", 60.0, "a")}
    mine = {name: c for name, c in found.items() if c.described_id}
    assert mine.keys() == accepted.keys() and len(found) == len(mine) + len(Corpus(corpus))
    for name, candidate in mine.items():
        row = accepted[name]
        assert candidate.text == row["text"] and candidate.described_id == row["described_id"]
        assert candidate.layouts() == ("controllable",)
        assert [reference for reference, _ in candidate.references] == [row["timbre_id"]]
    natural = [c for c in found.values() if not c.described_id]
    assert not any(mine.keys() & {reference for reference, _ in c.references} for c in natural)
    for share in (0.2, 0.6):
        training, held = hold_out({"a": list(found.values())}, ValidationSettings(every=1, share=share))
        assert not mine.keys() & {c.segment_id for c in held}
        gone = {c.segment_id for c in held}
        assert not gone & {c.described_id for c in training["a"]}
    # Without the row that marks it, a made clip does not count as a recording either.
    shutil.rmtree(out / "annotations" / "decoupled")
    assert {
        c.segment_id for c in find_candidates(Corpora([corpus, out]), "true", 60.0, "a")
    } == found.keys() - mine.keys()


def test_one_line_for_what_cannot_be(run: Run, corpus: Path, model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(corpus, bare)
    shutil.rmtree(bare / "annotations" / "acoustic")
    lora = load_decouple_settings(None, ["generate.lora=/nowhere"])
    first = tmp_path / "first"
    first.mkdir()
    (first / "config.json").write_text(json.dumps(published_dict(PUBLISHED[2])), encoding="utf-8")
    calls: tuple[tuple[Callable[[], DecoupleSummary], str], ...] = (
        (lambda: decouple(tmp_path / "none", model, tmp_path / "o"), "not a corpus"),
        (lambda: decouple(corpus, tmp_path / "none", tmp_path / "o"), "no checkpoint folder"),
        (lambda: run(corpus), "holds recordings"),
        (lambda: decouple(corpus, model, tmp_path / "o", lora), "no LoRA adapter"),
        (lambda: decouple(corpus, first, tmp_path / "o"), "takes no reference clip"),
        (lambda: decouple(bare, model, tmp_path / "o"), "no described styles; run: voxmill describe"),
    )
    for call, words in calls:
        with pytest.raises((CorpusError, FileNotFoundError, RuntimeError, ValueError), match=words) as told:
            call()
        assert "\n" not in str(told.value)


def test_a_run_that_cannot_start_leaves_nothing(run: Run, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="nonsense"):
        run(tmp_path / "out", "pairing.where=nonsense > 1")
    assert not (tmp_path / "out").exists()


def test_a_clip_that_cannot_be_stored_is_not_accepted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages.cut_clips import CutClips

    out, honest = tmp_path / "out", CutClips._store

    def broken(self: CutClips, segment: Any, samples: Any, info: Any) -> None:
        if segment.seq == 0:
            raise OSError(5, "Input/output error")
        honest(self, segment, samples, info)

    with monkeypatch.context() as patched:
        patched.setattr(CutClips, "_store", broken)
        first = run(out)
    # The machine failed: nothing is said of these attempts, and the next run makes them.
    assert first.open > 0 and first.failed == {"cut_clips: OSError: [Errno 5] Input/output error": first.open}
    assert query(out, "SELECT count(*) FROM quarantine WHERE stage = 'cut_clips'")[1] == [(0,)]
    stored = {row["segment_id"] for row in Corpus(out)}
    assert all(row["segment_id"] in stored for row in made(out) if row["accepted"])
    again = run(out)
    assert again.open == 0 and again.clips > 0 and fsck(out) == []


def test_uncommitted_rows_do_not_count(run: Run, finished: Finished, corpus: Path, tmp_path: Path) -> None:
    from trainer.data.corpora import Corpora
    from trainer.data.holdout import find_candidates

    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    accepted = {row["segment_id"] for row in made(out) if row["accepted"]}
    rejected = [row for row in made(out) if not row["accepted"] and row["cer"] is not None]
    # A killed run grouped the pairs in another way: its rows say that these clips are accepted.
    orphan = decoupled_path(out, "f" * 16)
    orphan.parent.mkdir(exist_ok=True, parents=True)
    orphan.write_bytes(decoupled_bytes([row | {"accepted": True, "reasons": []} for row in rejected]))
    assert query(out, "SELECT count(*) FROM decoupled")[1] == [(len(made(out)),)]
    found = find_candidates(Corpora([corpus, out]), "true", 60.0, "a")
    assert {c.segment_id for c in found if c.described_id} == accepted
    run(out)
    assert not orphan.exists()


def test_decisions_follow_the_bounds_of_the_last_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    run(out, "attempts=1")
    before = made(out)
    calls: list[Path] = []

    def dies(root: Path, path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) > 1:
            raise KeyboardInterrupt
        write_in_corpus(root, path, data)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pipeline.synthesis.made.write_in_corpus", dies)
        run(out, "attempts=1", "bounds.max_cer=0", "bounds.min_source_cosine=1")
    assert made(out) != before
    # Whoever goes back to the first bounds gets the first decisions.
    assert run(out, "attempts=1").clips == 0 and made(out) == before


def test_thresholds_are_those_of_the_source_and_may_change(
    run: Run, finished: Finished, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = run(out, "attempts=1")
    assert summary.accepted > 0
    save_thresholds(out, Thresholds(max_duration_s=1.1))
    strict = run(out, "attempts=1")
    assert strict.clips == 0 and strict.accepted < summary.accepted and "below_thresholds" in strict.rejected
    # The rejected pairs get their further attempts.
    assert run(out).clips > 0
    assert load_thresholds(finished[0]) == load_thresholds(corpus)


def test_pairs_are_a_table_that_people_can_read(finished: Finished) -> None:
    out, _ = finished
    rows = pq.ParquetFile(out / "pairs.parquet").read().to_pylist()
    assert {"described_id", "text", "reason", "relatedness"} <= rows[0].keys()
