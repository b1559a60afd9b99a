"""What is to be seen and heard of a run: losses by layout and language, speed, spoken sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.flop_counter import FlopCounterMode
from train_runs import Runs

from trainer.monitor.speech_samples import log_mel
from trainer.run import train
from trainer.runtime.flops import training_flops
from trainer.runtime.metrics import read_metrics
from voxcpm.config import VoxCPM2Config
from voxcpm.kernels.roofline import find_gpu
from voxcpm.model.backbone import VoxCPM2
from voxcpm.presets import config_dict
from voxcpm.sequence.training_batch import TrainingNoise
from voxcpm.sequence.training_rows import lay_out_sample, pack_rows


@pytest.fixture(scope="module")
def output(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "out"
    validation = {"every": 2, "share": 0.3, "speak": 2}
    train(runs.config(folder, {"steps": 4}, validation=validation, optim={"ema": 0.5}))
    return folder


def test_losses_by_layout_and_language_add_up_to_the_loss(output: Path) -> None:
    steps = [row for row in read_metrics(output) if "loss/diffusion" in row]
    assert len(steps) == 4
    for row in steps:
        for kind in ("layout_", "language_"):
            parts = [value for name, value in row.items() if name.startswith(f"loss/{kind}")]
            assert parts and min(parts) - 1e-5 <= row["loss/diffusion"] <= max(parts) + 1e-5
        languages = [name for name in row if name.startswith("loss/language_")]
        assert set(languages) <= {"loss/language_de", "loss/language_en"}
        assert row["speed/tflops"] > 0 and row["speed/positions_per_s"] > 0 and row["data/audio_h"] > 0
        assert "speed/mfu" not in row, "a CPU has no known peak to compare with"


def test_held_out_sentences_can_be_heard(output: Path) -> None:
    for step in (2, 4):
        files = sorted((output / "heard" / f"step_{step:07d}").iterdir())
        assert len(files) == 2
        for path in files:
            audio, rate = soundfile.read(path)
            assert rate == 48_000 and len(audio) >= 7680 and np.isfinite(audio).all()
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = board.EventAccumulator(str(output / "tensorboard")).Reload()
    tags = events.Tags()
    names = {path.stem for path in files}
    assert set(tags["audio"]) == {f"heard/{name}" for name in names}
    assert set(tags["images"]) == {f"mel/{name}" for name in names}
    assert {"loss/diffusion", "optim/grad_norm", "optim/lr", "speed/tflops", "data/audio_h"} <= set(tags["scalars"])


def test_a_mel_shows_a_tone_where_it_is() -> None:
    rate = 48_000
    mel = log_mel(torch.sin(2 * torch.pi * 1000 * torch.arange(rate) / rate), rate)
    assert mel.shape[0] == 80 and float(mel.max()) == pytest.approx(1.0, abs=0.1)
    loudest = mel[:, 10:-10].mean(dim=1).argmax()
    edges = 700 * (10 ** (torch.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), 82) / 2595) - 1)
    assert edges[loudest] <= 1000 <= edges[loudest + 2]
    assert float(log_mel(torch.zeros(100), rate).max()) == 0.0


def test_the_arithmetic_of_a_step_is_what_torch_counts() -> None:
    """Forward and backward; attention's products, a few percent here, are not in the formula."""
    shape = VoxCPM2Config.from_dict(config_dict("small", 512))
    model = VoxCPM2.from_config(shape, torch.Generator().manual_seed(1)).train()
    patches = torch.randn(60, shape.patch_size, shape.feat_dim)
    reference = torch.randn(20, shape.patch_size, shape.feat_dim)
    batch = pack_rows([[lay_out_sample(list(range(110, 160)), patches, reference)]])
    noise = TrainingNoise.draw(tuple(batch.loss_mask.shape), (shape.patch_size, shape.feat_dim))
    with FlopCounterMode(display=False) as counter:
        losses = model.training_losses(batch, noise)
        (losses.diffusion + losses.stop).backward()
    text = batch.loss_mask.numel() - 80
    assert training_flops(shape, text, 80, 60) == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H200", 989e12), ("NVIDIA H20", 148e12),
        ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA GeForce RTX 4090", 165e12), ("NVIDIA GeForce GTX 1080", None),
    ],
)  # fmt: skip
def test_a_gpu_is_known_by_its_drivers_name(name: str, peak: float | None) -> None:
    found = find_gpu(name)
    assert (found[1] if found else None) == peak
