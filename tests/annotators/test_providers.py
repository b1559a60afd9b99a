"""What every annotator of the table promises, on measured rows: a new entry is tested by being in the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

from annotators.providers import ANNOTATORS, provider
from annotators.schema import Clip
from catalogs.corpus.schema import INDEX
from catalogs.corpus.shards import to_table

MEASURED = {"pitch_hz": 180.0, "pitch_range_st": 6.0, "rate_sps": 4.5, "loudness_lufs": -22.0, "duration_s": 3.0}


def rows() -> list[dict[str, Any]]:
    """Twelve segments of two voices; of the last nothing was measured."""
    shared = {"session_id": "s", "language": "en", "text": "good evening everyone", "kept": True, "reasons": []}
    measured = [
        {name: value * (1 + n / 30) for name, value in MEASURED.items()} | {"gender": ("female", "male")[n % 2]}
        for n in range(11)
    ]
    return [{"segment_id": f"{n:02}", **shared, **found} for n, found in enumerate([*measured, {}])]


@pytest.mark.parametrize("name", [name for name in ANNOTATORS.ours if not provider(name).listens])
def test_an_annotator_answers_for_every_clip_in_order(name: str) -> None:
    made = provider(name)
    table = to_table(rows(), INDEX)

    def kept(columns: Sequence[str]) -> Iterator[pa.Table]:
        yield table.select(list(columns))

    made.prepare(kept)
    answers = made.describe([Clip(row) for row in table.to_pylist()])
    assert [answer.segment_id for answer in answers] == [f"{n:02}" for n in range(12)]
    for answer in answers:
        assert (answer.description is None) == (answer.error is not None)
    described = [answer.description for answer in answers[:11] if answer.description]
    assert len(described) == 11
    for description in described:
        brief, full = description.caption("brief"), description.caption("full")
        assert brief and len(brief.split()) <= 8 and full and 10 <= len(full.split()) <= 40
        assert not any("good evening" in caption.text for caption in description.captions)
    assert [answer.description for answer in made.describe([Clip(row) for row in table.to_pylist()])][:11] == described
