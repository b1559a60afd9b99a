"""Copies are known again after codecs, telephones and cuts; other audio of the same voice is not; groups stay what they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_damage import DAMAGES

from catalogs.corpus.duplicates import KINDS
from pipeline.duplicates.audio_print import FRAME_S, SILENT, audio_print, sha256_of
from pipeline.duplicates.groups import Link, duplicate_rows, exact_links, links_of
from pipeline.duplicates.match import compare, limit, match_prints
from pipeline.duplicates.same_text import VoiceGroups, text_key
from pipeline.records import PCM_RATE


@pytest.fixture(scope="module")
def clips(corpora: Path) -> list[np.ndarray]:
    """Ninety acted clips of three voices in two languages: few sentences, said again and again."""
    rows = map(json.loads, (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    chosen = [row for row in rows if row["speaker"] in ("ravdess_01", "ravdess_02", "emodb_03", "emodb_08")][:90]
    found = []
    for row in chosen:
        samples, rate = soundfile.read(corpora / row["path"], dtype="float32")
        found.append(soxr.resample(samples, rate, PCM_RATE) if rate != PCM_RATE else samples)
    return found


@pytest.fixture(scope="module")
def prints(clips: list[np.ndarray]) -> list[np.ndarray]:
    """Of each clip. Not to be changed."""
    return [audio_print(clip) for clip in clips]


def test_takes_of_the_same_sentence_are_no_copies(prints: list[np.ndarray]) -> None:
    assert match_prints(prints) == []


@pytest.mark.parametrize(
    "name", ["mp3_64k", "opus_32k", "aac_64k", "telephone", "gain", "offset", "noise_20db", "chain"]
)
def test_damaged_copies_are_found(clips: list[np.ndarray], prints: list[np.ndarray], name: str) -> None:
    chosen = clips[::3]
    matches = match_prints(prints + [audio_print(DAMAGES[name](clip)) for clip in chosen])
    found = {match.second - len(clips): match for match in matches if match.second >= len(clips)}
    right = [k for k, match in found.items() if match.first == 3 * k]
    assert len(right) == len(found), "a copy of one clip was taken for another's"
    assert len(right) >= 0.95 * len(chosen)
    assert {link.kind for link in links_of(found.values())} == {"reencode"}


def test_an_offset_is_told_in_words(clips: list[np.ndarray]) -> None:
    (match,) = match_prints([audio_print(clips[0]), audio_print(clips[0][round(10 * FRAME_S * PCM_RATE) :])])
    assert match.offset == 10 and match.errors == 0.0 and match.of_second == 1.0


def test_a_jingle_before_different_speech_is_a_part(clips: list[np.ndarray]) -> None:
    jingle = clips[4]
    one, two = (np.concatenate([jingle, clips[k], clips[k + 1], clips[k + 2]]) for k in (10, 50))
    (match,) = match_prints([audio_print(one), audio_print(DAMAGES["mp3_64k"](two))])
    assert links_of([match])[0].kind == "part"
    assert match.words == pytest.approx((audio_print(jingle) != SILENT).sum(), rel=0.2)


def test_many_copies_of_one_clip_become_one_group_without_comparing_all_pairs(
    clips: list[np.ndarray], prints: list[np.ndarray]
) -> None:
    copies = [DAMAGES["noise_20db"](clips[7] * level) for level in np.linspace(0.2, 1.0, 60)]
    matches = match_prints([*prints, *map(audio_print, copies)])
    ids = [f"s{k:03d}" for k in range(len(prints) + len(copies))]
    rows = duplicate_rows(ids, [None] * len(ids), links_of(matches), {})
    assert {row["segment_id"] for row in rows} == {"s007", *ids[len(clips) :]}
    assert {row["duplicate_group"] for row in rows} == {"s007"}
    assert len(matches) < 60 * 30


def test_prints_do_not_depend_on_the_gain_and_silence_has_no_words(clips: list[np.ndarray]) -> None:
    words = audio_print(clips[0])
    assert np.array_equal(words, audio_print(clips[0] * 0.01))
    padded = audio_print(np.concatenate([np.zeros(PCM_RATE * 2, np.float32), clips[0]]))
    assert (padded[:40] == SILENT).all()
    assert len(audio_print(np.zeros(5000, np.float32))) == 0
    assert match_prints([]) == [] and match_prints([words[:0], words[:5]]) == []


def test_the_hash_is_of_the_samples_alone(clips: list[np.ndarray], tmp_path: Path) -> None:
    pcm = (clips[0] * 32767).astype(np.int16)
    hashes = set()
    for name in ("a.wav", "a.flac", "a.aiff"):
        soundfile.write(tmp_path / name, pcm, PCM_RATE, subtype="PCM_16")
        hashes.add(sha256_of(soundfile.read(tmp_path / name, dtype="int16")[0]))
    assert len(hashes) == 1
    pcm[100] += 1
    assert sha256_of(pcm) not in hashes


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(10, 200), st.integers(-20, 20), st.floats(0, 0.12))
def test_planted_errors_and_offsets_are_measured(seed: int, length: int, shift: int, share: float) -> None:
    dice = np.random.default_rng(seed)
    whole = dice.integers(1, 2**16, length + 40, dtype=np.uint16)
    flips = (dice.random((len(whole), 16)) < share) @ (1 << np.arange(16))
    one = whole[20 : 20 + length]
    two = np.maximum(whole ^ flips.astype(np.uint16), 1)[20 + shift : 20 + shift + length]
    match = compare(one, two, shift)
    overlap = length - abs(shift)
    if overlap < 10 or (overlap < 24 and overlap < 0.7 * length):
        assert match is None, "less than 0.65 s, or a part of 0.8 s that is not most of either clip, says nothing"
        return
    if share < 0.05:
        assert match is not None and match.offset == shift
        assert match.errors == pytest.approx(share, abs=0.08) and match.errors <= limit(match.words)
    stranger = dice.integers(1, 2**16, length, dtype=np.uint16)
    assert compare(one, stranger, 0) is None


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 25).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.sampled_from(KINDS[1:])), max_size=20),
            st.lists(st.integers(0, 3), min_size=n, max_size=n),
        )
    )
)
def test_groups_hold_together_and_keep_their_name_when_more_comes(
    drawn: tuple[int, list[tuple[int, int, str]], list[int]],
) -> None:
    count, pairs, values = drawn
    ids = [f"s{k:02d}" for k in range(count)]
    hashes = [None if value == 0 else f"h{value}{k % 4}" for k, value in enumerate(values)]
    links = exact_links(hashes) + [Link(min(a, b), max(a, b), kind) for a, b, kind in pairs if a != b]
    rows = {row["segment_id"]: row for row in duplicate_rows(ids, hashes, links, {})}
    for link in links:
        one, two = rows[ids[link.first]], rows[ids[link.second]]
        assert one["duplicate_group"] == two["duplicate_group"]
    assert set(rows) == {ids[place] for link in links for place in (link.first, link.second)}
    for segment, row in rows.items():
        assert (row["duplicate_of"] is None) == (row["duplicate_kind"] is None)
        if row["duplicate_of"] is None:
            assert row["duplicate_group"] == segment
        else:
            first = rows[row["duplicate_of"]]
            assert first["segment_id"] < segment and first["duplicate_group"] == row["duplicate_group"]
            # The first that is named is not itself a copy.
            assert first["duplicate_kind"] not in ("exact", "reencode") or row["duplicate_kind"] in (
                "part",
                "same_text",
            )
    # A later run brings a segment that comes before all others and is a copy of everything that is linked.
    more = ["r", *ids]
    later = [Link(link.first + 1, link.second + 1, link.kind) for link in links]
    later += [Link(0, ids.index(segment) + 1, "reencode") for segment in rows]
    again = {row["segment_id"]: row for row in duplicate_rows(more, [None, *hashes], later, rows)}
    if rows:
        names = {row["duplicate_group"] for row in rows.values()}
        assert {row["duplicate_group"] for row in again.values()} == {min(names)}
        assert again["r"]["duplicate_of"] is not None


def test_the_same_voice_and_another() -> None:
    voices = VoiceGroups(0.78)
    assert voices.first_of(7, np.array([1.0, 0.0])) is None
    assert voices.first_of(8, np.array([0.0, 1.0])) is None
    assert voices.first_of(9, np.array([0.95, 0.31])) == 7
    assert voices.first_of(10, np.array([0.31, 0.95])) == 8
    many = VoiceGroups(0.99)
    for place, own in enumerate(np.eye(40)):
        assert many.first_of(place, own) is None
    assert [many.first_of(99, own) for own in np.eye(40)] == list(range(40))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Good evening, everyone!", "goodeveningeveryone"),
        ("good evening everyone", "goodeveningeveryone"),
        ("yes, of course", None),
        ("晚上好，各位", "晚上好各位"),
        ("好的", None),
        (None, None),
    ],
)
def test_texts_are_compared_by_their_letters(text: str | None, key: str | None) -> None:
    assert text_key(text) == key
