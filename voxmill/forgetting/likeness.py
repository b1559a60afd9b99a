"""`--like CLIP.wav`: the segments whose voiceprint is near to that of a clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.settings import read_yaml
from catalogs.weights.registry import weights as weights_of
from pipeline.audio.open import probe, stream_mono
from pipeline.records import PCM_RATE
from pipeline.voice.encoders import EncoderName, load_encoder
from voxmill.forgetting.scope import ForgetError


def segments_like(root: Path, clip: Path, cosine: float | None = None) -> dict[str, float]:
    """Return the cosine of each segment that is at least as near to the voice of a clip as `cosine` (default: the limit of the
    corpus' encoder for one voice), by segment id.

    The speaker encoder compares voices roughly: read the plan before it is carried out. Raises ForgetError, and WeightsMissing
    for an encoder that is not on this machine.
    """
    if not clip.is_file():
        raise FileNotFoundError(f"no audio file at {clip}")
    name = encoder_of(root)
    samples = _samples(clip)
    if not np.any(samples):
        raise ForgetError(f"{clip} is silent: give a clip of the voice, best of 3 s or more")
    mean = load_encoder(name, "auto").partials([samples])[0].mean(axis=0)
    own = mean / max(float(np.linalg.norm(mean)), 1e-9)
    limit = cosine if cosine is not None else (weights_of(name).cosine_threshold or 0.7)
    near = {segment: value for segment, value in _cosines(root, own) if value >= limit}
    if not near:
        raise ForgetError(f"no voice of the corpus is within {limit:g} of {clip}: lower --cosine, or name a session")
    return near


def _samples(clip: Path) -> np.ndarray:
    """Return float32 [S] of a clip at 16 kHz. Raises AudioFileError."""
    import soxr

    info = probe(str(clip))
    samples = np.concatenate([np.zeros(0, np.float32), *stream_mono(str(clip), info)])
    return np.asarray(soxr.resample(samples, info.sample_rate, PCM_RATE), np.float32)


def encoder_of(root: Path) -> EncoderName:
    """Return the name of the encoder that made the voiceprints of a corpus."""
    path = root / "prepare.yaml"
    name = read_yaml(path).get("speaker_encoder") if path.is_file() else None
    return "ecapa" if name == "ecapa" else "ge2e"


def _cosines(root: Path, own: np.ndarray) -> Iterator[tuple[str, float]]:
    corpus = Corpus(root)
    for table in corpus.parts("index", ("segment_id", "shard", "row")):
        places = zip(*(table.column(name).to_pylist() for name in ("segment_id", "shard", "row")), strict=True)
        for segment, shard, row in places:
            if shard is None:
                continue
            with reading(root / shard):
                found = corpus.shard(shard).values(row, "embedding")
            if found is not None and found.shape == own.shape:
                yield segment, float(np.dot(found, own))
