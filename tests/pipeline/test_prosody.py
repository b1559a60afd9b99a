"""Pitch of known tones and of real voices, and how well melody tells acted moods from neutral speech."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sessions import make_stage, session_of, session_of_samples

from pipeline.records import PCM_RATE, Segment, Session
from pipeline.voice.prosody import measure_prosody, track_pitch


def voice(hz: np.ndarray) -> np.ndarray:
    """A buzz of ten harmonics with the given fundamental for each sample."""
    phase = 2 * np.pi * np.cumsum(hz) / PCM_RATE
    return (0.2 * sum((np.sin(k * phase) / k for k in range(1, 11)), np.zeros(len(phase)))).astype(np.float32)


@pytest.mark.parametrize("hz", [65.0, 82.4, 110.0, 155.6, 220.0, 311.1, 440.0, 490.0])
@pytest.mark.parametrize("kind", ["buzz", "sine"])
def test_a_steady_tone_has_its_pitch(hz: float, kind: str) -> None:
    steady = np.full(PCM_RATE, hz)
    samples = voice(steady) if kind == "buzz" else np.sin(2 * np.pi * hz * np.arange(PCM_RATE) / PCM_RATE) * 0.3
    pitch = track_pitch(samples.astype(np.float32))
    assert (pitch > 0).mean() > 0.98
    assert np.abs(pitch[pitch > 0] / hz - 1).max() < 0.01


@pytest.mark.parametrize(("low", "high"), [(80.0, 160.0), (120.0, 300.0), (400.0, 200.0)])
def test_a_glide_is_followed(low: float, high: float) -> None:
    hz = np.geomspace(low, high, 2 * PCM_RATE)
    pitch = track_pitch(voice(hz))
    true = hz[320 + 160 * np.arange(len(pitch))]
    assert (pitch > 0).mean() > 0.98
    assert np.abs(pitch[pitch > 0] / true[pitch > 0] - 1).max() < 0.01


def test_a_tone_in_noise_keeps_its_pitch() -> None:
    samples = voice(np.full(PCM_RATE, 140.0))
    noise = np.random.default_rng(0).normal(0, samples.std() * 10 ** (-10 / 20), len(samples))
    pitch = track_pitch((samples + noise).astype(np.float32))
    assert (pitch > 0).mean() > 0.9
    assert np.median(np.abs(pitch[pitch > 0] / 140 - 1)) < 0.01


def test_noise_and_silence_are_unvoiced() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * PCM_RATE).astype(np.float32)
    assert (track_pitch(noise) > 0).mean() < 0.05
    assert not track_pitch(np.zeros(PCM_RATE, dtype=np.float32)).any()
    assert measure_prosody(noise[:3000]) is None
    assert len(track_pitch(noise[:100])) == 0
    assert measure_prosody(noise[:100]) is None


def test_prosody_of_a_glide_in_semitones() -> None:
    """An octave up in two seconds: 12 semitones, a tenth cut off at both ends, 0.06 semitones in 10 ms."""
    prosody = measure_prosody(voice(np.geomspace(110.0, 220.0, 2 * PCM_RATE)))
    assert prosody is not None
    assert prosody.pitch_hz == pytest.approx(155.6, rel=0.01)
    assert prosody.pitch_range_st == pytest.approx(0.8 * 12, abs=0.2)
    assert prosody.pitch_speed == pytest.approx(0.06, abs=0.01)
    assert prosody.level_range_db < 2


@pytest.fixture(scope="module")
def acted(corpora: Path) -> dict[str, list[tuple[str, str, Segment]]]:
    """(gender, emotion, measured segment) of RAVDESS and EmoDB clips; each actor's are one recording, as in a studio."""
    rows = [json.loads(line) for line in (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    decode, classify = make_stage("decode"), make_stage("classify_emotion")
    speakers: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["corpus"] in ("RAVDESS", "EmoDB"):
            speakers.setdefault((row["corpus"], row["speaker"]), []).append(row)
    found: dict[str, list[tuple[str, str, Segment]]] = {"RAVDESS": [], "EmoDB": []}
    for (corpus, _), clips in speakers.items():
        audio = [decode(session_of(corpora / row["path"])).windows[0].pcm / np.float32(32768) for row in clips]
        session: Session = session_of_samples(np.concatenate(audio))
        ends = np.cumsum([len(samples) for samples in audio]) / PCM_RATE
        source = session.recordings[0].source.source_id
        for seq, (samples, end) in enumerate(zip(audio, ends, strict=True)):
            session.segments.append(Segment(source, seq, float(end) - len(samples) / PCM_RATE, float(end)))
        classify(session)
        found[corpus] += [(row["gender"], row["emotion"], s) for row, s in zip(clips, session.segments, strict=True)]
    return found


def test_men_and_women_have_plausible_pitches(acted: dict[str, list[tuple[str, str, Segment]]]) -> None:
    calm = [(g, s.pitch_hz or 0) for g, emotion, s in acted["RAVDESS"] if emotion in ("neutral", "calm")]
    men, women = ([hz for gender, hz in calm if gender == sex] for sex in ("male", "female"))
    assert 90 < np.median(men) < 135 and 185 < np.median(women) < 235
    assert min(women) > 165 and np.percentile(men, 95) < 165


def auc(above: list[float], below: list[float]) -> float:
    """How often one of `above` is greater than one of `below`."""
    high, low = np.array(above)[:, None], np.array(below)[None]
    return float((high > low).mean() + 0.5 * (high == low).mean())


@pytest.mark.parametrize(("corpus", "least", "least_strong"), [("RAVDESS", 0.83, 0.9), ("EmoDB", 0.83, 0.95)])
def test_expressive_speech_ranks_above_neutral(
    acted: dict[str, list[tuple[str, str, Segment]]], corpus: str, least: float, least_strong: float
) -> None:
    scores = [(emotion, float(s.expressive_p or 0)) for _, emotion, s in acted[corpus]]
    calm = [p for emotion, p in scores if emotion in ("neutral", "calm")]
    moved = [p for emotion, p in scores if emotion not in ("neutral", "calm")]
    strong = [p for emotion, p in scores if emotion in ("angry", "happy", "fearful", "surprised")]
    assert all(0 <= p <= 1 for _, p in scores)
    print(corpus, round(auc(moved, calm), 3), round(auc(strong, calm), 3))
    assert auc(moved, calm) > least
    assert auc(strong, calm) > least_strong


def test_a_clip_without_voice_has_no_melody() -> None:
    session = session_of_samples(np.zeros(PCM_RATE), voice(np.full(PCM_RATE, 120.0)))
    for seq, recording in enumerate(session.recordings):
        session.segments.append(Segment(recording.source.source_id, seq, 0.0, 1.0))
    make_stage("classify_emotion")(session)
    silent, spoken = session.segments
    assert silent.pitch_hz is None and silent.expressive_p is None
    assert spoken.pitch_hz == pytest.approx(120, rel=0.01)
    assert not session.quarantine
