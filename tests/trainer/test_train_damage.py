"""A damaged clip is left out, named and counted; a damaged shard, or too many clips, are one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from rank_runs import RankProcesses
from safetensors.torch import load_file
from train_runs import Runs, damage, losses

from catalogs.corpus.reader import Corpus
from trainer.checkpoint import state
from trainer.config import TrainError, ValidationSettings
from trainer.data import damage as limits
from trainer.data.candidates import Choice
from trainer.data.corpora import Corpora
from trainer.data.latent_cache import Latents
from trainer.data.mixture import find_candidates, hold_out
from trainer.data.rows import Planner
from trainer.data.samples import SampleMaker, document_noise, make_all
from trainer.encode_corpus import encode_corpus
from trainer.model.build import build
from trainer.run import train
from voxcpm.sequence.training_rows import pack_rows


@pytest.fixture
def spoilt(runs: Runs, tmp_path: Path) -> tuple[Runs, str]:
    """The corpus with one damaged clip, and that clip's id."""
    corpus = tmp_path / "corpus"
    shutil.copytree(runs.corpus, corpus)
    segment = sorted(Corpus(corpus).kept().column("segment_id").to_pylist())[5]
    damage(corpus, segment)
    return Runs(corpus, runs.start, tmp_path / "cache"), segment


def test_a_damaged_clip_is_left_out_and_a_resumed_run_is_the_unbroken_one(
    spoilt: tuple[Runs, str], tmp_path: Path
) -> None:
    runs, segment = spoilt
    said: list[str] = []
    result = logged(said.append, train, runs.config(tmp_path / "whole"))
    assert result.steps == 8 and result.bad_steps == 0
    assert list(result.unreadable) == [segment]
    assert "cannot be read" in result.unreadable[segment] and "voxmill fsck" in result.unreadable[segment]
    assert sum(f"left out: the shard of segment {segment}" in line for line in said) == 2, "when found, and at the end"
    entries = [json.loads(line) for line in (tmp_path / "whole" / "skipped.jsonl").read_text().splitlines()]
    assert [entry["segments"] for entry in entries] == [[segment]]
    assert set(losses(tmp_path / "whole")) == set(range(1, 9))

    train(runs.config(tmp_path / "broken", steps=4))
    again = logged(said.append, train, runs.config(tmp_path / "broken"))
    assert again.unreadable == result.unreadable and again.layouts == result.layouts
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_the_rest_of_its_row_is_learnt_as_before(runs: Runs, spoilt: tuple[Runs, str], tmp_path: Path) -> None:
    """The other documents keep noise and audio: their errors are those beside the whole clip."""
    settings, segment = runs.config(tmp_path / "out"), spoilt[1]
    trainee = build(settings, Corpora(settings.corpora), None)
    errors = []
    for corpus in (runs.corpus, spoilt[0].corpus):
        corpora = Corpora([corpus])
        candidates = find_candidates(corpora, "true", 60.0, "only")
        clip = next(c for c in candidates if c.segment_id == segment)
        row = [candidates[0], clip, candidates[1]]
        assert len({c.segment_id for c in row}) == 3
        planner = Planner(trainee.tokenizer, trainee.config)
        planned = [planner.plan(Choice(n, candidate, "basic", None, n)) for n, candidate in enumerate(row)]
        maker = SampleMaker(corpora, Latents(corpora, trainee.codec, trainee.config), trainee.config)
        samples, unreadable = make_all(maker, [planned], trainee.config)
        batch = pack_rows(samples)
        noise = document_noise(trainee.config, batch, {(0, n): 7 + n for n in range(3)})
        with torch.no_grad():
            found = trainee.model.training_losses(batch, noise).diffusion_per_position
        assert batch.document_ids is not None
        documents = batch.document_ids[batch.loss_mask]
        errors.append([found[documents == n] for n in range(3)])
    assert list(unreadable) == [segment] and not len(errors[1][1]) and len(errors[0][1])
    for document in (0, 2):
        torch.testing.assert_close(errors[1][document], errors[0][document], rtol=1e-4, atol=1e-4)


@pytest.mark.kill
def test_two_ranks_leave_out_the_same(spoilt: tuple[Runs, str], tmp_path: Path) -> None:
    runs, segment = spoilt
    phase = {"rows": 1, "accumulate": 2, "steps": 6}
    alone = train(runs.config(tmp_path / "alone", phase, parallel="auto"))
    two = RankProcesses(runs.config(tmp_path / "two", phase, parallel="fsdp"), tmp_path)
    try:
        assert two.finish() == [0, 0], two.said()
    finally:
        two.kill()
    assert two.said().count(f"left out: the shard of segment {segment}") == 2 and list(alone.unreadable) == [segment]
    mine, theirs = losses(tmp_path / "two"), losses(tmp_path / "alone")
    for step, values in theirs.items():
        assert mine[step] == pytest.approx(values, rel=1e-4), step


def test_held_out_clips_may_be_damaged_too(runs: Runs, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(runs.corpus, corpus)
    validation = {"every": 2, "share": 0.3, "speak": 2}
    said: list[str] = []
    whole = logged(said.append, train, runs.config(tmp_path / "whole", {"steps": 2}, validation=validation))
    held = next(int(line.split()[2]) for line in said if line.startswith("held out:"))
    found = {"only": find_candidates(Corpora([corpus]), "true", 60.0, "only")}
    segments = hold_out(found, ValidationSettings.model_validate(validation))[1]
    assert len(segments) == held > 1
    damage(corpus, segments[0].segment_id)
    spoilt = Runs(corpus, runs.start, tmp_path / "cache")
    result = train(spoilt.config(tmp_path / "out", {"steps": 2}, validation=validation))
    assert segments[0].segment_id in result.unreadable
    assert result.validation["validation/diffusion"] > 0
    assert result.validation["validation/diffusion"] != whole.validation["validation/diffusion"]


def test_encode_leaves_it_out_and_training_on_stored_latents_too(spoilt: tuple[Runs, str], tmp_path: Path) -> None:
    runs, segment = spoilt
    said: list[str] = []
    stats = logged(said.append, encode_corpus, runs.corpus, runs.start, "cpu")
    assert list(stats.unreadable) == [segment] and stats.encoded == 15
    assert any(line.startswith(f"left out: the shard of segment {segment}") for line in said)
    assert encode_corpus(runs.corpus, runs.start, "cpu").already == 15
    result = train(runs.config(tmp_path / "out", latent_cache=None))
    assert list(result.unreadable) == [segment]


def test_more_than_a_few_end_the_run_with_one_line(
    spoilt: tuple[Runs, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, segment = spoilt
    ids = Corpus(runs.corpus).kept().column("segment_id").to_pylist()
    for other in ids:
        if other != segment:
            damage(runs.corpus, other)
    monkeypatch.setattr(state, "IN_A_ROW", 12)
    with pytest.raises(TrainError, match=r"^1[2-9] samples in a row cannot be read .*voxmill fsck") as refused:
        train(runs.config(tmp_path / "out"))
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(limits, "ALWAYS", 2)
    with pytest.raises(TrainError, match=r"^[3-9]\d? of 16 segments cannot be read"):
        train(runs.config(tmp_path / "again"))


def test_steps_of_which_nothing_can_be_read_leave_the_weights_alone(spoilt: tuple[Runs, str], tmp_path: Path) -> None:
    runs, segment = spoilt
    for other in Corpus(runs.corpus).kept().column("segment_id").to_pylist():
        if other != segment:
            damage(runs.corpus, other)
    result = train(runs.config(tmp_path / "out", {"steps": 1}))
    assert result.steps == 1 and result.bad_steps == 0 and not result.layouts
    ours, theirs = (load_file(Path(folder) / "model.safetensors") for folder in (result.checkpoint, runs.start))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("kept_bytes", [2000, -7])
def test_a_truncated_shard_is_one_line_before_anything_is_spent(runs: Runs, tmp_path: Path, kept_bytes: int) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(runs.corpus, corpus)
    shard = sorted((corpus / "segments").rglob("*.arrow"))[0]
    shard.write_bytes(shard.read_bytes()[:kept_bytes])
    config: Any = Runs(corpus, runs.start, runs.cache).config(tmp_path / "out")
    with pytest.raises(TrainError, match=rf"shard .*{shard.name} has \d+ bytes of \d+; run: voxmill fsck") as refused:
        train(config)
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()
