"""Reference pairs: each rule by itself, and all of them against a plain search over all pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import make_stage

from pipeline.records import Segment, Session
from pipeline.voice import references
from pipeline.voice.references import ReferenceQuality, contents, mine

QUALITY = ReferenceQuality(min_dnsmos_ovr=2.4, min_snr_db=15.0, min_speaker_purity=0.7)
NEAR = st.sampled_from


def voice(seq: int, angle: float = 0.0, **fields: Any) -> Segment:
    """A clip of 3 s whose voiceprint lies at an angle, in radians."""
    vector = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    segment = Segment("a", seq, seq * 4.0, seq * 4.0 + 3.0, segment_id=f"id{seq}", embedding=vector)
    return replace(segment, **fields)


def pairs(segments: list[Segment], **options: object) -> set[tuple[int, int]]:
    """Numbers of (segment, reference) that are mined."""
    found = mine(segments, **({"threshold": 0.5, "min_s": 1.5, "per_segment": 9} | options))  # type: ignore[arg-type]
    return {(int(pair.segment_id[2:]), int(pair.reference_id[2:])) for pair in found}


def test_a_reference_is_of_the_same_speaker() -> None:
    names = ["x", "y", "x", None, "y", None]
    assert pairs([voice(seq, speaker=name) for seq, name in enumerate(names)]) == {
        (0, 2), (2, 0), (1, 4), (4, 1), (3, 5), (5, 3),
    }  # fmt: skip


@pytest.mark.parametrize(("column", "least"), [("dnsmos_ovr", 2.4), ("snr_db", 15.0), ("speaker_purity", 0.7)])
def test_a_reference_has_the_quality_that_is_asked_for(column: str, least: float) -> None:
    columns: list[dict[str, Any]] = [{column: least}, {}, {column: least - 0.01}, {column: None}]
    segments = [voice(seq, **changed) for seq, changed in enumerate(columns)]
    assert {reference for _, reference in pairs(segments, quality=QUALITY)} == {0, 1, 3}
    assert {reference for _, reference in pairs(segments, quality=ReferenceQuality())} == {0, 1, 2, 3}
    assert {reference for _, reference in pairs(segments)} == {0, 1, 2, 3}


def test_the_stage_asks_for_quality(corpora: object) -> None:
    session = Session("s", "0" * 16, "/nowhere", [])
    bad = {1: {"dnsmos_ovr": 2.3}, 3: {"snr_db": 14.0}, 5: {"speaker_purity": 0.6}}
    session.segments = [voice(seq, **bad.get(seq, {})) for seq in range(7)]
    make_stage("mine_references")(session)
    assert {pair.reference_id for pair in session.references} == {"id0", "id2", "id4", "id6"}
    assert len({pair.segment_id for pair in session.references}) == 7


def test_a_reference_says_something_else() -> None:
    texts = ["Good evening!", "What is that?", "good, evening", None, None, "...", "..."]
    found = pairs([voice(seq, text=text) for seq, text in enumerate(texts)])
    assert not found & {(0, 2), (2, 0)} and {(0, 1), (3, 0), (3, 5), (5, 3), (6, 3)} <= found
    assert (3, 4) in found and (5, 6) in found, "clips without words say nothing that is the same"


def test_a_reference_is_not_a_copy() -> None:
    hashes = ["h", "i", "h", None, None]
    found = pairs([voice(seq, audio_sha256=value) for seq, value in enumerate(hashes)])
    assert not found & {(0, 2), (2, 0)} and {(0, 1), (2, 3), (3, 4), (3, 0)} <= found


def test_a_reference_shares_no_audio() -> None:
    dice = np.random.default_rng(1)
    prints = [dice.integers(1, 2**16, 60, dtype=np.uint16) for _ in range(4)]
    copy = prints[0] ^ np.uint16(1)
    part = prints[1][10:50]
    segments = [voice(seq, audio_print=words) for seq, words in enumerate([*prints, copy, part, None, None])]
    found = pairs(segments)
    assert not found & {(0, 4), (4, 0), (1, 5), (5, 1)}
    assert {(0, 1), (0, 2), (2, 0), (6, 7), (7, 0)} <= found
    said = contents(segments)
    assert said[0] == said[4] and said[1] == said[5] and len({said[0], said[1], said[2], said[6], said[7]}) == 5


def test_of_several_that_say_the_same_the_closest_is_taken() -> None:
    angles, texts = [0.0, 0.5, 0.3, 0.4, 0.6, 0.35], ["own", "a", "a", "b", "b", "c"]
    segments = [voice(seq, angle, text=text) for seq, (angle, text) in enumerate(zip(angles, texts, strict=True))]
    found = [int(pair.reference_id[2:]) for pair in mine(segments, 0.5, 1.5, 9) if pair.segment_id == "id0"]
    assert found == [2, 5, 3]
    found = [int(pair.reference_id[2:]) for pair in mine(segments, 0.5, 1.5, 2) if pair.segment_id == "id0"]
    assert found == [2, 5]


def test_eight_repetitions_do_not_crowd_out_another_sentence() -> None:
    segments = [voice(0, text="own")] + [voice(seq, 0.01 * seq, text="again and again") for seq in range(1, 15)]
    segments.append(voice(15, 0.5, text="something else"))
    assert {reference for segment, reference in pairs(segments, per_segment=2) if segment == 0} == {1, 15}


def test_a_long_session_is_searched_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(2)
    segments = [
        voice(seq, float(angle), text=f"{number}", speaker=f"{seq % 3}")
        for seq, (angle, number) in enumerate(zip(dice.normal(0, 0.5, 50), dice.integers(0, 30, 50), strict=True))
    ]
    segments[7] = replace(segments[7], embedding=None)
    whole = [(pair.segment_id, pair.reference_id, pair.gap) for pair in mine(segments, 0.6, 1.5, 3)]
    assert len(whole) > 100
    for rows in (1, 7, 48, 49):
        monkeypatch.setattr(references, "_ROWS", rows)
        assert [(pair.segment_id, pair.reference_id, pair.gap) for pair in mine(segments, 0.6, 1.5, 3)] == whole


@st.composite
def session(draw: st.DrawFn) -> list[Segment]:
    """Up to 14 clips, some without voiceprint, that differ in everything that the rules look at."""
    dice = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    segments = []
    for seq in range(draw(st.integers(0, 14))):
        segment = voice(
            seq,
            float(dice.normal(0, 0.7)),
            end_s=seq * 4.0 + draw(NEAR([1.4999, 1.5, 3.0, 3.0])),
            speaker=draw(NEAR(["x", "x", "y", None])),
            text=draw(NEAR(["Yes.", "yes", "no", "maybe", None, "!"])),
            audio_sha256=draw(NEAR(["h", "i", None, None])),
            snr_db=draw(NEAR([None, 14.9, 15.0, 30.0])),
            dnsmos_ovr=draw(NEAR([None, 2.3, 2.4, 3.0])),
        )
        segments.append(segment if draw(st.integers(0, 5)) else replace(segment, embedding=None))
    return segments


def same(segments: list[Segment], one: int, two: int) -> bool:
    """Whether two clips are linked by letters or hashes, through others as well."""
    reached, waiting = {one}, [one]
    while waiting:
        a = segments[waiting.pop()]
        for place, b in enumerate(segments):
            letters = [(s.text or "").strip(".!").casefold() for s in (a, b)]
            linked = (letters[0] and letters[0] == letters[1]) or (a.audio_sha256 and a.audio_sha256 == b.audio_sha256)
            if linked and b.embedding is not None and place not in reached:
                reached.add(place)
                waiting.append(place)
    return two in reached


@settings(max_examples=150, deadline=None)
@given(session(), NEAR([-0.5, 0.3, 0.8]), st.integers(1, 4), st.booleans())
def test_mining_finds_what_a_search_over_all_pairs_finds(
    segments: list[Segment], threshold: float, per_segment: int, strict: bool
) -> None:
    quality = QUALITY if strict else None
    found: dict[str, list[tuple[str, int]]] = {}
    for pair in mine(segments, threshold, 1.5, per_segment, quality):
        found.setdefault(pair.segment_id, []).append((pair.reference_id, pair.gap))
    for here, segment in enumerate(segments):
        ranked = []
        for there, other in enumerate(segments):
            if segment.embedding is None or other.embedding is None or here - there in (0, 1):
                continue
            good = not strict or ((other.snr_db or 15) >= 15 and (other.dnsmos_ovr or 2.4) >= 2.4)
            cosine = float(segment.embedding @ other.embedding)
            if cosine > threshold and good and other.duration_s >= 1.5 and segment.speaker == other.speaker:
                ranked.append((-cosine, there))
        wanted: list[tuple[str, int]] = []
        taken: list[int] = [here]
        for _, there in sorted(ranked):
            if len(wanted) < per_segment and not any(same(segments, there, other) for other in taken):
                wanted.append((segments[there].segment_id, here - there))
                taken.append(there)
        assert found.get(segment.segment_id, []) == wanted


def test_the_threshold_itself_is_not_enough_and_two_clips_are() -> None:
    segments = [voice(0), voice(1, np.pi / 3)]
    cosine = float(np.asarray(segments[0].embedding) @ np.asarray(segments[1].embedding))
    assert pairs(segments, threshold=cosine - 0.001) == {(0, 1)}
    one = [voice(0), voice(1)]
    assert pairs(one, threshold=1.0) == set() and pairs(one, threshold=0.999) == {(0, 1)}
    assert pairs(segments[:1]) == set() and pairs([]) == set()
