"""Small corpora of described segments, without any model: texts, voices and styles as a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from corpus_builders import FINGERPRINT, RATE, flac, make_unit, tone

from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.ids import segment_id
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.corpus.shards import to_table

Line = tuple[str, str]
"""Language and text of a segment."""

ENGLISH = (
    "the train to the coast leaves at seven",
    "my neighbor paints wooden chairs",
    "a cat slept under the warm stove",
    "we bought fresh bread and cheese",
    "their office moved across the river",
    "he repairs old radios every winter",
    "the museum opens its doors at noon",
    "she planted tomatoes behind the garage",
)
GERMAN = (
    "der Zug an die Küste fährt um sieben",
    "meine Nachbarin malt Stühle aus Holz",
    "die Katze schlief unter dem Ofen",
    "wir kauften frisches Brot und Käse",
)


def described_corpus(
    root: Path, sessions: Sequence[Sequence[Line]], emotions: Sequence[str] = ("happy", "sad"), seconds: float = 2.4
) -> Path:
    """Make a corpus with a unit per session, all of whose segments are described and have references."""
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    for number, lines in enumerate(sessions):
        unit = make_unit(f"s{number}", len(lines), seconds)
        for at, (row, (language, text)) in enumerate(zip(unit.rows, lines, strict=True)):
            start_s = at * (seconds + 0.5)
            row |= {
                "segment_id": segment_id(
                    row["source_id"], round(start_s * RATE), round((start_s + seconds) * RATE), FINGERPRINT
                ),
                "language": language,
                "text": text,
                "expressive_p": 0.8,
                "reasons": [],
                "kept": True,
                "audio": flac(tone(seconds, 150.0 + 10 * at)),
                "words": [],
                "embedding": np.full(8, 8**-0.5, dtype=np.float32),
            }
        unit.recordings[0] |= {"attribution": "Anna Example", "consent": "explicit", "purposes": ["tts-training"]}
        ids = [row["segment_id"] for row in unit.rows]
        pairs = [
            {"segment_id": own, "reference_id": other, "cosine": 0.8, "gap": at - place}
            for at, own in enumerate(ids)
            for place, other in enumerate(ids)
            if at - place not in (0, 1)
        ]
        commit_unit(root, _with(unit, references=pairs))
        describe(root, unit.unit_id, ids, emotions)
    return root


def _with(unit: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(unit, **changes)


def describe(root: Path, unit: str, ids: Sequence[str], emotions: Sequence[str]) -> None:
    """Write descriptions of segments, with the emotions in turn."""
    rows: list[dict[str, Any]] = [
        {
            "segment_id": own,
            "annotator": "acoustic",
            "status": "ok",
            "verdict": "agree",
            "brief": "a voice",
            "full": "A voice that speaks.",
            "style": f"{emotions[at % len(emotions)]}, quick",
            "labels": {"emotion": emotions[at % len(emotions)], "rate": "fast", "pitch": "mid", "energy": "high"},
        }
        for at, own in enumerate(ids)
    ]
    path = root / "annotations" / "acoustic" / unit[:2] / f"{unit}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(rows, DESCRIPTIONS), path)
