"""What is on the disk: nothing of a user's is touched, and `latest` never points at nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes.kills import Killed, killed_at
from fakes.logs import logged
from lineages import a_lineage, a_row, a_table
from rank_runs import RankProcesses
from safetensors.torch import load_file
from train_runs import Runs

from catalogs.lineage.files import read_lineage, read_table, write_lineage
from catalogs.weights.checkpoint_files import checkpoint_digest
from trainer.checkpoint.restore import latest
from trainer.checkpoint.save import _Checkpoint, only_run
from trainer.config import load_train_config
from trainer.result import Progress
from trainer.run import train
from voxcpm.config import VoxCPM2Config
from voxcpm.presets import published_dict
from voxcpm.weights import atomic
from voxcpm.weights.checkpoint import save_pretrained
from voxcpm.weights.lora import LoRAConfig


def test_files_with_names_of_their_own_are_left_alone(runs: Runs, tmp_path: Path) -> None:
    """Copies that somebody keeps beside the run's own: not read, not counted, not removed."""
    output = tmp_path / "out"
    config = runs.config(output, {"steps": 3}, save_every=1, keep=1)
    train(runs.config(output, {"steps": 3}, save_every=1, keep=1, steps=1))
    mine = [
        output / "resume" / "step_0000001.pt.bak",
        output / "resume" / "step_best",
        output / "resume" / "step_0000000 old.pt",
    ]
    mine += [output / "checkpoints" / name for name in ("step_0000001_good", "step_mine")]
    for path in mine:
        if path.suffix in (".bak", ".pt"):
            path.write_bytes(b"mine")
        else:
            path.mkdir()
            (path / "note").write_text("mine", encoding="utf-8")
    assert train(config).steps == 3
    assert all(path.exists() for path in mine)
    assert (output / "latest").resolve().name == "step_0000003" and not (output / "resume" / "step_0000001.pt").exists()


def adapter(value: float) -> _Checkpoint:
    """A checkpoint of step 3 of a run of adapters, all of this value, with a lineage."""
    trainee: Any = SimpleNamespace(lora=LoRAConfig(r=2), start="base")
    tensors = {"base_lm.layers.0.self_attn.q_proj.lora_A": torch.full((2, 4), value)}
    snapshot: Any = SimpleNamespace(
        write=lambda folder: write_lineage(folder, a_lineage(digest=checkpoint_digest(folder)), a_table([a_row(1)]))
    )
    return _Checkpoint({"state": {"step": 3}}, tensors, trainee, snapshot)


def published(output: Path) -> float:
    """The value of the adapter that `latest` points at."""
    (tensor,) = load_file(output / "latest" / "lora_weights.safetensors").values()
    lineage = read_lineage(output / "latest")
    assert lineage is not None and lineage.digest == checkpoint_digest(output / "latest"), "its own, or none at all"
    assert len(read_table(lineage)) == 1
    return float(tensor[0, 0])


@pytest.mark.kill
def test_a_kill_while_a_checkpoint_is_replaced_loses_no_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`latest` leads to the old adapter or to the new one, with its own lineage, at each of the points, before and after the next
    start."""
    point, seen = 0, set()
    while True:
        output = tmp_path / str(point)
        adapter(1.0).write(output, 2)
        with killed_at(point, monkeypatch) as done:
            try:
                adapter(2.0).write(output, 2)
                ended = True
            except Killed:
                ended = False
        assert (output / "latest" / "lora_config.json").is_file(), done
        seen.add(published(output))
        with only_run(output):
            assert published(output) in (1.0, 2.0), done
            adapter(3.0).write(output, 2)
        assert published(output) == 3.0
        assert [path.name for path in (output / "checkpoints").iterdir()] == ["step_0000003"], done
        if ended:
            break
        point += 1
    assert seen == {1.0, 2.0} and point > 8, point


@pytest.mark.kill
@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_while_the_merged_model_is_replaced_loses_neither(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start finds the old or the new one at its name, also on a system that cannot exchange two folders."""
    if not can_exchange:
        monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    point, seen, ended = 0, set(), False
    while not ended:
        merged = tmp_path / str(point) / "merged"
        save_value(merged, 1.0)
        with killed_at(point, monkeypatch) as done:
            try:
                save_value(merged, 2.0)
                ended = True
            except Killed:
                pass
        assert not can_exchange or saved_value(merged) in (1.0, 2.0), done
        with only_run(merged.parent):
            seen.add(saved_value(merged))
            assert {path.name for path in merged.parent.iterdir()} == {"merged", ".lock"}, done
        point += 1
    assert seen == {1.0, 2.0} and "exchange" in done


def save_value(folder: Path, value: float) -> None:
    """A checkpoint folder with one number."""
    save_pretrained(folder, {"x": torch.tensor([value])}, VoxCPM2Config.from_dict(published_dict()))


def saved_value(folder: Path) -> float:
    """The number of `save_value`."""
    return float(load_file(folder / "model.safetensors")["x"])


def fail_after_four(config: Path) -> None:
    """Train; the first rank fails after four steps."""

    def after(progress: Progress) -> None:
        if progress.step == 4:
            raise RuntimeError("on purpose")

    train(load_train_config(config), after)


@pytest.mark.kill
def test_an_exception_does_not_drop_the_shards_that_are_being_written(runs: Runs, tmp_path: Path) -> None:
    """The first rank fails alone, a step after the save; the next run resumes from there."""
    rows = {"rows": 1, "accumulate": 2}
    ranks = RankProcesses(
        runs.config(tmp_path / "out", rows, parallel="fsdp", async_save=True), tmp_path, call=fail_after_four
    )
    try:
        assert 0 not in ranks.finish()
    finally:
        ranks.kill()
    said = [ranks.said(rank) for rank in range(2)]
    assert "on purpose" in said[0], said
    saved = latest(tmp_path / "out")
    assert saved is not None and saved.step == 3, said
    told: list[str] = []
    assert logged(told.append, train, runs.config(tmp_path / "out", rows)).steps == 8
    assert any(line.startswith("resuming from") and "step 3 of 8" in line for line in told)
