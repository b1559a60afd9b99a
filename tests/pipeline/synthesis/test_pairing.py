"""Pairs: distant texts of the same language, caps that hold, nothing that may be held out, the same choice every time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from described_speech import ENGLISH, GERMAN, described_corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogs.candidates.held_out import held_out_draw
from catalogs.corpus.reader import Corpus
from catalogs.query.views import QueryError
from pipeline.synthesis.pairing import find_pairs
from pipeline.synthesis.pairs import Pair
from pipeline.synthesis.settings import PairingConfig
from pipeline.synthesis.texts.content_words import content_words
from pipeline.synthesis.texts.distance import is_distant

WIDE = PairingConfig(held_out=0.0, length=3.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sessions, English and German."""
    sessions = [
        [("en", text) for text in ENGLISH],
        [("de", text) for text in GERMAN],
        [("en", text) for text in ENGLISH[::-1]],
    ]
    return described_corpus(tmp_path_factory.mktemp("pairs") / "corpus", sessions)


def rows_of(corpus: Path) -> dict[str, dict[str, object]]:
    return {row["segment_id"]: row for row in Corpus(corpus)}


def paired(pairs: list[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.reason is None]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    per_text=st.integers(1, 3),
    least_per_voice=st.integers(1, 9),
    least_per_style=st.integers(1, 9),
    per_segment=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_pairs_are_distant_and_caps_hold(
    corpus: Path, per_text: int, least_per_voice: int, least_per_style: int, per_segment: int, seed: int
) -> None:
    config = WIDE.model_copy(
        update={
            "per_text": per_text,
            "least_per_voice": least_per_voice,
            "least_per_style": least_per_style,
            "per_voice": 0.01,
            "per_style": 0.01,
            "per_segment": per_segment,
        }
    )
    rows = rows_of(corpus)
    pairs = find_pairs(corpus, config, seed).pairs
    found = paired(pairs)
    for pair in found:
        source, text = rows[pair.described_id], rows[str(pair.text_id)]
        assert pair.language == source["language"] == text["language"]
        assert pair.text == text["text"] != source["text"]
        assert not content_words(str(pair.text), pair.language) & content_words(str(source["text"]), pair.language)
        assert is_distant(str(source["text"]), str(pair.text), pair.language) is None
        assert pair.timbre_id not in (None, pair.described_id) and pair.distance_rule and pair.relatedness is not None
    assert max(Counter(pair.text for pair in found).values(), default=0) <= per_text
    assert max(Counter(rows[pair.described_id]["speaker"] for pair in found).values(), default=0) <= least_per_voice
    assert max(Counter(pair.caption for pair in found).values(), default=0) <= least_per_style
    assert max(Counter(pair.described_id for pair in found).values(), default=0) <= per_segment
    # Every described segment is either paired or has one reason.
    assert {pair.described_id for pair in pairs} == rows.keys()
    assert all(count == 1 for count in Counter(p.described_id for p in pairs if p.reason is not None).values())
    assert find_pairs(corpus, config, seed).pairs == pairs


def test_a_later_run_adds_and_changes_nothing(corpus: Path) -> None:
    config = WIDE.model_copy(update={"per_text": 2})
    pairs = find_pairs(corpus, config, 0).pairs
    first = paired(pairs)
    assert find_pairs(corpus, config, 0, first).pairs[: len(first)] == first
    assert len(paired(find_pairs(corpus, config, 0, first).pairs)) == len(first)
    some = first[:5]
    rest = paired(find_pairs(corpus, config, 0, some).pairs)[5:]
    assert rest and not {pair.described_id for pair in some} & {pair.described_id for pair in rest}
    assert max(Counter(pair.text for pair in some + rest).values()) <= 2


def test_what_may_be_held_out_is_neither_cloned_nor_read(corpus: Path) -> None:
    share = 0.4
    held = {name for name in rows_of(corpus) if held_out_draw(name) < share}
    assert held
    pairs = find_pairs(corpus, WIDE.model_copy(update={"held_out": share}), 0).pairs
    for pair in paired(pairs):
        assert not held & {pair.described_id, pair.text_id, pair.timbre_id}
    assert {pair.described_id for pair in pairs if pair.reason == "held_out"} == held


def test_reasons_and_the_own_timbre(tmp_path: Path) -> None:
    # Two clips: the second may not have the first as its reference, and the first has none after it that is not adjacent.
    corpus = described_corpus(tmp_path / "c", [[("en", ENGLISH[0]), ("en", ENGLISH[1])]])
    reasons = {pair.described_id: pair.reason for pair in find_pairs(corpus, WIDE, 0).pairs}
    assert Counter(reasons.values())["no_reference"] >= 1
    own = find_pairs(corpus, WIDE.model_copy(update={"own_timbre": True}), 0).pairs
    assert {pair.reason for pair in own} == {None}
    assert any(pair.timbre_id == pair.described_id for pair in own)
    near = described_corpus(
        tmp_path / "d", [[("en", "the cat sleeps"), ("en", "the cats slept"), ("en", "a cat sleeps")]]
    )
    assert {pair.reason for pair in find_pairs(near, WIDE.model_copy(update={"own_timbre": True}), 0).pairs} == {
        "no_distant_text"
    }


def test_emotion_words_of_the_source_are_avoided(tmp_path: Path) -> None:
    lines = ["my neighbor paints wooden chairs", "she cried with grief and sorrow", "a cat slept under the warm stove"]
    corpus = described_corpus(tmp_path / "c", [[("en", text) for text in lines]], emotions=("sad",))
    pairs = paired(find_pairs(corpus, WIDE.model_copy(update={"own_timbre": True}), 0).pairs)
    assert pairs and all(pair.text != lines[1] for pair in pairs)


def test_a_condition_and_its_error(corpus: Path) -> None:
    pairs = find_pairs(corpus, WIDE.model_copy(update={"where": "language = 'de'"}), 0).pairs
    assert {pair.language for pair in pairs} == {"de"}
    with pytest.raises(QueryError, match="emotionn"):
        find_pairs(corpus, WIDE.model_copy(update={"where": "emotionn = 'sad'"}), 0)


def test_shares_hold_whatever_the_limit(corpus: Path) -> None:
    config = WIDE.model_copy(
        update={"per_text": 9, "per_voice": 0.5, "least_per_voice": 1, "per_style": 0.6, "least_per_style": 1}
    )
    for limit in (2, 5, 9, None):
        pairs = paired(find_pairs(corpus, config, 0, limit=limit).pairs)
        assert len(pairs) >= 2 and (limit is None or len(pairs) <= limit)
        assert max(Counter(pair.voice for pair in pairs).values()) <= max(1, 0.5 * len(pairs))
        assert max(Counter(pair.style for pair in pairs).values()) <= max(1, 0.6 * len(pairs))
    # Earlier pairs count, even if the present condition does not find them.
    german = paired(find_pairs(corpus, config, 0, limit=2).pairs)
    later = find_pairs(corpus, config.model_copy(update={"where": "language = 'en'"}), 0, german, 6)
    assert max(Counter(pair.voice for pair in paired(later.pairs)).values()) <= 3


def test_every_kept_segment_is_accounted_for(corpus: Path) -> None:
    found = find_pairs(corpus, WIDE.model_copy(update={"where": "language = 'de'", "per_segment": 1}), 0, limit=2)
    assert found.left_out["not_wanted"] == 2 * len(ENGLISH)
    assert len(paired(found.pairs)) == 2
    counted = len({pair.described_id for pair in found.pairs}) + sum(found.left_out.values())
    assert counted == len(rows_of(corpus))
    quiet = find_pairs(corpus, WIDE.model_copy(update={"min_expressive": 0.9}), 0)
    assert quiet.pairs == [] and quiet.left_out == {"not_expressive": len(rows_of(corpus))}


def test_earlier_pairs_are_checked_again(corpus: Path) -> None:
    pairs = paired(find_pairs(corpus, WIDE, 0).pairs)[:4]
    gone = replace(pairs[0], described_id="0" * 16)
    again = find_pairs(corpus, WIDE, 0, [gone, *pairs[1:]]).pairs
    assert [pair.reason for pair in again[:4]] == ["source_gone", None, None, None]
    held = find_pairs(corpus, WIDE.model_copy(update={"held_out": 0.99}), 0, pairs).pairs[:4]
    assert {pair.reason for pair in held} == {"held_out"}
    # And valid again when the reason is gone.
    assert {pair.reason for pair in find_pairs(corpus, WIDE, 0, held).pairs[:4]} == {None}
