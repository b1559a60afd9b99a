"""Voice prints, groups of voices, and the pairs mined from them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import make_stage, run_stages, session_of, session_of_samples

from catalogs.corpus.thresholds import Thresholds
from pipeline.audio.mel import mel_filters
from pipeline.records import PCM_RATE, Segment, Session
from pipeline.stage import Stage
from pipeline.voice.clusters import cluster
from pipeline.voice.gender import gender_of, voice_logit, witnesses
from pipeline.voice.purity import LEAST_PURITY, purity
from pipeline.voice.references import mine


@pytest.fixture(scope="module")
def embed() -> Stage[Any]:
    return make_stage("embed_speaker")


@pytest.fixture(scope="module")
def ravdess(corpora: Path, embed: Stage[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(prints [N, 256], speakers [N]) of the calm and neutral clips of twelve actors."""
    rows = map(json.loads, (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    chosen = [row for row in rows if row["corpus"] == "RAVDESS" and row["emotion"] in ("neutral", "calm")]
    decode = make_stage("decode")
    prints: list[np.ndarray] = []
    for row in chosen:
        session = decode(session_of(corpora / row["path"]))
        recording = session.recordings[0]
        session.segments = [Segment(recording.source.source_id, 0, 0.5, recording.duration_s - 0.5)]
        embedding = embed(session).segments[0].embedding
        assert embedding is not None
        prints.append(embedding)
    return np.stack(prints), np.array([row["speaker"] for row in chosen])


def test_prints_tell_speakers_apart(ravdess: tuple[np.ndarray, np.ndarray]) -> None:
    prints, speakers = ravdess
    assert prints.shape == (36, 256)
    assert np.allclose(np.linalg.norm(prints, axis=1), 1.0, atol=1e-5)
    cosine = prints @ prints.T
    same = speakers[:, None] == speakers[None]
    upper = np.triu(np.ones_like(same), k=1).astype(bool)
    own, other = cosine[same & upper], cosine[~same & upper]
    assert np.median(own) > 0.75 and np.median(other) < 0.6
    assert (own[:, None] > other[None]).mean() > 0.95


def test_the_closest_clip_is_of_the_same_actor(ravdess: tuple[np.ndarray, np.ndarray]) -> None:
    prints, speakers = ravdess
    cosine = prints @ prints.T - 2 * np.eye(len(prints))
    assert (speakers[cosine.argmax(axis=1)] == speakers).mean() > 0.8


def test_prints_do_not_depend_on_the_level_and_silence_has_none(corpora: Path, embed: Stage[Any]) -> None:
    audio = run_stages(session_of(corpora / "read" / "jfk.flac"), "decode").windows[0].pcm / np.float32(32768)
    session = session_of_samples(audio * 0.1, audio * 0.02, np.zeros(PCM_RATE))
    for seq, recording in enumerate(session.recordings):
        session.segments.append(Segment(recording.source.source_id, seq, 0.0, recording.duration_s))
    embed(session)
    loud, soft, silent = (segment.embedding for segment in session.segments)
    assert loud is not None and soft is not None
    assert float(loud @ soft) > 0.99
    assert session.segments[0].speaker == session.segments[1].speaker
    assert silent is None and session.segments[2].speaker is None
    assert not session.quarantine


def test_purity_is_low_where_two_voices_speak(corpora: Path, embed: Stage[Any]) -> None:
    man, woman = (
        run_stages(session_of(corpora / "ravdess" / clip), "decode").windows[0].pcm[PCM_RATE:-PCM_RATE]
        / np.float32(32768)
        for clip in ("actor_09/03-01-01-01-01-01-09.flac", "actor_04/03-01-01-01-01-01-04.flac")
    )
    session = session_of_samples(np.concatenate([man, man]), np.concatenate([man, woman]))
    for seq, recording in enumerate(session.recordings):
        session.segments.append(Segment(recording.source.source_id, seq, 0.0, recording.duration_s))
    embed(session)
    one, two = (segment.speaker_purity for segment in session.segments)
    assert one is not None and two is not None and one > two + 0.05


def voices_of(corpora: Path) -> dict[str, list[np.ndarray]]:
    """Two utterances of 2.5 to 6 s of each reader, at one level and without the silence around them."""
    rows = map(json.loads, (corpora / "world" / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    paths: dict[str, list[Path]] = {}
    seconds: Counter[str] = Counter()
    for row in rows:
        if row["corpus"] in ("AISHELL-3", "LibriSpeech", "KAIST-Selvas-Main", "VCTK") and not row.get("fault"):
            paths.setdefault(str(row["speaker"]), []).append(corpora / "world" / row["path"])
            seconds[str(row["speaker"])] += row["duration_s"]
    found = {}
    for speaker, own in paths.items():
        if seconds[speaker] < 5.0:
            continue  # Less than two utterances.
        session = run_stages(session_of(*own), "decode", "detect_speech", "segment")
        longer = [session.audio(s)[: 6 * PCM_RATE] for s in session.alive() if s.duration_s > 2.5]
        if len(longer) >= 2:
            found[speaker] = [clip * (0.05 / np.sqrt(np.mean(np.square(clip)))) for clip in longer[:2]]
    return found


def purities(embed: Stage[Any], clips: list[np.ndarray]) -> np.ndarray:
    session = session_of_samples(*clips)
    for seq, recording in enumerate(session.recordings):
        session.segments.append(Segment(recording.source.source_id, seq, 0.0, recording.duration_s))
    embed(session)
    assert [reason for s in session.segments for reason in Thresholds(require_text=False).reasons(vars(s))] == [
        "mixed_speakers" for s in session.segments if (s.speaker_purity or 1) < LEAST_PURITY["ge2e"]
    ]
    return np.array([segment.speaker_purity for segment in session.segments])


def test_a_second_voice_without_a_pause_is_noticed(corpora: Path, embed: Stage[Any]) -> None:
    voices = voices_of(corpora)
    assert len(voices) >= 6
    names = sorted(voices)
    following = {name: names[(i + 1) % len(names)] for i, name in enumerate(names)}
    half = PCM_RATE // 2
    spliced, overlapped = [], []
    for name in names:
        first, second = voices[name][0], voices[following[name]][1]
        spliced.append(np.concatenate([first, second]))
        both = first[-half:] + second[:half]
        overlapped.append(np.concatenate([first[:-half], both, second[half:]]))
    least = LEAST_PURITY["ge2e"]
    single = purities(embed, [clip for own in voices.values() for clip in own])
    assert (single < least).mean() <= 0.05
    assert (purities(embed, spliced) < least).mean() >= 0.7
    assert (purities(embed, overlapped) < least).mean() >= 0.7


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_purity_is_the_worst_cosine_over_all_runs_of_windows(seed: int, count: int) -> None:
    prints = np.abs(np.random.default_rng(seed).normal(size=(count, 12))).astype(np.float32)
    prints /= np.linalg.norm(prints, axis=1, keepdims=True)
    found = []
    for first in range(count):
        for last in range(first + 1, count + 1):
            if last - first < count:
                run, rest = prints[first:last].sum(axis=0), np.delete(prints, np.s_[first:last], axis=0).sum(axis=0)
                found.append(run @ rest / np.linalg.norm(run) / np.linalg.norm(rest))
    assert purity(prints) == pytest.approx(min(found), abs=1e-5)


def test_purity_of_one_window_is_not_known() -> None:
    assert purity(np.ones((1, 4)) / 2) is None
    assert purity(np.ones((3, 4)) / 2) == pytest.approx(1.0)
    assert purity(np.eye(2)) == pytest.approx(0.0, abs=1e-6)


def test_mel_filters_have_equal_area() -> None:
    filters = mel_filters(40, 400, 16_000)
    assert filters.shape == (40, 201) and (filters >= 0).all()
    # Narrow triangles are sampled coarsely by the bins: only wide ones show their area.
    assert np.allclose(filters[20:].sum(axis=1) * 40.0, 1.0, atol=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_planted_groups_are_found_and_numbered_by_first_appearance(seed: int, groups: list[int]) -> None:
    rng = np.random.default_rng(seed)
    middles = np.linalg.qr(rng.normal(size=(64, 4)))[0].T
    prints = middles[groups] + rng.normal(0, 0.03, (len(groups), 64))
    prints /= np.linalg.norm(prints, axis=1, keepdims=True)
    labels = cluster(prints.astype(np.float32), 0.6)
    first: dict[int, int] = {}
    assert labels.tolist() == [first.setdefault(group, len(first)) for group in groups]


def test_clustering_of_nothing_and_of_equals() -> None:
    assert cluster(np.zeros((0, 8)), 0.7).tolist() == []
    assert cluster(np.ones((1, 4)) / 2, 0.7).tolist() == [0]
    assert cluster(np.ones((5, 4), dtype=np.float32) / 2, 1.0).tolist() == [0] * 5


@st.composite
def mined(draw: st.DrawFn) -> list[Segment]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    segments, now = [], 0.0
    for seq in range(draw(st.integers(0, 25))):
        length = draw(st.sampled_from([0.6, 1.4999, 1.5, 3.0, 12.0]))
        recording = draw(st.sampled_from(["a", "a", "a", "b"])) if seq else "a"
        segment = Segment(recording, seq, now, now + length, segment_id=f"id{seq}")
        if draw(st.integers(0, 9)):
            vector = rng.normal(size=6) + np.array([draw(st.sampled_from([-3.0, 3.0])), 0, 0, 0, 0, 0])
            segment.embedding = (vector / np.linalg.norm(vector)).astype(np.float32)
        segments.append(segment)
        now += length + 0.3
    return sorted(segments, key=lambda segment: (segment.source_id, segment.seq))


@settings(max_examples=150, deadline=None)
@given(mined(), st.floats(-0.5, 0.95), st.integers(1, 6))
def test_no_mined_pair_breaks_a_rule(segments: list[Segment], threshold: float, per_segment: int) -> None:
    by_id = {segment.segment_id: (place, segment) for place, segment in enumerate(segments)}
    pairs = mine(segments, threshold, 1.5, per_segment)
    found: dict[str, list[float]] = {}
    for pair in pairs:
        place, segment = by_id[pair.segment_id]
        other, reference = by_id[pair.reference_id]
        assert segment.embedding is not None and reference.embedding is not None
        assert pair.cosine == pytest.approx(float(segment.embedding @ reference.embedding), abs=1e-5)
        assert pair.cosine > threshold
        assert place != other and pair.gap == place - other and pair.gap != 1
        assert reference.duration_s >= 1.5
        found.setdefault(pair.segment_id, []).append(pair.cosine)
    assert all(len(cosines) <= per_segment and cosines == sorted(cosines, reverse=True) for cosines in found.values())
    assert len({(pair.segment_id, pair.reference_id) for pair in pairs}) == len(pairs)
    # Nothing that may be paired is left out while there is room.
    for place, segment in enumerate(segments):
        if segment.embedding is None:
            assert segment.segment_id not in found
            continue
        allowed = [
            other
            for number, other in enumerate(segments)
            if number not in (place, place - 1)
            and other.embedding is not None
            and other.duration_s >= 1.5
            and float(segment.embedding @ other.embedding) > threshold + 1e-5
        ]
        assert len(found.get(segment.segment_id, [])) >= min(per_segment, len(allowed))


def test_mining_leaves_out_what_was_rejected(corpora: Path) -> None:
    session = Session("s", "0" * 16, "/nowhere", [])
    print_ = np.array([1.0, 0.0], dtype=np.float32)
    for seq in range(4):
        segment = Segment("a", seq, seq * 3.0, seq * 3.0 + 2, segment_id=f"id{seq}", embedding=print_)
        session.segments.append(segment)
    session.segments[1].hard_reasons.append("too_short")
    make_stage("mine_references")(session)
    assert {(pair.segment_id, pair.reference_id) for pair in session.references} == {
        ("id0", "id2"),
        ("id0", "id3"),
        ("id2", "id3"),
        ("id3", "id0"),
    }


@pytest.mark.parametrize(
    ("pitches", "formants", "expected"),
    [
        ([100.0, 120.0, 130.0], [3500.0, 3450.0, 3600.0], "male"),
        ([210.0, 190.0, 240.0], [4000.0, 4100.0, 4050.0], "female"),
        ([220.0, 230.0, 215.0], [3250.0, 3200.0, 3300.0], "male"),
        ([100.0, 105.0, 98.0], [None, None, None], "male"),
        ([150.0, 150.0], [3800.0, 3850.0], None),
        ([270.0, 280.0], [3500.0, 3450.0], None),
    ],
)
def test_gender_by_pitch_and_tract_of_the_whole_voice(
    pitches: list[float], formants: list[float | None], expected: str | None
) -> None:
    voice = [
        Segment("a", seq, 0.0, 2.0, pitch_low_hz=pitch, formant_hz=formant, voiced_share=0.5)
        for seq, (pitch, formant) in enumerate(zip(pitches, formants, strict=True))
    ]
    gender, p = gender_of(voice)
    assert gender == expected and (p is None) == (expected is None)
    assert p is None or 0.9 <= p <= 1
    assert gender_of([Segment("a", 0, 0.0, 1.0)]) == (None, None)


def test_a_voiceprint_decides_what_pitch_and_tract_leave_open_but_in_wide_band_only() -> None:
    """The weights' own direction stands for a clear voice of either gender."""
    clear = witnesses().voiceprint / np.linalg.norm(witnesses().voiceprint)

    def voice(voiceprint: np.ndarray | None, formant: float | None = 3800.0, pitch: float = 150.0) -> list[Segment]:
        print_ = None if voiceprint is None else voiceprint.astype(np.float32)
        return [Segment("a", 0, 0.0, 2.0, pitch_low_hz=pitch, formant_hz=formant, voiced_share=0.5, embedding=print_)]

    assert clear.shape == (256,) and gender_of(voice(None)) == (None, None)
    assert gender_of(voice(clear))[0] == "female" and gender_of(voice(-clear))[0] == "male"
    assert gender_of(voice(clear, pitch=280.0)) == (None, None), "a child or shouting"
    alone = voice_logit(voice(None, formant=None))
    assert voice_logit(voice(clear, formant=None)) == alone, "narrow-band audio"
    assert voice_logit(voice(np.ones(192) / 192**0.5)) == voice_logit(voice(None)), "another encoder"
