"""A pair: a described segment and the unrelated text that it is cloned onto. The pairs of a corpus are kept as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.commit import write_in_corpus
from catalogs.corpus.ids import short_hash
from catalogs.corpus.reader import read_rows
from catalogs.corpus.row_files import parquet_bytes
from pipeline.synthesis.requests import SpeechRequest, SpeechSession, StoredClip, speech_recordings
from pipeline.synthesis.voices import Voiceprints, Voices

PAIRS_FILE = "pairs.parquet"


@dataclass(frozen=True)
class Pair:
    """A described segment, the text that it is cloned onto, and the clip that is the reference of the sample.

    `reason`: why nothing was paired with the segment, null otherwise. The measures are the described segment's, in the units of
    their columns; `rest_hz` is the resting pitch of its voice.
    """

    pair_id: str
    described_id: str
    language: str
    reason: str | None = None
    timbre_id: str | None = None
    text_id: str | None = None
    text: str | None = None
    caption: str | None = None
    distance_rule: str | None = None
    relatedness: float | None = None
    license: str | None = None
    rights: str | None = None
    """What is stated of the rights to the described segment's recording, as JSON (`catalogs.corpus.columns.RIGHTS`)."""
    voice: str = ""
    """The described segment's voice: its `speaker`, or its session if that is not known."""
    style: str = ""
    """Emotion, rate, pitch and energy as described."""
    described_shard: str = ""
    described_row: int = 0
    timbre_shard: str | None = None
    timbre_row: int | None = None
    pitch_hz: float | None = None
    pitch_range_st: float | None = None
    rate_sps: float | None = None
    energy_db: float | None = None
    expressive_p: float | None = None
    rest_hz: float | None = None

    def described(self, corpus: str) -> StoredClip:
        """The described segment's clip."""
        return StoredClip(corpus, self.described_shard, self.described_row)

    def timbre(self, corpus: str) -> StoredClip:
        """The clip of the timbre. Only for a pair."""
        assert self.timbre_shard is not None and self.timbre_row is not None
        return StoredClip(corpus, self.timbre_shard, self.timbre_row)


_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
PAIRS = pa.schema([(own.name, _TYPES[str(own.type).split(" ", maxsplit=1)[0]]) for own in fields(Pair)])


def pair_id(described: str, text_id: str) -> str:
    """Return the id of a pair: the same in every run."""
    return short_hash("pair", described, text_id)


def write_pairs(out: Path, pairs: Iterable[Pair]) -> None:
    """Write the pairs of a corpus, all or none."""
    table = pa.Table.from_pylist([asdict(pair) for pair in pairs], schema=PAIRS)
    write_in_corpus(out, out / PAIRS_FILE, parquet_bytes(table))


def read_pairs(out: Path) -> list[Pair]:
    """Return the pairs of a corpus; none without a file. Raises DamagedFileError."""
    path = out / PAIRS_FILE
    return [Pair(**row) for row in read_rows(path, PAIRS).to_pylist()] if path.is_file() else []


@dataclass
class DecoupleSession(SpeechSession):
    """A session of pairs, by source id, and what was found of each clip (rows of `decoupled`)."""

    corpus: str = ""
    voiceprints: Voiceprints = field(default_factory=Voiceprints)
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    attempt: int = 1
    model: str = ""
    found: dict[str, dict[str, Any]] = field(default_factory=dict)


def seed_of(seed: int, pair: Pair, attempt: int) -> int:
    """Return the seed of an attempt at a pair."""
    return int(short_hash("seed", seed, pair.pair_id, attempt)[:7], 16)


@dataclass(frozen=True)
class SessionSettings:
    """What sessions need of the settings."""

    unit: int
    seed: int
    style: bool
    spool: str


def sessions_of(
    pairs: Iterable[Pair],
    attempt: int,
    corpus: Path,
    fingerprint: str,
    model: str,
    settings: SessionSettings,
    voices: Voices | None = None,
) -> Iterator[DecoupleSession]:
    """Yield the sessions of one attempt at these pairs. Their ids follow from the pairs, so that a killed run finds them again."""
    order = sorted(pairs, key=lambda pair: (pair.language, len(pair.text or ""), pair.pair_id))
    for start in range(0, len(order), settings.unit):
        group = order[start : start + settings.unit]
        session = _session(group, attempt, corpus, fingerprint, model, settings)
        if voices is not None:
            session.voiceprints = voices.of({pair.voice for pair in group})
        yield session


def _session(
    group: list[Pair], attempt: int, corpus: Path, fingerprint: str, model: str, settings: SessionSettings
) -> DecoupleSession:
    session_id = short_hash("decoupled", fingerprint, attempt, *(pair.pair_id for pair in group))
    by_source = {short_hash("made", fingerprint, attempt, pair.pair_id): pair for pair in group}
    requests = {
        source_id: SpeechRequest(
            text=str(pair.text),
            seed=seed_of(settings.seed, pair, attempt),
            language=pair.language,
            description=pair.caption if settings.style else None,
            reference=pair.described(str(corpus)),
        )
        for source_id, pair in by_source.items()
    }
    return DecoupleSession(
        session_id,
        fingerprint,
        str(Path(settings.spool) / session_id),
        speech_recordings(requests, session_id, "decoupled"),
        requests=requests,
        corpus=str(corpus),
        pairs=by_source,
        attempt=attempt,
        model=model,
    )
