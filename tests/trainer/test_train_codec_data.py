"""What a codec hears: all of a corpus in bounded memory, in an order that neither threads nor kills change."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.logs import logged
from train_runs import damage

from catalogs.corpus.reader import Corpus
from trainer.codec import CodecConfig, CodecResult, train_codec
from trainer.codec.clips import CodecClip
from trainer.codec.config import CodecFit
from trainer.codec.encoded import EncodedClips
from trainer.codec.files import read_codec
from trainer.codec.fit import CodecTrainer
from trainer.codec.source import CorpusClips
from trainer.config import TrainError
from trainer.data.corpora import Corpora
from trainer.runtime.metrics import read_metrics
from trainer.runtime.run_folder import hold_folder
from voxcpm.audiovae import AudioVAE, AudioVAEConfig

TINY = {"encoder_dim": 2, "decoder_dim": 64}


def settings(corpus: Path, output: Path, **changes: Any) -> CodecConfig:
    values = {"corpus": str(corpus), "output": str(output), "config": TINY, "steps": 4, "threads": 1, "device": "cpu"}
    return CodecConfig.model_validate(values | {"crop_s": 0.2, "held_out": 2} | changes)


def hiss(rate: int, seed: int = 1) -> CodecClip:
    return CodecClip(0.1 * np.random.default_rng(seed).standard_normal(rate).astype(np.float32), rate)


def tiny_codec() -> AudioVAE:
    torch.manual_seed(1)
    return AudioVAE(AudioVAEConfig.from_dict(TINY))


def top(wave: torch.Tensor, above: float) -> float:
    """Power of a 48 kHz wave above a frequency, by that of all of it."""
    power = torch.fft.rfft(wave).abs().square()
    return float(power[int(above / 24_000 * len(power)) :].mean() / power.mean())


def test_a_decoder_alone_hears_lower_bandwidths_too() -> None:
    codec = tiny_codec()
    encoded = EncodedClips(codec, [hiss(48_000), hiss(16_000, 2)], 1e9)
    fit = CodecFit(batch=64, crop_s=0.5, decoder_only=True, narrowed=0.5)
    batch = encoded.crops(fit, np.random.default_rng(1))
    assert set(batch.rates.tolist()) == {16_000, 20_000, 30_000, 40_000, 48_000}
    for wave, rate in zip(batch.targets, batch.rates.tolist(), strict=True):
        if rate < 48_000:
            assert top(wave, rate / 2 + 500) < 1e-2, rate
        else:
            assert top(wave, 20_000) > 0.8
    told = []
    decode = codec.decode

    def told_rates(z: torch.Tensor, sr_cond: int | torch.Tensor | None = None) -> torch.Tensor:
        assert isinstance(sr_cond, torch.Tensor)
        told.extend(sr_cond.tolist())
        return decode(z, sr_cond)

    codec.decode = told_rates  # type: ignore[method-assign]
    CodecTrainer(codec, [hiss(48_000)], CodecFit(batch=8, crop_s=0.2, decoder_only=True, narrowed=1.0), 1).step()
    assert told and set(told) <= {20_000, 30_000, 40_000}, "the decoder gets the bandwidth that its target was cut to"


def test_all_clips_are_drawn_and_few_are_held(speech: Path) -> None:
    corpora = Corpora([speech])
    ids = sorted(corpora.kept())
    whole = sum(corpora.native_clip(segment)[0].nbytes for segment in ids)
    clips = CorpusClips(corpora, ids, whole / 3)
    fit = CodecFit(steps=1, batch=4, crop_s=0.2)
    trainer = CodecTrainer(tiny_codec(), clips, fit, 1)
    read: set[str] = set()
    native = corpora.native_clip

    def native_clip(segment_id: str, place: tuple[Corpus, str, int] | None = None) -> tuple[np.ndarray, int]:
        read.add(segment_id)
        return native(segment_id, place)

    corpora.native_clip = native_clip  # type: ignore[method-assign]
    most = 0
    for _ in range(25):
        trainer._batches.draw()
        most = max(most, clips.memory_bytes)
    assert read == set(ids) and 0 < most <= whole / 3
    assert CorpusClips(corpora, ids, 0.0)[3].samples.shape == clips[3].samples.shape


@pytest.mark.parametrize("decoder_only", [False, True])
def test_memory_changes_no_bit_also_after_a_resume(decoder_only: bool, speech: Path) -> None:
    corpora = Corpora([speech])
    fit = CodecFit(steps=9, batch=2, crop_s=0.2, narrowed=0.5, decoder_only=decoder_only)

    def trainer(memory: float) -> CodecTrainer:
        clips = CorpusClips(corpora, sorted(corpora.kept()), memory)
        return CodecTrainer(tiny_codec(), clips, fit, 3, False, memory)

    plain, ahead, resumed = trainer(1e9), trainer(0.0), trainer(1e6)
    wanted = [plain.step() for _ in range(2)]
    assert [ahead.step() for _ in range(2)] == wanted
    resumed.step()  # has drawn, and is drawing: both are forgotten
    resumed.load_state_dict(copy.deepcopy(ahead.state_dict()))
    third = plain.step()
    assert ahead.step() == third and resumed.step() == third
    for made in (plain, ahead, resumed):
        made.close()


def test_asked_to_stop_it_saves_and_goes_on(speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `save_every` as well; a finished run leaves nothing to resume from. Nor does measuring change a bit."""
    with monkeypatch.context() as patched:
        patched.setattr("trainer.codec.measure._HEARD", 0)
        whole = train_codec(settings(speech, tmp_path / "whole"))
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if "step 1/" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    broken = settings(speech, tmp_path / "broken", measure_every=2)
    first = logged(stop, train_codec, broken)
    assert first.stopped_early and first.steps == 1 and any(line.startswith("asked to stop") for line in said)
    second = logged(said.append, train_codec, broken)
    assert any(line.startswith("resuming from step 1 of 4") for line in said)
    assert_same(second, whole, tmp_path)
    assert not (tmp_path / "broken" / "resume.pt").exists()


def assert_same(mine: CodecResult, theirs: CodecResult, folder: Path) -> None:
    assert not mine.stopped_early and mine.last_loss == theirs.last_loss
    assert [row["step"] for row in read_metrics(folder / "broken")] == [1, 2, 3, 4]
    one, other = (read_codec(folder / name).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_runs_into_one_folder_are_one_too_many(speech: Path, tmp_path: Path) -> None:
    with hold_folder(tmp_path / "out"), pytest.raises(TrainError, match="another run is training into"):
        train_codec(settings(speech, tmp_path / "out"))


def test_a_damaged_clip_is_passed_over_and_named(speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.codec.measure._HEARD", 0)  # no clip is decoded for STOI and PESQ
    corpus = tmp_path / "corpus"
    shutil.copytree(speech, corpus)
    ids = Corpus(corpus).kept().column("segment_id").to_pylist()
    for segment in ids[:3]:
        damage(corpus, segment)
    said: list[str] = []
    result = logged(said.append, train_codec, settings(corpus, tmp_path / "out", batch=16, held_out=6))
    named = {segment for segment in ids for line in said if line.startswith("left out:") and segment in line}
    assert result.steps == 4 and named and named <= set(ids[:3])
    for segment in ids[3:]:
        damage(corpus, segment)
    with pytest.raises(TrainError, match="can be read; run: voxmill fsck"):
        train_codec(settings(corpus, tmp_path / "more"))
