"""Several corpora as one, damaged ones in one line, and latents that are the same from the codec, memory and disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from catalogs.corpus.schema import DECOUPLED
from trainer.config import TrainError
from trainer.data.corpora import RATE, Corpora
from trainer.data.latent_cache import Latents, Recent
from trainer.data.mixture import find_candidates
from voxcpm.config import VoxCPM2Config
from voxcpm.weights.checkpoint import load_codec


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


def decouple(corpus: Path) -> str:
    """Mark two kept segments as made of other segments' descriptions and timbres; the id of the accepted one is returned."""
    corpora = Corpora([corpus])
    described = sorted(corpora.descriptions())
    plain = sorted(corpora.kept().keys() - corpora.descriptions().keys())
    rows = [
        {"segment_id": made, "described_id": described[0], "timbre_id": described[1], "text": "something else", "accepted": ok}
        for made, ok in zip(plain[:2], (True, False), strict=True)
    ]  # fmt: skip
    path = corpus / "annotations" / "decoupled" / "one.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=DECOUPLED), path)
    return plain[0]


def test_content_decoupled_samples_serve_as_such_alone(copy: Path) -> None:
    before = {c.segment_id: c for c in find_candidates(Corpora([copy]), "true", 60.0, "a")}
    made = decouple(copy)
    corpora = Corpora([copy])
    (rejected,) = corpora.decoupled().keys() - {made}
    found = {c.segment_id: c for c in find_candidates(corpora, "true", 60.0, "a")}
    assert found.keys() == before.keys() - {rejected}
    sample, told = found[made], corpora.decoupled()[made]
    assert sample.layouts() == ("controllable",) and sample.text == "something else"
    assert sample.description == corpora.descriptions()[told.described_id]
    assert [reference for reference, _ in sample.references] == [told.timbre_id]
    assert sample.seconds == corpora.kept()[made]["duration_s"]
    for segment_id, candidate in found.items():
        if segment_id != made:
            assert candidate.described_id is None
            assert not {made, rejected} & {reference for reference, _ in candidate.references}
    assert not any(c.described_id for c in find_candidates(corpora, f"segment_id <> '{made}'", 60.0, "a"))


def test_descriptions_come_in_two_lengths(speech: Path) -> None:
    corpora = Corpora([speech])
    full, brief = corpora.descriptions(), corpora.descriptions("brief")
    assert full.keys() == brief.keys() and set(brief.values()) == {"a calm voice"}
    candidates = find_candidates(corpora, "true", 60.0, "a")
    assert {(c.description, c.brief) for c in candidates} == {("A calm voice, not loud.", "a calm voice"), (None, None)}


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
    again._encode = None  # type: ignore[assignment]  # it must not be asked
    assert torch.equal(again.get(first, count), fresh)
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(latents(speech, golden, config, tmp_path).get(first, count), fresh)
    assert np.array_equal(np.load(path), fresh.numpy()), "a damaged file is written again"


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
    """The latents of the last clips are there; that of the first one is encoded again. One value is held whatever its size."""
    room, segments = latents(speech, golden, config, None, memory_s=5.0), sorted(Corpora([speech]).kept())

    def encodes(segment_id: str) -> bool:
        before = room.encoded_s
        room.get(segment_id, patches(speech, segment_id))
        return room.encoded_s > before

    assert all(map(encodes, segments))
    assert not encodes(segments[-1]) and encodes(segments[0])
    recent: Recent[str] = Recent(5, len)
    for key, value in enumerate(("aa", "bb", "c", "dd")):
        assert recent.get(key, lambda value=value: value) == value  # type: ignore[misc]
        assert recent.held <= 5
    recent.get(2, pytest.fail)
    assert recent.get(4, lambda: "far too long") == "far too long" and recent.held == 12
    assert recent.get(2, lambda: "again") == "again" and recent.held == 5


def test_audio_that_is_not_as_long_as_the_index_says_is_refused(
    speech: Path, golden: Path, config: VoxCPM2Config, first: str
) -> None:
    for wrong in (-2, 2):
        with pytest.raises(TrainError, match=rf"segment {first} has .* s of audio, its index row speaks of .*fsck"):
            latents(speech, golden, config, None).get(first, patches(speech, first) + wrong)
