"""Mark duplicates over the whole corpus. Nothing is deleted, and no segment is written again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from catalogs.corpus.damage import reading
from catalogs.corpus.duplicates import duplicates_state, read_duplicates, write_duplicates
from catalogs.corpus.ids import short_hash
from catalogs.corpus.reader import Corpus
from pipeline.duplicates.groups import duplicate_rows, exact_links, links_of
from pipeline.duplicates.match import match_prints
from pipeline.duplicates.same_text import same_text_links

_VERSION = "1"
_NOTHING = np.zeros(0, dtype=np.uint16)


@dataclass(frozen=True)
class Marked:
    """Result of a pass: segments that are a duplicate of an earlier one, by kind. `done` is False if nothing had changed."""

    segments: int
    kinds: dict[str, int] = field(default_factory=dict)
    done: bool = True


def mark_duplicates(root: str | Path, cosine: float) -> Marked:
    """Compare all segments with audio of a corpus and write `annotations/duplicates`; a second call without new units is
    free.

    `cosine`: minimum cosine of the voiceprints of two clips of one voice (the encoder's threshold). The result depends on
    the committed units and on what was first in the previous pass, not on the order in which units were committed. Two
    bytes per 32 ms of speech are held in memory (225 MB for 1000 hours), and eight times that while a range of keys is
    sorted.
    """
    corpus = Corpus(root)
    state = short_hash(_VERSION, str(cosine), *sorted(record["unit_id"] for record in corpus.records))
    if duplicates_state(root) == state:
        return _summary(corpus, done=False)
    before = {row["segment_id"]: row for row in read_duplicates(root).to_pylist()}
    segments = _segments(corpus)
    links = exact_links(segments.hashes) + links_of(match_prints(segments.prints))
    links += same_text_links(segments.texts, segments.voices, cosine)
    rows = duplicate_rows(segments.ids, segments.hashes, links, before)
    if corpus.records:
        write_duplicates(root, rows, state)
    return _summary(corpus)


def _summary(corpus: Corpus, done: bool = True) -> Marked:
    table = read_duplicates(corpus.path)
    kinds = Counter(kind for kind in table.column("duplicate_kind").to_pylist() if kind is not None)
    return Marked(kinds.total(), dict(sorted(kinds.items())), done)


@dataclass(frozen=True)
class _Segments:
    """The segments with audio, in an order that does not depend on when they were committed."""

    corpus: Corpus
    ids: list[str]
    texts: list[str | None]
    hashes: list[str | None]
    prints: list[np.ndarray]

    def voices(self, places: list[int]) -> list[np.ndarray | None]:
        """Return the voiceprints, float32 [W] of unit length, of the segments at these positions."""
        found: list[np.ndarray | None] = []
        for place in places:
            shard, row = self.corpus.place(self.ids[place])
            with reading(self.corpus.path / shard):
                values = self.corpus.shard(shard).column(row, "embedding")
            found.append(np.asarray(values, dtype=np.float32) if values else None)
        return found


def _segments(corpus: Corpus) -> _Segments:
    prints: dict[str, np.ndarray] = {}
    for record in corpus.records:
        for file in record["files"]:
            if file["kind"] == "segments":
                with reading(corpus.path / file["path"]):
                    table = corpus.shard(file["path"]).table().select(["segment_id", "audio_print"])
                    for segment, words in zip(*(column.to_pylist() for column in table.columns), strict=True):
                        if record.get("superseded") and corpus.shard_of(segment) != file["path"]:
                            continue  # The source was processed again: its row in the newer unit counts.
                        prints[segment] = np.frombuffer(words, dtype="<u2") if words else _NOTHING
    columns = ["session_id", "seq", "segment_id", "text", "audio_sha256"]
    rows = sorted(
        zip(*(corpus.index.column(name).to_pylist() for name in columns), strict=True), key=lambda row: row[:3]
    )
    rows = [row for row in rows if row[2] in prints]
    return _Segments(
        corpus,
        ids=[row[2] for row in rows],
        texts=[row[3] for row in rows],
        hashes=[row[4] for row in rows],
        prints=[prints[row[2]] for row in rows],
    )
