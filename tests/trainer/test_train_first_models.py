"""Fine-tuning of VoxCPM 0.5B and VoxCPM1.5 through the trainer: codec rates of 16 and 44.1 kHz, no reference clips."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_runs import Runs, losses

from catalogs.corpus.latents import stored_codecs
from trainer.config import TrainError
from trainer.data.clip_encoder import ClipEncoder, codec_digest
from trainer.data.corpora import Corpora
from trainer.encode_corpus import encode_corpus
from trainer.run import train
from voxcpm import VoxCPM
from voxcpm.config import VoxCPM2Config
from voxcpm.weights.checkpoint import load_codec
from voxcpm.weights.lora import read_lora

GOLDEN = Path(__file__).parents[1] / "voxcpm" / "golden_v1"
NONE = {"reference": 0, "controllable": 0, "reference_continuation": 0}


@pytest.fixture(params=["voxcpm-0.5b", "voxcpm1.5"])
def start(request: pytest.FixtureRequest) -> Path:
    return GOLDEN / str(request.param) / "checkpoint"


@pytest.fixture
def first(runs: Runs, start: Path, tmp_path: Path) -> Runs:
    """Settings of runs from that checkpoint."""
    return replace(runs, start=start, cache=tmp_path / "latents")


def phase(start: Path, **changes: Any) -> dict[str, Any]:
    """Two steps of text-only and continuation samples of at most 5 s; patches of 0.5B are half as long."""
    room = 256 if start.parent.name == "voxcpm-0.5b" else 160
    return {"steps": 2, "rows": 1, "max_positions": room, "max_seconds": 8, "layouts": NONE, **changes}


def test_a_few_steps_give_a_checkpoint_that_speaks(first: Runs, start: Path, tmp_path: Path) -> None:
    settings = {"validation": {"every": 2, "segments": 2, "speak": 2}, "save_every": 2}
    train(first.config(tmp_path / "run", phase(start), **settings))
    assert all(isfinite(value) for step in losses(tmp_path / "run").values() for value in step)
    latest, before = tmp_path / "run" / "latest", VoxCPM2Config.load(start)
    assert VoxCPM2Config.load(latest) == before and before.architecture == "voxcpm"
    tensors = load_file(latest / "model.safetensors")
    assert any(not torch.equal(x, load_file(start / "model.safetensors")[name].float()) for name, x in tensors.items())
    voice = VoxCPM.from_pretrained(latest, load_denoiser=False)
    wav = voice.generate("Hello.", max_len=3, inference_timesteps=2, seed=1)
    assert np.isfinite(wav).all() and voice.tts_model.sample_rate == before.sample_rate


def test_adapters(first: Runs, start: Path, tmp_path: Path) -> None:
    lora = {"enable_lm": True, "enable_dit": True, "enable_proj": True, "r": 2}
    train(first.config(tmp_path / "run", phase(start), model={"start": str(start), "lora": lora}))
    config, tensors = read_lora(tmp_path / "run" / "latest")
    assert config is not None and config.r == 2
    assert any(x.any() for name, x in tensors.items() if name.endswith("lora_B"))
    voice = VoxCPM.from_pretrained(start, load_denoiser=False, lora_weights_path=tmp_path / "run" / "latest")
    assert voice.lora_enabled


def test_layouts_with_references_are_refused(first: Runs, start: Path, tmp_path: Path) -> None:
    config = first.config(tmp_path / "run", phase(start, layouts={"continuation": 1}))
    with pytest.raises(
        TrainError, match=r"takes no reference clip: --set phases\.only\.layouts\.reference=0 --set"
    ) as raised:
        train(config)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_stored_latents_are_those_of_clips_at_the_codecs_rate(start: Path, speech: Path, tmp_path: Path) -> None:
    from shutil import copytree

    corpus = tmp_path / "corpus"
    copytree(speech, corpus)
    stats = encode_corpus(corpus, start)
    codec, config = load_codec(start), VoxCPM2Config.load(start)
    assert stats.encoded and not stats.unreadable
    assert codec_digest(codec) in stored_codecs(corpus)
    corpora = Corpora([corpus])
    segment, row = next(iter(corpora.kept().items()))
    clip = corpora.clip(segment, rate=config.sample_rate)
    assert len(clip) == pytest.approx(row["duration_s"] * config.sample_rate, abs=config.sample_rate * 0.005)
    patches = -(-len(clip) // config.patch_samples)
    encoder = ClipEncoder(codec, config.patch_size)
    assert encoder.sample_rate == config.sample_rate and encoder(clip, patches).shape == (
        patches,
        config.patch_size,
        16,
    )
