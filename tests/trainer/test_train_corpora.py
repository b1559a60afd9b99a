"""Several corpora as one, damaged ones in one line, and latents that are the same from the codec, memory and disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.config import TrainError
from trainer.corpora import RATE, Corpora
from trainer.latents import Latents
from trainer.mixture import find_candidates
from voxcpm.checkpoint import load_codec
from voxcpm.config import VoxCPM2Config


@pytest.fixture
def copy(speech: Path, tmp_path: Path) -> Path:
    """A corpus that may be spoilt."""
    shutil.copytree(speech, tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture(scope="module")
def first(speech: Path) -> str:
    return min(Corpora([speech]).kept())


def shard_of(corpus: Path, segment_id: str) -> Path:
    (part,) = Corpora([corpus]).parts
    return corpus / part.place(segment_id)[0]


def test_a_segment_in_two_corpora_is_there_once(speech: Path, copy: Path) -> None:
    assert Corpora([speech, copy]).kept() == Corpora([speech]).kept()
    alone, both = (find_candidates(Corpora(paths), "true", 60.0, "a") for paths in ([speech], [speech, copy]))
    assert both == alone


def test_clips_are_16_khz_and_as_long_as_the_index_says(speech: Path) -> None:
    corpora = Corpora([speech])
    rates = set()
    for segment_id, row in corpora.kept().items():
        clip = corpora.clip(segment_id)
        rates.add(corpora.segment(segment_id)["sample_rate"])
        assert clip.dtype == np.float32 and abs(len(clip) - row["duration_s"] * RATE) <= 2
    assert rates == {16_000, 24_000, 48_000}


def test_a_missing_shard_is_one_line(copy: Path, first: str) -> None:
    corpora = Corpora([copy])
    shard_of(copy, first).unlink()
    for read in (corpora.clip, corpora.segment):
        with pytest.raises(TrainError, match=rf"shard of segment {first} cannot be read .*voxmill fsck") as told:
            read(first)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("left", [0, 1000, 0.5])
def test_a_damaged_shard_is_one_line(copy: Path, first: str, left: float) -> None:
    path = shard_of(copy, first)
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if left < 1 else int(left)])
    with pytest.raises(TrainError, match=rf"shard of segment {first} cannot be read .*voxmill fsck") as told:
        Corpora([copy]).clip(first)
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def config(golden: Path) -> VoxCPM2Config:
    return VoxCPM2Config.load(golden / "checkpoint")


def latents(corpus: Path, golden: Path, config: VoxCPM2Config, folder: Path | None, memory_s: float = 3600) -> Latents:
    return Latents(Corpora([corpus]), load_codec(golden / "checkpoint"), config, folder, memory_s)


def patches(corpus: Path, segment_id: str) -> int:
    return -(-round(Corpora([corpus]).kept()[segment_id]["duration_s"] * RATE) // 2560)


def test_latents_from_the_disk_are_those_of_the_codec(
    speech: Path, golden: Path, config: VoxCPM2Config, first: str, tmp_path: Path
) -> None:
    count = patches(speech, first)
    fresh = latents(speech, golden, config, None).get(first, count)
    latents(speech, golden, config, tmp_path).get(first, count)
    (path,) = tmp_path.rglob("*.npy")
    again = latents(speech, golden, config, tmp_path)
    again._codec = None  # type: ignore[assignment]  # it must not be asked
    assert torch.equal(again.get(first, count), fresh)
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(latents(speech, golden, config, tmp_path).get(first, count), fresh)
    assert np.array_equal(np.load(path), fresh.numpy()), "a damaged file is written anew"


def test_another_codec_s_latents_are_not_taken(
    speech: Path, golden: Path, config: VoxCPM2Config, first: str, tmp_path: Path
) -> None:
    codec = load_codec(golden / "checkpoint")
    own = latents(speech, golden, config, tmp_path).get(first, patches(speech, first))
    with torch.no_grad():
        codec.encoder.fc_mu.bias.add_(1.0)  # type: ignore[union-attr, operator]
    other = Latents(Corpora([speech]), codec, config, tmp_path).get(first, patches(speech, first))
    torch.testing.assert_close(other, own + 1.0)


def test_memory_holds_what_it_may_and_forgets_the_oldest(speech: Path, golden: Path, config: VoxCPM2Config) -> None:
    room = latents(speech, golden, config, None, memory_s=5.0)
    for segment_id in sorted(Corpora([speech]).kept()):
        room.get(segment_id, patches(speech, segment_id))
        held = sum(map(len, room._memory.values()))
        assert held == room._held and segment_id in room._memory
        assert held <= room._room or len(room._memory) == 1


def test_audio_that_is_not_as_long_as_the_index_says_is_refused(
    speech: Path, golden: Path, config: VoxCPM2Config, first: str
) -> None:
    for wrong in (-2, 2):
        with pytest.raises(TrainError, match=rf"segment {first} has .* s of audio, its index row speaks of .*fsck"):
            latents(speech, golden, config, None).get(first, patches(speech, first) + wrong)
