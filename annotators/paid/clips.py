"""The clips of a corpus for an annotator over a network: units, audio at 16 kHz mono, and the key of a question."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from annotators.providers.remote import Ask
from catalogs.corpus.commit import CorpusError, is_inside
from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.corpus.shards import Shard

RATE = 16_000
"""Sample rate that is sent, in Hz. Services reduce audio to this rate or less."""
MOST_S = 1e6
"""Seconds; no clip is longer."""
Chosen = Callable[[pa.Table], pa.Table]
"""Returns the rows (INDEX columns) that are to be described, of the kept rows of whole units."""


@dataclass(frozen=True)
class Place:
    """One kept segment with audio. chosen: whether this pass is to describe it."""

    segment_id: str
    shard: str
    row: int
    speaker: str | None
    language: str | None
    seconds: float
    chosen: bool


def units_of(corpus: Corpus, chosen: Chosen | None = None) -> Iterator[tuple[str, list[Place]]]:
    """Yield (unit, its kept segments with audio, clips of one speaker side by side), read lazily."""
    names = ("shard", "row", "segment_id", "speaker", "language", "duration_s")
    for part in corpus.kept_parts():
        ids = None if chosen is None else set(chosen(part).column("segment_id").to_pylist())
        rows = zip(*(part.column(name).to_pylist() for name in names), strict=True)
        for unit, members in groupby(
            (r for r in rows if r[0] is not None), key=lambda r: Path(r[0]).name.split(".")[0]
        ):
            places = [
                Place(segment, shard, row, speaker, language, seconds_of(seconds), ids is None or segment in ids)
                for shard, row, segment, speaker, language, seconds in members
            ]
            yield unit, sorted(places, key=lambda place: (place.speaker or "", place.shard, place.row))


def seconds_of(length: float | None) -> float:
    """Return the length of a clip as its row states it, in seconds; 0 for one that cannot be."""
    return length if length is not None and 0 <= length < MOST_S else 0.0


def audio_of(corpus: Corpus, places: Sequence[Place]) -> list[bytes]:
    """Return the FLAC bytes of segments as stored. Raises DamagedFileError, and CorpusError for a shard outside the corpus."""
    # The maps are closed again. Those of `corpus.shard` stay open, and the pages read count as memory of the process.
    shards: dict[str, Shard] = {}
    found = []
    for place in places:
        with reading(corpus.path / place.shard):
            if place.shard not in shards:
                if not is_inside(place.shard):
                    raise CorpusError(
                        f"{corpus.path}: a row names the shard {place.shard}, which is not in this corpus"
                    )
                shards[place.shard] = Shard(corpus.path / place.shard)
            found.append(shards[place.shard].audio_buffer(place.row).to_pybytes())
    return found


def asks_of(corpus: Corpus, places: Sequence[Place], identity: str, vote: int, pool: Executor) -> list[Ask]:
    """Return what a provider is asked about each segment. Raises DamagedFileError for audio that cannot be decoded."""

    def ask(place: Place, flac: bytes) -> Ask:
        with reading(corpus.path / place.shard):
            pcm = pcm_of(flac)
        key = key_of(hashlib.sha256(pcm.tobytes()).hexdigest(), identity, vote)
        seconds = len(pcm) / RATE
        return Ask(key, place.segment_id, place.speaker, place.language, seconds, flac_of(pcm))

    return list(pool.map(ask, places, audio_of(corpus, places)))


def key_of(pcm_sha256: str, identity: str, vote: int) -> str:
    """Return the identity of a question: what is heard, what decides the answer, and the number of the vote."""
    return hashlib.sha256(f"{pcm_sha256}\n{identity}\n{vote}".encode()).hexdigest()


def pcm_of(flac: bytes) -> np.ndarray:
    """Return a clip as `[S] int16` at 16 kHz, mono."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16", always_2d=True)
    if rate == RATE and samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    mono = samples.astype(np.float32).mean(axis=1)
    if rate != RATE:
        mono = soxr.resample(mono, rate, RATE)
    return np.rint(mono).clip(-32768, 32767).astype(np.int16)


def flac_of(pcm: np.ndarray) -> bytes:
    """Return samples as a FLAC file."""
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
