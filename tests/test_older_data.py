"""Corpora, checkpoints, runs and voices that an older voxmill wrote: the present code opens, resumes and trains them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fakes.logs import logged

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.query.views import query
from catalogs.weights.registry import profile, resolve
from catalogs.weights.verify import WeightsMissing
from trainer import TrainConfig, load_train_config, train

MADE = Path(__file__).parent / "fixtures" / "made_by_fae81e6"
SEGMENTS = {"5f224d54180abee7", "653191e67b155f2c", "6e4ed39367286de3", "68e6dbeac2e6324c", "04f6f75c393c771c"}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything, in the current folder, as a user would have it."""
    folder = tmp_path / "old"
    shutil.copytree(MADE, folder, symlinks=True)
    # Git keeps no empty folders.
    (folder / "corpus" / "tmp").mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


def steps_of(output: Path) -> list[int]:
    """The steps in a run's metrics, in the order in which they were written."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["step"] for row in rows if "loss/diffusion" in row]


def resumed(name: str, *overrides: str) -> tuple[TrainConfig, list[str]]:
    """The settings that a run was started with, changed by `overrides`, and what training with them says."""
    lines: list[str] = []
    config = load_train_config(f"{name}/train.yaml", list(overrides))
    logged(lines.append, train, config)
    return config, lines


def test_an_old_corpus_opens_and_is_whole(old: Path) -> None:
    corpus = Corpus("corpus")
    assert {row["segment_id"] for row in corpus.kept().to_pylist()} == SEGMENTS
    samples, rate = corpus.read_audio("68e6dbeac2e6324c")
    assert rate == 16_000 and abs(samples).max() > 0.05
    _, rows = query("corpus", "select stage, error from quarantine")
    assert rows == [("decode", "plain text, not audio")]
    _, rows = query("corpus", "select count(*) from descriptions join segments using (segment_id)")
    assert rows == [(5,)]
    assert [problem for problem in fsck("corpus") if problem.severity != "notice"] == []


def test_prepare_goes_on_with_an_old_corpus(old: Path) -> None:
    """The same command takes nothing again, and one recording more is one recording more."""
    from pipeline.config import load_config
    from pipeline.prepare import prepare
    from voxmill.progress import PrepareProgress
    from voxmill.terminal import Terminal

    try:
        for name in profile("small"):
            resolve(name)
    except WeightsMissing as error:
        pytest.skip(str(error))
    config = load_config(None, ["engine.executor=inline", "name=old", "unit_s=12"])

    def run() -> tuple[int, int]:
        with PrepareProgress(Terminal()) as progress:
            summary = prepare(["recordings"], "corpus", config, watch=progress)
        return summary.sources, summary.sessions

    assert run() == (3, 0)
    shutil.copy("recordings/lj.flac", "recordings/more.flac")
    assert run() == (4, 1)
    found = {row["segment_id"] for row in Corpus("corpus").index.to_pylist()}
    assert found > SEGMENTS and len(found) == 7


def test_an_old_run_resumes(old: Path) -> None:
    config, lines = resumed("run", "steps=6")
    assert steps_of(old / "run") == [1, 2, 3, 4, 5, 6], lines
    assert (old / config.output / "latest" / "model.safetensors").is_file()


def test_an_old_adapter_run_resumes(old: Path) -> None:
    _, lines = resumed("adapter", "steps=4")
    assert steps_of(old / "adapter") == [1, 2, 3, 4], lines
    assert (old / "adapter" / "latest" / "lora_weights.safetensors").is_file()


def test_an_old_checkpoint_and_voice_speak(old: Path) -> None:
    from voxcpm import VoxCPM
    from voxcpm.inference.prompt_cache import load_prompt_cache

    voice = VoxCPM.from_pretrained("run/latest", load_denoiser=False, device="cpu")
    kept = load_prompt_cache("voice.safetensors")
    wav = voice.generate_with_prompt_cache("Good morning.", kept, seed=1, max_len=4, retry_badcase=False)
    assert len(wav) > 0
