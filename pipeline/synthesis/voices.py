"""The voices of a corpus: their mean voiceprints, which tell whether a made clip has the right one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from catalogs.candidates.held_out import hash_number
from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.query.views import connect, result_rows

CLIPS = 8
"""Clips of a voice whose voiceprints are averaged."""
OTHERS = 256
"""Other voices that a clip is compared with, drawn by a hash."""
SAME_PERSON = 0.93
"""Voices of different sessions with a higher cosine of their means may be one person, and are not compared. Of 17 actors, halves of
one person's clips have 0.90 to 0.98, two persons of one gender and language at most 0.92 (GE2E)."""
_VOICES = """
SELECT coalesce(speaker, session_id) AS voice, session_id, shard, "row"
FROM segments WHERE kept AND "row" IS NOT NULL AND NOT coalesce(synthetic, false)
QUALIFY row_number() OVER (PARTITION BY voice ORDER BY md5_number_lower(segment_id), segment_id) <= {clips}
ORDER BY voice, segment_id
"""


@dataclass(frozen=True)
class Voiceprints:
    """Mean voiceprints of unit length: of the voices that a session clones, and of others `[V, D] float32`.

    sessions: of the corpus, in which each of the own voices speaks; other_sessions: of the others.
    """

    own: dict[str, np.ndarray] = field(default_factory=dict)
    sessions: dict[str, frozenset[str]] = field(default_factory=dict)
    others: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    other_sessions: tuple[frozenset[str], ...] = ()

    def margin(self, voice: str, made: np.ndarray | None) -> float | None:
        """Return the cosine to a voice minus that to the most similar other voice; None if it cannot be told."""
        own = self.own.get(voice)
        if made is None or own is None or not len(self.others) or own.shape != made.shape:
            return None
        # Clusters of one session may be one person in several moods.
        elsewhere = np.array([not found & self.sessions[voice] for found in self.other_sessions])
        different = self.others[elsewhere & (self.others @ own < SAME_PERSON)]
        if not len(different):
            return None
        unit = made / max(float(np.linalg.norm(made)), 1e-9)
        return float(unit @ own - (different @ unit).max())


class Voices:
    """The mean voiceprints of a corpus, read when they are needed. A voice is a cluster within a session (`speaker`)."""

    def __init__(self, corpus: Path) -> None:
        self._corpus = Corpus(corpus)
        self._places: dict[str, list[tuple[str, int]]] = {}
        self._sessions: dict[str, set[str]] = {}
        with connect(corpus) as catalog:
            for row in result_rows(catalog, _VOICES.format(clips=CLIPS)):
                self._places.setdefault(row["voice"], []).append((row["shard"], row["row"]))
                self._sessions.setdefault(row["voice"], set()).add(row["session_id"])
        self._means: dict[str, np.ndarray | None] = {}
        drawn = sorted(self._places, key=lambda voice: (hash_number("voice", voice), voice))[:OTHERS]
        means = {voice: mean for voice in drawn if (mean := self.mean(voice)) is not None}
        width = max((mean.shape for mean in means.values()), default=(0,))
        alike = {voice: mean for voice, mean in means.items() if mean.shape == width}
        self._others = np.stack([*alike.values()]).astype(np.float32) if alike else np.zeros((0, 0), np.float32)
        self._other_sessions = tuple(frozenset(self._sessions[voice]) for voice in alike)

    def mean(self, voice: str) -> np.ndarray | None:
        """Return the mean voiceprint of a voice, of unit length, `[D] float32`; None if its clips have none."""
        if voice not in self._means:
            self._means[voice] = self._read(voice)
        return self._means[voice]

    def _read(self, voice: str) -> np.ndarray | None:
        prints = []
        for shard, row in self._places.get(voice, ()):
            with reading(self._corpus.path / shard):
                found = self._corpus.shard(shard).values(row, "embedding")
            if found is not None and len(found) and np.any(found):
                prints.append(np.asarray(found, np.float32))
        if not prints or len({len(found) for found in prints}) > 1:
            return None
        mean = np.mean(prints, axis=0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)

    def of(self, voices: set[str]) -> Voiceprints:
        """Return the voiceprints that a session with these voices needs."""
        own = {voice: mean for voice in sorted(voices) if (mean := self.mean(voice)) is not None}
        sessions = {voice: frozenset(self._sessions[voice]) for voice in own}
        return Voiceprints(own, sessions, self._others, self._other_sessions)
