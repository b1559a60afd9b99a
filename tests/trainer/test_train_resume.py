"""Killed, stopped or changed: what a second call of the same run does."""

from __future__ import annotations

import json
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from fakes.processes import PATIENCE_S
from forked import Forked
from safetensors.torch import load_file
from speech_corpus import chosen_clips, commit_speaker
from train_runs import Runs, losses, start_process

from trainer.checkpoint import save
from trainer.checkpoint.restore import latest
from trainer.config import TrainError
from trainer.result import Progress
from trainer.run import train
from voxcpm.weights.checkpoint import save_pretrained

STEPS = 29
PHASE = {"steps": STEPS}


@pytest.fixture(scope="module")
def unbroken(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unbroken") / "out"
    train(runs.config(output, PHASE, save_every=9))
    return output


def wait_for_step(process: Forked, output: Path, step: int) -> None:
    """Until the process has written that step (it must not have ended)."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        path = output / "metrics.jsonl"
        if path.is_file() and path.read_text(encoding="utf-8").count("loss/diffusion") >= step:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not reached")


@pytest.fixture
def killed() -> Iterator[list[Forked]]:
    """Processes that must not outlive the test."""
    started: list[Forked] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def assert_equal_runs(output: Path, unbroken: Path) -> None:
    """Every loss of every step, and the last weights, to the bit."""
    assert losses(output) == losses(unbroken)
    ours, theirs = (load_file(folder / "latest" / "model.safetensors") for folder in (output, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_resumed_run_may_outlive_the_checkpoint_it_went_on_from(runs: Runs, tmp_path: Path) -> None:
    """The tokenizer comes from there, and the folder is removed as one of the oldest: later ones must have it all the same."""
    for steps in (2, 4, 5):
        config = runs.config(tmp_path / "out", PHASE, steps=steps, save_every=1, keep=1)
        assert train(config).steps == steps
        kept = [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()]
        assert len(kept) == 1 and (tmp_path / "out" / "latest" / "tokenizer.json").is_file(), steps


@pytest.mark.kill
@pytest.mark.parametrize("async_save", [False, True])
def test_killed_at_any_step_the_next_twenty_are_as_if_nothing_had_been(
    runs: Runs,
    unbroken: Path,
    tmp_path: Path,
    killed: list[Forked],
    async_save: bool,
    dice: random.Random,
) -> None:
    step = dice.randrange(4, 7)
    config = runs.config(tmp_path / "out", PHASE, async_save=async_save)
    process = start_process(config, tmp_path)
    killed.append(process)
    wait_for_step(process, tmp_path / "out", step)
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL, f"killed at step {step}"
    saved = latest(tmp_path / "out")
    assert (0 if saved is None else saved.step) <= STEPS - 20
    said: list[str] = []
    result = logged(said.append, train, runs.config(tmp_path / "out", PHASE, async_save=async_save, save_every=9))
    # What is written in the background may not have been there yet.
    assert async_save or any(line.startswith("resuming from") for line in said), f"killed at step {step}: {said}"
    assert result.steps == STEPS
    assert_equal_runs(tmp_path / "out", unbroken)


@pytest.mark.kill
def test_asked_to_stop_it_saves_ends_well_and_goes_on(
    runs: Runs, unbroken: Path, tmp_path: Path, killed: list[Forked]
) -> None:
    config = runs.config(tmp_path / "out", PHASE, save_every=1000)
    process = start_process(config, tmp_path)
    killed.append(process)
    wait_for_step(process, tmp_path / "out", 5)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, told
    assert "asked to stop" in told
    (folder,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert len(losses(tmp_path / "out")) == int(folder.name.removeprefix("step_")) < STEPS
    assert train(config).steps == STEPS
    assert_equal_runs(tmp_path / "out", unbroken)


def test_a_finished_run_does_nothing_more(runs: Runs, unbroken: Path) -> None:
    before = losses(unbroken)
    result = train(runs.config(unbroken, PHASE))
    assert result.steps == STEPS and result.last_loss == pytest.approx(sum(before[STEPS][:2]))
    assert losses(unbroken) == before


def test_a_longer_run_goes_on_where_the_shorter_one_ended(runs: Runs, unbroken: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    constant = {"schedule": "constant", "warmup": 0}
    train(runs.config(output, {"steps": 2} | constant))
    short = losses(output)
    train(runs.config(output, {"steps": 4} | constant))
    longer = losses(output)
    assert sorted(longer) == [1, 2, 3, 4] and {step: longer[step] for step in short} == short


@pytest.fixture
def copied(runs: Runs, unbroken: Path, tmp_path: Path) -> Path:
    """The unbroken run, to be spoilt."""
    shutil.copytree(unbroken, tmp_path / "out", symlinks=True)
    return tmp_path / "out"


@pytest.mark.parametrize(
    "changes", [{"seed": 2}, {"phase": {"max_positions": 192}}, {"phase": {"where": "language = 'en'"}}]
)
def test_other_settings_of_the_data_are_refused(runs: Runs, copied: Path, changes: dict[str, Any]) -> None:
    phase = PHASE | changes.get("phase", {})
    others = {name: value for name, value in changes.items() if name != "phase"}
    with pytest.raises(TrainError, match=r"other data or with other phases.*another output.*model\.start=") as refused:
        train(runs.config(copied, phase, **others))
    assert "\n" not in str(refused.value)


def test_a_corpus_that_has_grown_is_refused(runs: Runs, copied: Path, corpora: Path, tmp_path: Path) -> None:
    grown = tmp_path / "corpus"
    shutil.copytree(runs.corpus, grown)
    name, entries = list(chosen_clips(corpora, 4, 3).items())[2]
    commit_speaker(grown, corpora, name, entries)
    with pytest.raises(TrainError, match="other data or with other phases"):
        train(Runs(grown, runs.start, runs.cache).config(copied, PHASE))


def test_a_description_that_has_changed_is_refused(runs: Runs, copied: Path, tmp_path: Path) -> None:
    """It is in the text that is learned: the order would be another run's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    changed = tmp_path / "corpus"
    shutil.copytree(runs.corpus, changed)
    path = next((changed / "annotations").rglob("*.parquet"))
    table = pq.read_table(path)
    words = pa.array(["A shrill voice."] * len(table))
    pq.write_table(table.set_column(table.schema.get_field_index("full"), "full", words), path)
    with pytest.raises(TrainError, match="other data or with other phases"):
        train(Runs(changed, runs.start, runs.cache).config(copied, PHASE))


def test_a_kill_between_the_two_halves_of_a_checkpoint_leaves_the_pair_before(
    runs: Runs, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    honest, saves = save_pretrained, iter(range(100))

    def killed_at_the_third(*arguments: Any, **named: Any) -> Path:
        if next(saves) == 2:
            raise Killed
        return honest(*arguments, **named)

    output = tmp_path / "out"
    monkeypatch.setattr(save, "save_pretrained", killed_at_the_third)
    with pytest.raises(Killed):
        train(runs.config(output, PHASE))
    monkeypatch.undo()
    assert (output / "resume" / "step_0000009.pt").is_file()
    saved = latest(output)
    assert saved is not None and saved.folder == output / "checkpoints" / "step_0000006"
    assert (output / "latest").resolve() == (output / "checkpoints" / "step_0000006").resolve()
    assert train(runs.config(output, PHASE, save_every=9)).steps == STEPS
    assert_equal_runs(output, unbroken)


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_a_checkpoint_written_meanwhile_is_of_the_step_it_was_begun_at(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, int] | None
) -> None:
    """With the writing held up for some steps, files are those of a run that waits for them."""
    honest, writers, may_write = save._save_resume, [], threading.Event()

    def held_up(*arguments: Any) -> None:
        writers.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert may_write.wait(PATIENCE_S)
        honest(*arguments)

    def after_step(progress: Progress) -> None:
        if progress.step == 6:
            may_write.set()

    monkeypatch.setattr(save, "_save_resume", held_up)
    model = {"start": str(runs.start), "lora": lora}
    common: dict[str, Any] = {"model": model, "optim": {"ema": 0.9}, "save_every": 4, "log_every": 1, "keep": 5}
    for name, background in (("waits", False), ("meanwhile", True)):
        may_write.clear()
        train(runs.config(tmp_path / name, async_save=background, **common), after_step)
    # The last one is waited for in any case.
    assert [writer is threading.main_thread() for writer in writers] == [True, True, False, False]
    for step in (4, 8):
        states = [
            torch.load(tmp_path / name / "resume" / f"step_{step:07d}.pt", weights_only=True)
            for name in ("waits", "meanwhile")
        ]
        assert states[0].pop("state") == states[1].pop("state")
        torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
        files = [
            {path.name: path.read_bytes() for path in (tmp_path / name / "checkpoints" / f"step_{step:07d}").iterdir()}
            for name in ("waits", "meanwhile")
        ]
        assert files[0] == files[1]


def test_what_fails_in_the_background_ends_the_run(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        train(runs.config(tmp_path / "out", async_save=True))
    monkeypatch.undo()
    assert latest(tmp_path / "out") is None
    assert train(runs.config(tmp_path / "out", async_save=True)).steps == 8


def test_the_oldest_checkpoints_go_and_latest_is_never_one_of_them(runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    train(runs.config(output, {"steps": 5}, save_every=1, keep=2))
    names = ["step_0000004", "step_0000005"]
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == names
    assert sorted(path.stem for path in (output / "resume").iterdir()) == names
    assert (output / "latest").resolve().name == names[-1]


def test_latest_holds_when_a_later_checkpoint_cannot_be_resumed(runs: Runs, tmp_path: Path) -> None:
    """Somebody removed resume/: the run starts again, and what it saves must stay, however old its number is."""
    output = tmp_path / "out"
    train(runs.config(output, {"steps": 6}, save_every=6))
    shutil.rmtree(output / "resume")
    train(runs.config(output, {"steps": 2}, save_every=1, keep=1))
    assert (output / "latest" / "model.safetensors").is_file()
    assert (output / "latest").resolve().name == "step_0000002"
    saved = latest(output)
    assert saved is not None and saved.folder == output / "checkpoints" / "step_0000002"
    assert (output / "checkpoints" / "step_0000006" / "model.safetensors").is_file()


def test_a_damaged_resume_state_is_named(runs: Runs, copied: Path) -> None:
    newest = sorted((copied / "resume").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(TrainError, match=rf"{newest.name} cannot be read .*remove .*{newest.stem}"):
        train(runs.config(copied, PHASE))


def test_steps_that_were_lost_are_not_in_the_metrics_twice(runs: Runs, copied: Path, unbroken: Path) -> None:
    """Back to an older checkpoint, with a last line that a kill has cut."""
    newest = sorted((copied / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    with (copied / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(f'{{"step": {STEPS + 1}, "loss/diff')
    train(runs.config(copied, PHASE))
    rows = [json.loads(line) for line in (copied / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert_equal_runs(copied, unbroken)


def test_two_runs_do_not_write_into_one_folder(runs: Runs, tmp_path: Path) -> None:
    with (
        save.only_run(tmp_path / "out"),
        pytest.raises(TrainError, match="another run is training into"),
    ):
        train(runs.config(tmp_path / "out"))
