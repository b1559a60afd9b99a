"""The lineage beside a checkpoint names what the steps really drew: seen in the batches, across resumes, ranks and corpora."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drawn_samples import Drawn, expected, lineage_of, make_synthetic, told, watch, watched_train
from fakes.logs import logged
from lineages import a_lineage, a_row, a_table
from rank_runs import RankProcesses
from speech_corpus import chosen_clips, commit_speaker
from train_runs import Runs
from typer.testing import CliRunner

from catalogs.candidates.stored import FOLDER
from catalogs.corpus.commit import bind_fingerprint, create_corpus
from catalogs.corpus.reader import Corpus
from catalogs.lineage.digest import corpus_digest
from catalogs.lineage.files import LINEAGE, find_recordings, read_table, write_lineage
from catalogs.lineage.record import LineageError
from catalogs.weights.checkpoint_files import checkpoint_digest
from trainer.checkpoint.lineage import LineageRecorder
from trainer.config import TrainConfig
from trainer.data.ancestry import ancestor_of
from trainer.data.corpora import Corpora
from trainer.data.drawn import DrawnCounts, drawn_rows
from trainer.dryrun.checks import read_data
from trainer.dryrun.lineage import lineage
from trainer.model import build
from trainer.monitor.loss_guard import Guard
from trainer.run import train
from voxcpm.provenance.source import checkpoint_digest as spoken_digest
from voxmill.cli import app

MIXED = {
    "steps": 4, "rows": 2, "max_positions": 120, "decoupled": 0.5,
    "layouts": {"basic": 1.0, "reference": 1.0, "controllable": 3.0, "design": 0.5},
}  # fmt: skip
PLAINER = MIXED | {"steps": 3, "layouts": {"basic": 1.0, "reference": 1.0}}


@dataclass(frozen=True)
class Finished:
    """A finished run and what its steps drew."""

    config: TrainConfig
    drawn: list[Drawn]
    corpora: dict[str, Path]

    @property
    def output(self) -> Path:
        return Path(self.config.output)

    def checkpoint(self, step: int) -> Path:
        return self.output / "checkpoints" / f"step_{step:07d}"


@pytest.fixture(scope="module")
def two(speech: Path, corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two corpora of the same name: that of all tests, with synthetic clips, and one of another speaker."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(speech, folder / "a", ignore=shutil.ignore_patterns(FOLDER))
    make_synthetic(folder / "a")
    create_corpus(folder / "b", "corpus")
    bind_fingerprint(folder / "b", json.loads((folder / "a" / "corpus.json").read_text())["fingerprint"])
    name, entries = list(chosen_clips(corpora, 4, 3).items())[2]
    commit_speaker(folder / "b", corpora, name, entries)
    return {"corpus": folder / "a", "corpus#2": folder / "b"}


def settings(runs: Runs, two: dict[str, Path], output: Path, **changes: Any) -> TrainConfig:
    """Two phases of four steps."""
    values: dict[str, Any] = {
        "corpus": [str(path) for path in two.values()], "phases": {"one": MIXED, "two": PLAINER},
        "validation": {"every": 100, "share": 0.2, "speak": 0}, "save_every": 2, "keep": 9,
    }  # fmt: skip
    return runs.config(output, **values | changes)


@pytest.fixture(scope="module")
def finished(runs: Runs, two: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that is begun three times; its guard refuses step 3."""
    drawn: list[Drawn] = []
    output = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, drawn)
        calls: list[float] = []
        patch.setattr(Guard, "accepts", lambda self, loss: calls.append(loss) or len(calls) != 3)  # type: ignore[func-returns-value]
        for steps in (3, 5, 7):
            result = train(settings(runs, two, output, steps=steps))
    assert result.bad_steps == 1 and {step for step, *_ in drawn} == set(range(1, 8))
    return Finished(settings(runs, two, output), drawn, two)


def test_every_checkpoint_names_what_its_steps_drew(finished: Finished) -> None:
    for step in (2, 3, 4, 5, 6, 7):
        assert told(finished.checkpoint(step)) == expected(finished.drawn, finished.corpora, step), step
    last = told(finished.checkpoint(7))
    assert {name for name, _ in last} == {"corpus", "corpus#2"}
    assert all(any(row[kind] for row in last.values()) for kind in ("draws", "as_reference", "through_decoupled"))


def test_the_record_of_a_checkpoint(finished: Finished) -> None:
    folder = finished.checkpoint(7)
    found = lineage_of(folder)
    assert found.digest == checkpoint_digest(folder) == spoken_digest(folder), "the digest that its speech states"
    assert (found.kind, found.step, found.seed, found.tombstones, found.gaps) == ("model", 7, 1, (), ())
    assert [one.digest for one in found.corpora] == [corpus_digest(path) for path in finished.corpora.values()]
    assert [one.folder for one in found.corpora] == ["a", "b"] and str(finished.output.parent) not in str(found.corpora)
    assert [(one.phase, one.first_step, one.last_step) for one in found.positions] == [("one", 1, 4), ("two", 5, 7)]
    for one in found.positions:
        mine = {index for step, index, *_ in finished.drawn if one.first_step <= step <= one.last_step}
        assert mine == set(range(one.first, one.end)) - set(one.waiting), "no sample was too long here"
    assert any("cafe" in note for note in found.notes), "the checkpoint that made the synthetic speech"
    # The golden checkpoint has no lineage.
    assert [(one.role, one.known) for one in found.ancestors] == [("start", False)]
    assert found.unknown == (
        f"unknown parent: {found.parents[0].name} (start) has no lineage, so what it was trained on is not known",
    )


def test_held_out_clips_are_listed_and_never_drawn(finished: Finished) -> None:
    found = lineage_of(finished.checkpoint(7))
    held = {row.source_id: row.held_out for row in find_recordings(found) if row.held_out}
    assert sum(held.values()) == found.held_out.segments > 0 and len(held) == found.held_out.recordings
    drawn = {name for _, _, *names in finished.drawn for name in names if name}
    whole = {row["segment_id"]: row for path in finished.corpora.values() for row in Corpus(path).index.to_pylist()}
    never = [row for name, row in whole.items() if name not in drawn]
    assert all(sum(row["source_id"] == source for row in never) >= count for source, count in held.items())


def test_hours_by_license_count_a_recording_once(finished: Finished) -> None:
    found = lineage_of(finished.checkpoint(7))
    rows = [row for row in find_recordings(found) if row.used]
    assert sum(share.recordings for share in found.licenses.values()) == len(rows)
    assert sum(share.hours for share in found.licenses.values()) == pytest.approx(
        sum(r.seconds or 0 for r in rows) / 3600
    )
    drawn = sum(share.drawn_hours for share in found.licenses.values())
    assert drawn == pytest.approx(sum(row.drawn_s for row in rows) / 3600)


def test_a_run_without_lineage_gets_it_by_replay(runs: Runs, finished: Finished, tmp_path: Path) -> None:
    """As one that was begun by an earlier version: nothing is left of it but weights and positions."""
    output = tmp_path / "out"
    shutil.copytree(finished.output, output, symlinks=True)
    for step in (6, 7):
        shutil.rmtree(output / "checkpoints" / f"step_{step:07d}")
    (output / "latest").unlink()
    for path in (output / "checkpoints").glob("*/lineage.*"):
        path.unlink()
    lines: list[str] = []
    logged(lines.append, train, settings(runs, finished.corpora, output))
    assert any("computed again" in line for line in lines)
    again, before = (lineage_of(folder / "checkpoints" / "step_0000007") for folder in (output, finished.output))
    assert read_table(again).equals(read_table(before)) and again.positions == before.positions


def test_ranks_and_a_resume_on_fewer(runs: Runs, two: dict[str, Path], tmp_path: Path) -> None:
    """Two sharded ranks, then one: the first rank alone writes what all of them drew."""
    config = settings(runs, two, tmp_path / "out", parallel="fsdp", steps=2, save_every=2)
    ranks = RankProcesses(config, tmp_path, call=watched_train)
    try:
        assert ranks.finish() == [0, 0], ranks.said()
    finally:
        ranks.kill()
    drawn: list[Drawn] = [
        tuple(row) for rank in (0, 1) for row in json.loads((tmp_path / f"out.drawn.{rank}").read_text())
    ]
    resume = tmp_path / "out" / "resume" / "step_0000002"
    assert (resume / LINEAGE).is_file() and told(resume) == told(tmp_path / "out" / "latest")
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, drawn)
        train(settings(runs, two, tmp_path / "out", steps=3))
    assert {step for step, *_ in drawn} == {1, 2, 3}
    for step in (2, 3):
        assert told(tmp_path / "out" / "checkpoints" / f"step_{step:07d}") == expected(drawn, two, step), step


def test_adapters_and_merged_models_keep_both_parents(runs: Runs, finished: Finished, tmp_path: Path) -> None:
    start, drawn = finished.checkpoint(5), list[Drawn]()
    model = {"start": str(start), "lora": {"r": 2}}
    config = settings(runs, finished.corpora, tmp_path / "lora", model=model, steps=2)
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, drawn)
        result = train(config)
    adapter, merged = lineage_of(Path(str(result.adapter))), lineage_of(Path(result.checkpoint))
    assert (adapter.kind, merged.kind) == ("adapter", "model")
    assert [(a.generation, a.role, a.known) for a in adapter.ancestors] == [(1, "base", True), (2, "start", False)]
    assert adapter.parents[0].digest == checkpoint_digest(start) and adapter.parents[0].name == "out/step_0000005"
    assert told(Path(str(result.adapter))) == expected(drawn, finished.corpora, 2)
    assert told(Path(str(result.adapter)), generation=1) == told(start)
    assert {(a.role, a.digest) for a in merged.parents} == {
        ("base", checkpoint_digest(start)), ("adapter", checkpoint_digest(Path(str(result.adapter)))),
    }  # fmt: skip
    both = read_table(merged)
    assert set(both["generation"].to_pylist()) == {1}, "the merge itself draws nothing"
    assert sum(both["draws"].to_pylist()) == len(drawn) + sum(row["draws"] for row in told(start).values())
    assert len(merged.unknown) == 1


def test_a_parent_whose_files_were_exchanged_is_unknown(runs: Runs, finished: Finished, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(finished.checkpoint(5), start)
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config))
    lines: list[str] = []
    ancestors, rows, _ = logged(lines.append, ancestor_of, "start", str(start))
    assert not ancestors[0].known and len(ancestors) == 1 and not len(rows)
    assert any("other files than its lineage describes" in line for line in lines)


def test_what_the_codec_of_a_run_from_scratch_was_trained_on_counts(
    runs: Runs, two: dict[str, Path], tmp_path: Path
) -> None:
    """Those clips that the codec is really given, before the first step; and the tokenizer is spoken of."""
    config = settings(runs, two, tmp_path / "out", model={"codec_steps": 3})
    data = read_data(config)
    recorder = LineageRecorder(config, data.corpora, data.mixtures, data.held, data.key)
    recorder.begin()
    snapshot = recorder.snapshot(0)
    heard: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(data.corpora), "clip", lambda self, segment, rate: heard.append(segment))
        patch.setattr(build, "fit_codec", lambda *_, **__: None)
        build._trained_codec(config, data.corpora, SimpleNamespace(sample_rate=16_000), data.corpora.kept())  # type: ignore[arg-type]
    owner = {row["segment_id"]: row["source_id"] for path in two.values() for row in Corpus(path).index.to_pylist()}
    rows = snapshot.rows().to_pylist()
    assert {row["source_id"]: row["in_codec"] for row in rows if row["in_codec"]} == Counter(
        owner[name] for name in heard
    )
    assert {row["first_step"] for row in rows if row["in_codec"]} == {0} and snapshot.lineage.ancestors == ()
    assert any("tokenizer" in note for note in snapshot.lineage.notes)


def test_the_function_and_the_command_say_the_same(finished: Finished, tmp_path: Path) -> None:
    whole = lineage(finished.output)
    assert whole.lineage.folder == finished.output / "latest" and whole.recordings is None
    assert sum(use.draws for use in whole.uses) == len(finished.drawn)
    drawn = expected(finished.drawn, finished.corpora, 7)
    (name, source), counts = next(item for item in sorted(drawn.items()) if item[1]["through_decoupled"])
    path = next(
        row["path"]
        for row in Corpus(finished.corpora[name]).table("recordings").to_pylist()
        if row["source_id"] == source
    )
    for wanted in (source, source[:10], path):
        (row,) = lineage(finished.output, recording=wanted).recordings or ()
        assert (row.corpus, row.draws, row.first_step) == (name, counts["draws"], counts["first"][0])
    (tmp_path / "other.wav").write_bytes(b"no recording of these corpora")
    assert lineage(finished.output, recording=tmp_path / "other.wav").recordings == ()
    done = CliRunner().invoke(app, ["lineage", str(finished.output), "--recording", source, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["recordings"] == [
        asdict(row) for row in lineage(finished.output, source).recordings or ()
    ]
    done = CliRunner().invoke(app, ["lineage", str(finished.output)])
    assert done.exit_code == 0 and "unknown parent" in done.output and "corpus#2" in done.output


def test_the_uses_of_a_segment_are_computed_from_the_order(finished: Finished) -> None:
    """A target, a reference, a description that synthetic speech follows, and a held-out clip."""
    targets, references, followed = (Counter(str(row[at] or "") for row in finished.drawn) for at in (2, 3, 4))
    for name in sorted({next(iter(targets)), *references, *followed} - {""}):
        use = lineage(finished.output, segment=name).segment
        assert use is not None and use.segment_id == name
        assert (use.draws, use.as_reference) == (targets[name], references[name])
        through = [row for row in finished.drawn if row[4] and name in row[3:]]
        assert use.through_decoupled == len(through)
        assert use.first_step == min(row[0] for row in finished.drawn if name in row)
    held = read_data(finished.config).held[0].segment_id
    use = lineage(finished.output, segment=held).segment
    assert use is not None and use.held_out and use.first_step is None
    with pytest.raises(LineageError, match="not in the data"):
        lineage(finished.output, segment="0" * 16)


def test_corpora_that_changed_are_refused_for_segments(finished: Finished, two: dict[str, Path]) -> None:
    with pytest.raises(LineageError, match=r"not what .* was trained on"):
        lineage(finished.output, segment="0" * 16, corpora=[two["corpus"]])


def test_a_folder_without_lineage_is_named(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(LineageError, match=r"has no lineage\.json"):
        lineage(golden / "checkpoint")
    with pytest.raises(LineageError, match="no checkpoint folder"):
        lineage(tmp_path / "nothing")


def test_an_audio_file_is_recognized_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "renamed.wav").write_bytes(b"the bytes of a recording")
    sha256 = hashlib.sha256(b"the bytes of a recording").hexdigest()
    rows = [a_row(1, content_sha256=sha256), a_row(2), a_row(3, content_sha256=sha256, generation=1)]
    write_lineage(tmp_path, a_lineage(), a_table(rows))
    assert lineage(tmp_path, recording=tmp_path / "renamed.wav").recordings == (rows[0], rows[2])


def test_a_table_that_another_run_removes_does_not_stop_a_save(speech: Path, tmp_path: Path) -> None:
    shutil.copytree(speech, tmp_path / "corpus", ignore=shutil.ignore_patterns(FOLDER))
    corpora = Corpora([tmp_path / "corpus"])
    counts = DrawnCounts(corpora.table)
    counts.teach_codec(np.arange(3))
    shutil.rmtree(tmp_path / "corpus" / FOLDER)
    rows = drawn_rows(corpora.table, counts.columns(), ["c"])
    assert sum(rows["in_codec"].to_pylist()) == 3 and None not in rows["content_sha256"].to_pylist()


def test_what_is_not_known_of_a_parent_is_not_known_of_its_children(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    lineage = a_lineage(digest=checkpoint_digest(tmp_path), gaps=("steps 1 to 4 are not known",), unnamed_draws=7)
    write_lineage(tmp_path, lineage, a_table([a_row(0)]))
    brought = ancestor_of("start", str(tmp_path))
    assert brought.ancestors[0].known
    first, second = brought.gaps
    assert first.endswith("steps 1 to 4 are not known") and second.startswith(
        f"of {brought.ancestors[0].name}: 7 samples"
    )
