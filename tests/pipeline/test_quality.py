"""Measures against what was planted: noise of a known level, clipping, loudness, bandwidth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from sessions import make_stage, run_stages, session_of, session_of_samples

from pipeline.quality.bandwidth import bandwidth_hz
from pipeline.quality.levels import clipping, frame_power, loudness_lufs, snr_db
from pipeline.records import PCM_RATE, Segment, Session


@pytest.fixture(scope="module")
def clean(corpora: Path) -> np.ndarray:
    """float32 [S] at 16 kHz: a clean read sentence with half a second of silence around it."""
    path = corpora / "read" / "LJ002-0020.flac"
    session = run_stages(session_of(path), "decode")
    speech = session.windows[0].pcm.astype(np.float32) / 32768
    return np.pad(speech * (0.5 / np.abs(speech).max()), PCM_RATE // 2)


def scored(samples: np.ndarray) -> Session:
    return run_stages(session_of_samples(samples), "detect_speech", "segment", "score_quality")


def with_noise(clean: np.ndarray, snr: float, seed: int = 0) -> np.ndarray:
    """Speech in white noise; the ratio is that of the powers while there is speech."""
    spoken = frame_power(clean)
    power = spoken[spoken > spoken.max() * 1e-4].mean()
    noise = np.random.default_rng(seed).normal(0, np.sqrt(power / 10 ** (snr / 10)), len(clean))
    return (clean + noise).astype(np.float32)


def test_dnsmos_orders_clean_and_noisy_speech(clean: np.ndarray) -> None:
    ratings = []
    for samples in (clean, with_noise(clean, 20), with_noise(clean, 5)):
        segment = next(scored(samples).alive())
        assert segment.dnsmos_bak is not None and segment.dnsmos_ovr is not None and segment.dnsmos_sig is not None
        assert 1 <= segment.dnsmos_ovr <= 5 and 1 <= segment.dnsmos_sig <= 5
        ratings.append((segment.dnsmos_bak, segment.dnsmos_ovr))
    assert ratings[0] > ratings[1] > ratings[2]
    assert ratings[0][1] > ratings[1][1] > ratings[2][1]
    assert ratings[0][1] > 2.8 and ratings[2][1] < 2.6


@pytest.mark.parametrize("planted", [10.0, 20.0, 30.0])
def test_snr_of_white_noise(clean: np.ndarray, planted: float) -> None:
    segments = list(scored(with_noise(clean, planted)).alive())
    assert segments
    weights = [segment.duration_s for segment in segments]
    found = np.average([float(segment.snr_db or 0) for segment in segments], weights=weights)
    assert found == pytest.approx(planted, abs=3.0)


def test_snr_has_a_ceiling_and_says_nothing_of_nothing() -> None:
    assert snr_db(np.array([10.0]), np.full(20, 2e-8)) == 80.0
    assert snr_db(np.zeros(0), np.ones(20)) is None
    assert snr_db(np.ones(3), np.zeros(20)) is None


def test_planted_clipping_is_found_and_clean_speech_has_none(clean: np.ndarray) -> None:
    assert clipping(clean) == 0.0
    assert clipping(clean / np.abs(clean).max()) == 0.0
    hot = np.clip(clean * 8, -1.0, 1.0)
    planted = float((np.abs(clean * 8) >= 1).mean())
    assert clipping(hot) == pytest.approx(planted, rel=0.35)
    assert clipping(hot) > 0.005
    assert clipping(np.zeros(0, dtype=np.float32)) == 0.0


def test_clipping_of_a_file_is_in_its_rows(corpora: Path) -> None:
    path = corpora / "world" / "broken" / "clipped_speech.wav"
    stages = ("decode", "detect_speech", "segment", "score_quality", "cut_clips")
    segments = list(run_stages(session_of(path), *stages).alive())
    assert segments and all(segment.clipping is not None and segment.clipping > 0.01 for segment in segments)


@pytest.mark.parametrize("lufs", [-23.0, -40.0])
def test_loudness_of_a_tone(lufs: float) -> None:
    """BS.1770: a 997 Hz sine at full scale on one channel is -3.01 LUFS."""
    amplitude = 10 ** ((lufs + 3.01) / 20)
    tone = amplitude * np.sin(2 * np.pi * 997 * np.arange(3 * PCM_RATE) / PCM_RATE)
    assert loudness_lufs(tone.astype(np.float32)) == pytest.approx(lufs, abs=0.1)
    assert loudness_lufs(tone[:2000].astype(np.float32)) == pytest.approx(lufs, abs=0.5)
    assert loudness_lufs(np.zeros(PCM_RATE, dtype=np.float32)) is None


def test_bandwidth_sees_through_a_high_sample_rate(corpora: Path) -> None:
    audio, rate = soundfile.read(corpora / "ravdess" / "actor_01" / "03-01-05-01-01-01-01.flac", dtype="float32")
    assert rate == 48_000
    assert bandwidth_hz(audio, rate) > 10_000
    for low in (8_000, 16_000):
        narrow = soxr.resample(soxr.resample(audio, rate, low, quality="VHQ"), low, rate, quality="VHQ")
        assert 0.7 * low / 2 < bandwidth_hz(narrow, rate) <= low / 2 + 300


def test_bandwidth_of_noise_and_silence() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    assert bandwidth_hz(noise, 48_000) == pytest.approx(24_000, abs=50)
    assert bandwidth_hz(np.zeros(48_000, dtype=np.float32), 48_000) == 0.0
    assert bandwidth_hz(noise[:100], 48_000) > 20_000


@pytest.mark.parametrize(("name", "low", "high"), [("fake_48k_from_16k", 7000, 8700), ("fake_48k_from_8k", 3500, 4400)])
def test_bandwidth_of_the_fakes(corpora: Path, name: str, low: float, high: float) -> None:
    """Their converter lets mirror images through up to a tenth above the edge (-53 dB at 8.4 kHz)."""
    audio, rate = soundfile.read(corpora / "world" / "broken" / f"{name}.flac", dtype="float32")
    assert low < bandwidth_hz(audio, rate) <= high


def test_head_and_tail_silence_are_those_of_the_speech(clean: np.ndarray) -> None:
    session = run_stages(session_of_samples(clean), "detect_speech")
    source = session.recordings[0].source.source_id
    first, last = session.speech[0].start_s, session.speech[-1].end_s
    session.segments = [Segment(source, 0, first - 0.3, last + 0.2)]
    make_stage("score_quality")(session)
    assert session.segments[0].head_silence_s == pytest.approx(0.3)
    assert session.segments[0].tail_silence_s == pytest.approx(0.2)


def test_rejected_segments_are_not_scored(clean: np.ndarray) -> None:
    session = session_of_samples(clean)
    session.segments = [Segment(session.recordings[0].source.source_id, 0, 0.0, 1.0, ["too_short"])]
    make_stage("score_quality")(session)
    assert session.segments[0].dnsmos_ovr is None
