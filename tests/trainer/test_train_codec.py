"""The codec's short recipe: it learns to reconstruct clips it was not trained on, and models take it up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from train_runs import Runs

from catalogs.settings import SettingsError
from trainer.codec import CodecConfig, load_codec_config, train_codec
from trainer.codec.files import read_codec
from trainer.codec.fit import CodecFit, crops, fit_codec
from trainer.codec.initialise import initialise_codec
from trainer.codec.losses import RESOLUTIONS, mel_bank, mel_distance
from trainer.config import TrainError, recipes
from trainer.loop import train
from trainer.metrics import read_metrics
from voxcpm.audiovae import AudioVAE, AudioVAEConfig

TINY = {"encoder_dim": 4, "decoder_dim": 64}


def settings(corpus: Path, output: Path, **changes: object) -> CodecConfig:
    values = {"corpus": str(corpus), "output": str(output), "config": TINY, "steps": 40, "threads": 1, "device": "cpu"}
    return CodecConfig.model_validate(values | {"crop_s": 0.48} | changes)


@pytest.fixture(scope="module")
def trained(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("codec") / "out"
    result = train_codec(settings(speech, output), lambda _: None)
    assert result.mel_after < 0.9 * result.mel_before, "clips that were not trained on come back no better"
    # The mean spectrum alone would fit every clip equally well.
    assert result.mel_after < 0.75 * result.mel_other, "the latents carry nothing"
    assert result.last_loss < result.first_loss
    return output


def test_everything_is_written_down(trained: Path) -> None:
    assert [row["step"] for row in read_metrics(trained)] == list(range(1, 41))
    assert (trained / "train-codec.yaml").is_file()
    codec = read_codec(trained)
    assert codec.config.encoder_dim == 4 and not codec.training
    assert not any(p.requires_grad for p in codec.parameters())


def test_a_model_is_trained_on_its_latents(trained: Path, runs: Runs, tmp_path: Path) -> None:
    model = {"size": "toy", "vocabulary": 400, "codec": str(trained)}
    result = train(runs.config(tmp_path / "out", {"steps": 1, "rows": 1}, model=model), lambda _: None)
    ours, theirs = read_codec(result.checkpoint).state_dict(), read_codec(trained).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_training_goes_on_from_another_codec(trained: Path, speech: Path, tmp_path: Path) -> None:
    more = settings(speech, tmp_path / "out", start=str(trained), config=None, steps=1)
    result = train_codec(more, lambda _: None)
    first = train_codec(settings(speech, tmp_path / "anew", steps=1), lambda _: None)
    assert result.first_loss < 0.7 * first.first_loss


def test_a_folder_without_a_codec_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainError, match="holds no codec"):
        read_codec(tmp_path / "empty")


def test_the_same_seed_gives_the_same_codec(speech: Path, tmp_path: Path) -> None:
    runs = [train_codec(settings(speech, tmp_path / name, steps=2), lambda _: None) for name in "ab"]
    assert runs[0].last_loss == runs[1].last_loss
    assert (tmp_path / "a" / "audiovae.safetensors").read_bytes() == (
        tmp_path / "b" / "audiovae.safetensors"
    ).read_bytes()


def test_a_rate_too_high_ends_in_one_line() -> None:
    codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64))
    clip = np.full(16_000, np.nan, dtype=np.float32)
    with pytest.raises(TrainError, match="no number at step 1"):
        fit_codec(codec, [clip], CodecFit(steps=3, crop_s=0.2), 1, lambda _: None)


def test_a_fresh_codec_starts_at_unit_scale(corpora: Path) -> None:
    """On real speech, through all layers: latents of variance 1, an output as loud as the clip, nothing lost on the way."""
    path = next(iter(sorted((corpora / "emodb").rglob("*.flac"))))
    samples = soundfile.read(path, dtype="float32")[0][:30_720]
    wav = torch.from_numpy(samples)[None]
    codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64))
    initialise_codec(codec, wav)
    with torch.no_grad():
        mu, logvar = codec.encode_heads(wav[:, None])
        out, other = codec.decode(mu), codec.decode(mu.roll(7, dims=2))
    assert float(mu.std()) == pytest.approx(1.0, abs=0.05) and abs(float(mu.mean())) < 0.05
    assert float((0.5 * logvar).exp().mean()) == pytest.approx(0.1, rel=0.2)
    assert float(out.std()) == pytest.approx(float(wav.std()), rel=0.1)
    assert float((out - other).std()) > 0.5 * float(out.std()), "other latents must sound different"


def test_crops_line_up_at_both_rates() -> None:
    """A tone of 1 kHz is one at 16 and at 48 kHz, from the same instant on."""
    codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64))
    times = np.arange(48_000) / 16_000
    clip = (0.5 * np.sin(2 * np.pi * 1000 * times)).astype(np.float32)
    wav, target = crops(codec, [clip], CodecFit(batch=3, crop_s=0.96), np.random.default_rng(1))
    assert wav.shape == (3, 15_360) and target.shape == (3, 46_080)
    # Every third sample at 48 kHz is one at 16 kHz; the ends ring.
    assert (target[:, ::3] - wav)[:, 400:-400].abs().max() < 1e-3


def test_a_clip_shorter_than_a_crop_is_padded() -> None:
    codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64))
    wav, target = crops(codec, [np.ones(1000, dtype=np.float32)], CodecFit(batch=1), np.random.default_rng(1))
    assert wav.shape == (1, 15_360) and target.shape == (1, 46_080) and wav[0, 1000:].abs().max() == 0


@pytest.mark.parametrize("db", [6.0, -20.0])
def test_the_mel_distance_of_a_change_in_level_is_the_change(db: float) -> None:
    noise = torch.randn(2, 48_000, generator=torch.Generator().manual_seed(1))
    louder = noise * 10 ** (db / 20)
    assert float(mel_distance(noise, louder, 48_000)) == pytest.approx(abs(db) / 20, rel=1e-3)
    assert float(mel_distance(noise, noise, 48_000)) == 0.0


@pytest.mark.parametrize(("window", "bands"), RESOLUTIONS)
def test_every_band_hears_something_and_they_rise(window: int, bands: int) -> None:
    bank = mel_bank(window, bands, 48_000)
    assert bank.shape == (bands, window // 2 + 1)
    torch.testing.assert_close(bank.sum(dim=1), torch.ones(bands))
    centres = (bank * torch.arange(window // 2 + 1)).sum(dim=1)
    assert bool((centres.diff() > 0).all())


def test_silence_has_a_gradient() -> None:
    silent = torch.zeros(1, 4096, requires_grad=True)
    mel_distance(silent, torch.randn(1, 4096), 48_000).backward()
    assert silent.grad is not None and bool(torch.isfinite(silent.grad).all())


def test_recipes_are_valid_and_a_misspelt_key_is_named() -> None:
    for name in recipes("trainer.codec"):
        load_codec_config(name)
    with pytest.raises(SettingsError, match="unknown setting stps; did you mean steps"):
        load_codec_config("toy", ["stps=3"])
