"""Measures validated by planting what they measure: rooms of known decay, rates and codecs of known bandwidth, known gains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import fftconvolve
from sessions import make_stage, run_stages, session_of, session_of_samples
from speech_damage import through_codec

from pipeline.quality.bandwidth import wall_hz
from pipeline.quality.levels import gain_db, loudness_lufs
from pipeline.quality.reverberation import reverb_s
from pipeline.records import PCM_RATE, Segment

DECAYS_S = (0.15, 0.3, 0.5, 0.8, 1.2)


@pytest.fixture(scope="module")
def acted(corpora: Path) -> list[tuple[np.ndarray, int]]:
    """Two clips each of twelve actors (48 kHz) and five others (16 kHz), at their own rate."""
    rows = [json.loads(line) for line in (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen: dict[str, list[Path]] = {}
    for row in rows:
        if row["corpus"] in ("RAVDESS", "EmoDB") and row["duration_s"] > 2:
            chosen.setdefault(row["speaker"], []).append(corpora / row["path"])
    return [soundfile.read(path, dtype="float32") for paths in chosen.values() for path in paths[3:5]]


def in_room(samples: np.ndarray, decay_s: float, seed: int) -> np.ndarray:
    """float32 [S] at 16 kHz with the reverberation of a room: noise that falls by 60 dB in `decay_s`, as strong as the direct
    sound."""
    times = np.arange(round(1.2 * decay_s * PCM_RATE)) / PCM_RATE
    response = np.random.default_rng(seed).normal(size=len(times)) * 10 ** (-3 * times / decay_s)
    response *= 1 / np.sqrt(np.square(response).sum())
    response[0] = 1.0
    return fftconvolve(samples, response)[: len(samples)].astype(np.float32)


def test_reverberation_rises_with_the_room(acted: list[tuple[np.ndarray, int]]) -> None:
    found = []
    for seed, (samples, rate) in enumerate(acted):
        dry = soxr.resample(samples, rate, PCM_RATE)
        found.append([reverb_s(dry), *(reverb_s(in_room(dry, decay, seed)) for decay in DECAYS_S)])
    table = np.array(found, dtype=np.float64)
    assert np.isfinite(table).all()
    assert (np.diff(table[:, 1:], axis=1) > 0).all(axis=1).mean() >= 0.9
    middle = np.median(table, axis=0)
    assert (np.diff(middle) > 0).all()
    assert middle[3:] == pytest.approx(DECAYS_S[2:], rel=0.25)
    # A lecture hall fails the default limit, a studio does not.
    assert (table[:, 0] < 0.8).all() and (table[:, 5] > 0.8).all()


def test_reverberation_does_not_depend_on_the_level_and_needs_speech(acted: list[tuple[np.ndarray, int]]) -> None:
    samples, rate = acted[0]
    dry = soxr.resample(samples, rate, PCM_RATE)
    assert reverb_s(dry * 0.1) == pytest.approx(reverb_s(dry), rel=0.05)
    assert reverb_s(np.zeros(PCM_RATE * 3, np.float32)) is None and reverb_s(dry[:2000]) is None


def test_genuine_recordings_have_no_wall(acted: list[tuple[np.ndarray, int]]) -> None:
    assert [wall_hz(samples, rate) for samples, rate in acted] == [None] * len(acted)


@pytest.mark.parametrize(("low", "high"), [(8_000, 48_000), (8_000, 16_000), (16_000, 24_000), (16_000, 48_000)])
def test_up_sampled_fakes_have_one_where_their_rate_was(
    acted: list[tuple[np.ndarray, int]], low: int, high: int
) -> None:
    walls = []
    for samples, rate in acted:
        fake = soxr.resample(soxr.resample(samples, rate, low) if rate != low else samples, low, high)
        walls.append(wall_hz((np.rint(fake * 32767) / 32768).astype(np.float32), high))
    assert all(wall is not None and 0.85 * low / 2 < wall <= low / 2 for wall in walls)


def test_a_small_mp3_that_was_up_sampled_is_flagged(acted: list[tuple[np.ndarray, int]]) -> None:
    samples, rate = acted[2]
    small = through_codec(soxr.resample(samples, rate, PCM_RATE), "mp3", "libmp3lame", 32_000, PCM_RATE)
    assert wall_hz(soxr.resample(small, PCM_RATE, 44_100), 44_100) == pytest.approx(7400, abs=500)


def test_wall_of_nothing_and_of_noise() -> None:
    assert wall_hz(np.zeros(48_000, np.float32), 48_000) is None
    assert wall_hz(np.ones(10, np.float32), 48_000) is None
    noise = np.random.default_rng(1).normal(0, 0.1, 48_000).astype(np.float32)
    assert wall_hz(noise, 48_000) is None and wall_hz(noise, 8_000) is None


def test_the_fakes_are_flagged_in_their_rows_and_their_originals_are_not(corpora: Path) -> None:
    broken = corpora / "world" / "broken"
    for name, flags in (
        ("fake_48k_from_8k", ["upsampled"]),
        ("fake_48k_from_16k", ["upsampled"]),
        ("exact_duplicate", []),
    ):
        session = run_stages(session_of(broken / f"{name}.flac"), "decode", "detect_speech", "segment", "cut_clips")
        assert [segment.flags for segment in session.alive()] == [flags]


def test_the_recorded_gain_reaches_the_target_without_clipping_and_is_reversible(corpora: Path) -> None:
    audio = run_stages(session_of(corpora / "read" / "jfk.flac"), "decode").windows[0].pcm / np.float32(32768)
    quiet, ticking = audio * np.float32(0.05), audio * np.float32(0.05)
    ticking[8000] = 0.7
    session = session_of_samples(quiet, ticking)
    for seq, recording in enumerate(session.recordings):
        session.segments.append(Segment(recording.source.source_id, seq, 0.0, recording.duration_s))
    make_stage("score_quality")(session)
    for segment, samples, limited in zip(session.segments, (quiet, ticking), (False, True), strict=True):
        assert segment.gain_db is not None
        raised = session.audio(segment) * 10 ** (segment.gain_db / 20)
        assert np.abs(raised).max() <= 10 ** (-1 / 20) + 1e-4
        loudness = loudness_lufs(raised)
        assert loudness is not None
        assert (loudness < -25) if limited else loudness == pytest.approx(-23.0, abs=0.2)
        assert np.allclose(raised / 10 ** (segment.gain_db / 20), samples, atol=2 / 32768)
    assert gain_db(audio, -10.0, -23.0, -1.0) == pytest.approx(-13.0)
