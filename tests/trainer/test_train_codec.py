"""The codec's short recipe: it learns to reconstruct clips it was not trained on, and models take it up."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from drawn_samples import lineage_of
from fakes.logs import logged
from train_runs import Runs

from catalogs.corpus.reader import Corpus
from catalogs.lineage.files import find_recordings
from catalogs.settings import SettingsError
from catalogs.weights.checkpoint_files import checkpoint_digest
from trainer.codec import CodecConfig, load_codec_config, train_codec
from trainer.codec.clips import CodecClip, bandwidths, crops
from trainer.codec.config import AdversarySettings, CodecFit
from trainer.codec.files import read_codec
from trainer.codec.fit import CodecTrainer, fit_codec
from trainer.codec.initialise import initialise_codec
from trainer.codec.losses import RESOLUTIONS, mel_bank, mel_distance, resolutions
from trainer.codec.measure import measure, missing_packages
from trainer.codec.normalise import normalise_latents
from trainer.codec.train import _clips
from trainer.config import TrainError, recipes
from trainer.data.corpora import Corpora
from trainer.run import train
from trainer.runtime.metrics import read_metrics
from voxcpm.audiovae import AudioVAE, AudioVAEConfig

TINY = {"encoder_dim": 4, "decoder_dim": 64}
STEPS = 26


def settings(corpus: Path, output: Path, **changes: object) -> CodecConfig:
    values = {
        "corpus": str(corpus),
        "output": str(output),
        "config": TINY,
        "steps": STEPS,
        "threads": 1,
        "device": "cpu",
    }
    return CodecConfig.model_validate(values | {"crop_s": 0.48} | changes)


@pytest.fixture
def spectra_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clip is decoded for STOI and PESQ: `trained` measures them, and their test."""
    monkeypatch.setattr("trainer.codec.measure._HEARD", 0)


@pytest.fixture(scope="module")
def trained(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("codec") / "out"
    result = train_codec(settings(speech, output, measure_every=STEPS // 2))
    assert result.after.mel < 0.9 * result.before.mel, "clips that were not trained on come back no better"
    # The mean spectrum alone would fit every clip equally well.
    assert result.after.mel < 0.75 * result.after.mel_other, "the latents carry nothing"
    assert result.last_loss < result.first_loss
    return output


def test_everything_is_written_down(trained: Path) -> None:
    assert [row["step"] for row in read_metrics(trained)] == list(range(1, STEPS + 1))
    measured = {row["step"]: row for row in read_metrics(trained) if "held_out/mel_48k" in row}
    assert list(measured) == [STEPS // 2, STEPS]
    half, last = measured.values()
    assert last["held_out/mel_48k"] < half["held_out/mel_48k"]
    assert last["held_out/mel_16k"] < last["held_out/mel_other"]
    assert bool(missing_packages()) != ("held_out/stoi" in last)
    assert (trained / "train-codec.yaml").is_file()
    codec = read_codec(trained)
    assert codec.config.encoder_dim == 4 and not codec.training
    assert not any(p.requires_grad for p in codec.parameters())


def test_its_lineage_names_all_clips_that_it_could_draw(trained: Path, speech: Path) -> None:
    found = lineage_of(trained)
    assert (found.kind, found.step, found.ancestors) == ("codec", STEPS, ()) and found.digest == checkpoint_digest(
        trained
    )
    training, _, held, _ = _clips(settings(speech, trained), Corpora([speech]))
    source = {row["segment_id"]: row["source_id"] for row in Corpus(speech).index.to_pylist()}
    rows = find_recordings(found)
    assert {row.source_id: row.in_codec for row in rows if row.used} == Counter(
        source[name] for name in training.segments
    )
    assert {row.source_id: row.held_out for row in rows if row.held_out} == Counter(source[name] for name in held)
    assert {row.first_step for row in rows if row.used} == {0} and found.held_out.segments == len(held) > 0


def test_a_model_is_trained_on_its_latents(trained: Path, runs: Runs, tmp_path: Path) -> None:
    model = {"size": "toy", "vocabulary": 400, "codec": str(trained)}
    result = train(runs.config(tmp_path / "out", {"steps": 1, "rows": 1}, model=model))
    ours, theirs = read_codec(result.checkpoint).state_dict(), read_codec(trained).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    parent, found = lineage_of(trained), lineage_of(Path(result.checkpoint))
    assert [(one.role, one.digest, one.known) for one in found.ancestors] == [("codec", parent.digest, True)]
    inherited = {row.source_id: row.in_codec for row in find_recordings(found, generation=1)}
    assert inherited == {row.source_id: row.in_codec for row in find_recordings(parent) if row.used}


@pytest.mark.usefixtures("spectra_only")
def test_training_goes_on_from_another_codec(trained: Path, speech: Path, tmp_path: Path) -> None:
    more = settings(speech, tmp_path / "out", start=str(trained), config=None, steps=1)
    result = train_codec(more)
    # The first step of a codec from scratch has the same seed, and so the same crops.
    assert result.first_loss < 0.7 * read_metrics(trained)[0]["loss/total"]


class Passing(AudioVAE):
    """Gives back what it is given: noise of a level is all that is lost."""

    noise = 0.0

    def encode(self, wav: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return wav

    def decode(self, z: torch.Tensor, *_: object) -> torch.Tensor:
        threefold = torch.from_numpy(soxr.resample(z.numpy().T, 16_000, 48_000).T.copy())[:, None]
        return threefold + self.noise * torch.randn(threefold.shape, generator=torch.Generator().manual_seed(1))


def test_stoi_and_pesq_say_how_much_noise_is_added(corpora: Path) -> None:
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    clips = [
        CodecClip(*soundfile.read(path, dtype="float32")) for path in sorted((corpora / "emodb").rglob("*.flac"))[:4]
    ]
    assert {clip.rate for clip in clips} == {16_000}
    codec, found = Passing(AudioVAEConfig(encoder_dim=4, decoder_dim=64)), []
    for codec.noise in (0.0, 0.003, 0.03):
        found.append(measure(codec, clips, 0.96))
    assert found[0].stoi == pytest.approx(1.0, abs=1e-3) and found[0].pesq == pytest.approx(4.64, abs=0.02)
    assert found[0].mel_16k < 0.01 and found[0].mel_other > 10 * found[0].mel
    for worse, better in pairwise(reversed(found)):
        assert worse.stoi is not None and better.stoi is not None and worse.stoi < better.stoi
        assert worse.pesq is not None and better.pesq is not None and worse.pesq < better.pesq
        assert worse.mel > better.mel and worse.mel_16k > better.mel_16k
    silent = measure(codec, [CodecClip(np.zeros(32_000, np.float32), 16_000)] * 2, 0.96)
    assert silent.stoi is None and silent.pesq is None


def test_a_folder_without_a_codec_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainError, match="holds no codec"):
        read_codec(tmp_path / "empty")


@pytest.mark.usefixtures("spectra_only")
def test_the_same_seed_gives_the_same_codec(speech: Path, tmp_path: Path) -> None:
    runs = [train_codec(settings(speech, tmp_path / name, steps=2, batch=2, crop_s=0.2, held_out=2)) for name in "ab"]
    assert runs[0].last_loss == runs[1].last_loss
    assert (tmp_path / "a" / "audiovae.safetensors").read_bytes() == (
        tmp_path / "b" / "audiovae.safetensors"
    ).read_bytes()


def test_a_rate_too_high_ends_in_one_line() -> None:
    codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64))
    clip = np.full(16_000, np.nan, dtype=np.float32)
    with pytest.raises(TrainError, match="NaN or infinite at step 1"):
        fit_codec(codec, [clip], CodecFit(steps=3, crop_s=0.2), 1)


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
    wav, target, rates = crops(codec, [clip], CodecFit(batch=3, crop_s=0.96), np.random.default_rng(1))
    assert wav.shape == (3, 15_360) and target.shape == (3, 46_080) and rates.tolist() == [16_000] * 3
    # Every third sample at 48 kHz is one at 16 kHz; the ends ring.
    assert (target[:, ::3] - wav)[:, 400:-400].abs().max() < 1e-3


def test_a_clip_shorter_than_a_crop_is_padded() -> None:
    codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64))
    wav, target, _ = crops(codec, [np.ones(1000, dtype=np.float32)], CodecFit(batch=1), np.random.default_rng(1))
    assert wav.shape == (1, 15_360) and target.shape == (1, 46_080) and wav[0, 1000:].abs().max() == 0


def test_a_clip_of_48_khz_keeps_its_treble_and_narrowed_crops_lose_it() -> None:
    """The target is the clip itself; the decoder gets a lower rate exactly if the target was cut to it."""
    codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64))
    hiss = np.random.default_rng(1).standard_normal(96_000).astype(np.float32) * 0.1
    clip = CodecClip(hiss, 48_000)

    def top(wave: torch.Tensor, above: float) -> torch.Tensor:
        spectrum = torch.fft.rfft(wave).abs().square()
        return spectrum[:, int(above / 24_000 * spectrum.shape[1]) :].mean(dim=1) / spectrum.mean(dim=1)

    wav, target, rates = crops(codec, [clip], CodecFit(batch=2), np.random.default_rng(1))
    assert wav.shape == (2, 15_360) and target.shape == (2, 46_080) and rates.tolist() == [48_000] * 2
    assert (top(target, 16_000) > 0.9).all()
    _, target, rates = crops(codec, [clip], CodecFit(batch=24, narrowed=1.0), np.random.default_rng(1))
    assert set(rates.tolist()) == set(bandwidths(codec)) - {48_000} == {20_000, 30_000, 40_000}
    for wave, rate in zip(target, rates.tolist(), strict=True):
        assert float(top(wave[None], rate / 2 + 500)) < 1e-3 and float(top(wave[None], rate / 2 - 4000)) > 0.02
    assert sorted({int(codec.rate_bucket(rate)) for rate in bandwidths(codec)}) == [0, 1, 2, 3], "one for each bucket"


def test_latents_of_unit_scale_decode_to_the_same_speech(corpora: Path) -> None:
    paths = sorted((corpora / "emodb").rglob("*.flac"))[:3]
    clips = [soundfile.read(path, dtype="float32")[0][:30_720] for path in paths]
    for depthwise in (True, False):
        codec = AudioVAE(AudioVAEConfig(encoder_dim=4, decoder_dim=64, depthwise=depthwise)).requires_grad_(False)
        initialise_codec(codec, torch.from_numpy(clips[0])[None])
        codec.encoder.fc_mu.weight_g.mul_(torch.linspace(0.3, 5, 64).view(-1, 1, 1))  # type: ignore[operator]
        wav = torch.from_numpy(clips[1])[None, None]
        before, spread = codec.decode(codec.encode(wav)), codec.encode_heads(wav)
        normalise_latents(codec, clips)
        latents = torch.cat([codec.encode(torch.from_numpy(clip)[None, None])[0] for clip in clips], dim=1)
        torch.testing.assert_close(latents.std(dim=1), torch.ones(64))
        assert float(latents.mean(dim=1).abs().max()) < 1e-4
        # Only the start, where padding differs from the old zero, sounds different.
        after = codec.decode(codec.encode(wav))
        past = codec.decoder_context_frames * codec.config.decode_hop
        torch.testing.assert_close(after[..., past:], before[..., past:], atol=2e-4, rtol=0)
        mu, logvar = codec.encode_heads(wav)
        scale = (spread[0] - spread[0].mean()).std() / (mu - mu.mean()).std()
        assert float(scale) > 1, "the channels were wider before"
        torch.testing.assert_close(
            (0.5 * logvar).exp() / mu.std(dim=2, keepdim=True),
            (0.5 * spread[1]).exp() / spread[0].std(dim=2, keepdim=True),
        )


@pytest.mark.usefixtures("spectra_only")
def test_a_decoder_alone_learns_and_the_latents_stay(trained: Path, speech: Path, tmp_path: Path) -> None:
    more = {"start": str(trained), "config": None, "steps": 8, "clips": 6, "decoder_only": True, "held_out": 0}
    result = train_codec(settings(speech, tmp_path / "out", **more))
    old, new = read_codec(trained).state_dict(), read_codec(tmp_path / "out").state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert result.after.mel < result.before.mel


@pytest.mark.usefixtures("spectra_only")
def test_a_killed_run_goes_on_as_if_unbroken(speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an adversary and a schedule: weights after 2 + 2 steps are those after 4."""
    changes = {"schedule": "cosine", "warmup": 1, "save_every": 2, "narrowed": 0.5, "adversary": {"width": 1}}
    changes |= {"crop_s": 0.2, "held_out": 2, "batch": 2}
    whole = train_codec(settings(speech, tmp_path / "whole", steps=4, **changes))

    honest, broken = CodecTrainer.step, settings(speech, tmp_path / "broken", steps=4, **changes)
    state = tmp_path / "broken" / "resume.pt"

    def killed_in_step(last: int) -> None:
        def step(trainer: CodecTrainer) -> dict[str, float]:
            if trainer.taken == last - 1:
                raise KeyboardInterrupt
            return honest(trainer)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(CodecTrainer, "step", step)
            train_codec(broken)

    killed_in_step(2)
    assert not state.exists()
    # The third step is lost with its metrics.
    killed_in_step(4)
    assert state.is_file()
    lines: list[str] = []
    result = logged(lines.append, train_codec, broken)
    assert any(line.startswith("resuming from step 2 of 4") for line in lines)
    assert [row["step"] for row in read_metrics(tmp_path / "broken")] == [1, 2, 3, 4]
    one, other = (read_codec(tmp_path / name).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert result.last_loss == whole.last_loss
    with pytest.raises(TrainError, match="other settings"):
        train_codec(settings(speech, tmp_path / "broken", steps=4, **changes | {"lr": 5e-4}))


def test_a_state_between_two_steps_is_all_that_counts() -> None:
    """Two trainers, one of which took its first steps from another's state, take the same third step."""
    clip = CodecClip(0.1 * np.random.default_rng(1).standard_normal(24_000).astype(np.float32), 24_000)
    fit = CodecFit(
        steps=9, batch=2, crop_s=0.2, schedule="cosine", narrowed=0.5, adversary=AdversarySettings(width=1, start=1)
    )

    def trainer(seed: int) -> CodecTrainer:
        torch.manual_seed(1)
        return CodecTrainer(AudioVAE(AudioVAEConfig(encoder_dim=2, decoder_dim=64)), [clip], fit, seed, fresh=True)

    first, second = trainer(1), trainer(2)
    assert "loss/adversarial" not in first.step() and "loss/adversarial" in first.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert first.step() == second.step()


def test_the_schedule_warms_up_and_falls() -> None:
    fit = CodecFit(steps=100, warmup=10, schedule="cosine")
    rates = [fit.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[-1] < 0.03
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert {CodecFit(steps=9).rate(step) for step in range(9)} == {1.0}


def test_windows_last_as_long_at_every_rate() -> None:
    assert resolutions(48_000) == RESOLUTIONS
    assert [window / 16_000 for window, _ in resolutions(16_000)] == pytest.approx(
        [window / 48_000 for window, _ in RESOLUTIONS], rel=0.51
    )


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
    centers = (bank * torch.arange(window // 2 + 1)).sum(dim=1)
    assert bool((centers.diff() > 0).all())


def test_silence_has_a_gradient() -> None:
    silent = torch.zeros(1, 4096, requires_grad=True)
    mel_distance(silent, torch.randn(1, 4096), 48_000).backward()
    assert silent.grad is not None and bool(torch.isfinite(silent.grad).all())


def test_recipes_are_valid_and_a_misspelt_key_is_named() -> None:
    for name in recipes("trainer.codec"):
        load_codec_config(name)
    with pytest.raises(SettingsError, match="unknown setting stps; did you mean steps"):
        load_codec_config("toy", ["stps=3"])
