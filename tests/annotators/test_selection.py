"""Which clips are paid for: a balanced order that more money extends."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.experts.emotion import expressive_score, resting_pitch
from annotators.paid.selection import Order, Selection, _Rows, order
from annotators.schema import KeptRows
from catalogs.corpus.schema import INDEX


def clips(count: int = 2000, seed: int = 1) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "segment_id": f"{seed}-{n:05}",
            "speaker": f"voice {chance.randrange(25)}" if chance.random() < 0.9 else None,
            "language": chance.choice(["en", "en", "en", "zh", None]),
            "expressive_p": chance.random() if chance.random() < 0.95 else None,
            "effort_db": chance.gauss(-14, 5) if chance.random() < 0.9 else None,
            "age": chance.choice([None] * 30 + ["child", "senior", "middle"]),
        }
        for n in range(count)
    ]


def kept(rows: list[dict[str, Any]], parts: int = 3) -> KeptRows:
    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        schema = pa.schema([INDEX.field(name) for name in columns])
        for part in range(parts):
            yield pa.Table.from_pylist([{c: r.get(c) for c in columns} for r in rows[part::parts]], schema=schema)

    return tables


def ids(rows: list[dict[str, Any]], found: Order, count: int | None = None) -> list[str]:
    table = next(kept(rows, 1)(["segment_id"]))
    chosen = found.first(count)(table).column("segment_id").to_pylist()
    return sorted(chosen, key=lambda segment: found.position(segment) or 0)


def test_more_money_extends_what_was_chosen() -> None:
    rows = clips()
    found = order(kept(rows))
    whole = ids(rows, found)
    assert len(whole) == len(found) > 500
    for count in (0, 1, 7, 100, 499, len(found)):
        assert ids(rows, found, count) == whole[:count]


def test_the_order_depends_on_the_clips_alone() -> None:
    rows = clips()
    once = ids(rows, order(kept(rows)))
    shuffled = rows[:]
    random.Random(3).shuffle(shuffled)
    assert ids(rows, order(kept(shuffled, 7))) == once


def test_expressive_clips_of_each_language_and_a_share_of_neutral_ones_are_chosen() -> None:
    rows = clips()
    by_id = {row["segment_id"]: row for row in rows}
    chosen = [by_id[segment] for segment in ids(rows, order(kept(rows), Selection(rare_ages=0)))]
    for language in ("en", "zh", None):
        known = sorted(r["expressive_p"] for r in rows if r["language"] == language and r["expressive_p"] is not None)
        top = known[round(0.7 * len(known)) :]
        mine = [r["expressive_p"] for r in chosen if r["language"] == language]
        assert sum(p >= top[0] for p in mine) >= len(top) - 1
        assert all(p >= top[0] or p <= known[len(known) // 2] for p in mine), "neither neutral nor expressive"
    assert 0.09 < (len(chosen) - 0.3 * 0.95 * len(rows)) / len(rows) < 0.11
    assert all(r["expressive_p"] is not None for r in chosen)


def test_any_cap_leaves_a_balanced_set() -> None:
    rows = clips(6000)
    by_id = {row["segment_id"]: row for row in rows}
    whole = [by_id[segment] for segment in ids(rows, order(kept(rows), Selection(rare_ages=0)))]
    for count in (60, 300, 900):
        first = whole[:count]
        languages = Counter(row["language"] for row in first)
        assert max(languages.values()) < 0.5 * count, (
            "three languages take turns though one has three fifths of the clips"
        )
        voices = Counter(row["speaker"] for row in first if row["speaker"])
        assert max(voices.values()) <= 3 * count / 25
        neutral = sum(row["expressive_p"] < 0.5 for row in first)
        assert abs(neutral / count - 0.25) < 0.05


def test_rare_ages_are_chosen_up_to_their_quota() -> None:
    rows = clips(3000)
    by_id = {row["segment_id"]: row for row in rows}
    for quota in (0, 10, 10_000):
        selection = Selection(expressive=0, neutral=0, rare_ages=quota)
        chosen = Counter(by_id[segment]["age"] for segment in ids(rows, order(kept(rows), selection)))
        for age in ("child", "senior"):
            assert chosen[age] == min(quota, sum(row["age"] == age for row in rows))
        assert set(chosen) <= {"child", "senior"}


def test_no_voice_has_more_clips_than_its_quota() -> None:
    rows = clips(3000)
    by_id = {row["segment_id"]: row for row in rows}
    chosen = [by_id[segment] for segment in ids(rows, order(kept(rows), Selection(per_speaker=5)))]
    voices = Counter(row["speaker"] for row in chosen)
    assert max(count for voice, count in voices.items() if voice) == 5
    assert voices[None] > 25, "clips without a voice are not one voice"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 40), st.integers(0, 10_000), st.floats(0, 0.5), st.floats(0, 0.5))
def test_every_chosen_clip_is_chosen_once(count: int, seed: int, expressive: float, neutral: float) -> None:
    rows = clips(count, seed)
    found = order(kept(rows), Selection(expressive, neutral))
    chosen = ids(rows, found)
    assert len(chosen) == len(found) == len(set(chosen)) <= count


def test_clips_are_ranked_by_what_is_expressive_for_their_voice() -> None:
    rows = [row | {"pitch_hz": random.Random(row["segment_id"]).uniform(80, 400)} for row in clips(300, seed=4)]
    rows[5]["pitch_hz"] = None
    found = _Rows(kept(rows))
    ordered = [row for part in range(3) for row in rows[part::3]]
    for place, row in enumerate(ordered):
        pitches = [r["pitch_hz"] for r in rows if r["speaker"] and r["speaker"] == row["speaker"] and r["pitch_hz"]]
        score = expressive_score(row, resting_pitch(pitches))
        expected = math.nan if score is None else score
        assert found.expressive[place] == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_without_measures_rare_ages_and_a_share_by_chance_are_chosen() -> None:
    rows = [{"segment_id": str(n), "age": "child" if n == 3 else None} for n in range(9)]
    found = ids(rows, order(kept(rows)))
    assert "3" in found and len(found) in (4, 5) and len(order(kept([]))) == 0
    table = next(kept(rows, 1)(["segment_id"]))
    assert set(order(kept(rows)).first()(table).column("segment_id").to_pylist()) == set(found)


def test_shares_that_are_none_are_refused() -> None:
    refused: list[dict[str, Any]] = [
        {"expressive": 1.2},
        {"expressive": 0.7, "neutral": 0.4},
        {"neutral": -0.1},
        {"per_speaker": 0},
    ]
    for wrong in refused:
        with pytest.raises(ValueError, match="selection"):
            Selection(**wrong)
