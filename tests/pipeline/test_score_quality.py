"""Scores against their references: DNSMOS against its published script, the noise floor against digital silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from sessions import make_stage, run_stages, session_of

from catalogs.weights.registry import available, resolve
from pipeline.quality.dnsmos import WINDOW, Dnsmos, windows
from pipeline.quality.levels import clipping, frame_power, snr_db


@pytest.mark.skipif(not available("dnsmos"), reason="the weights dnsmos are not here (voxmill models pull dnsmos)")
def test_dnsmos_equals_the_reference_at_its_own_hop(corpora: Path) -> None:
    """Figures of the speechmos package 0.0.1.1 for this file; it hops one second and hears whole seconds only."""
    samples, _ = soundfile.read(corpora / "world/broken/looped_same_second.flac", dtype="float32")
    found = Dnsmos(resolve("dnsmos")).rate(samples[: 2 * 16_000 + WINDOW], hop_s=1.0)
    assert found == pytest.approx((3.3155724, 2.6714347, 2.2977210), abs=1e-4)


@pytest.mark.parametrize(
    ("length", "hop_s", "starts"), [(WINDOW, 9.01, [0]), (2 * WINDOW + 5, 9.01, [0, WINDOW, WINDOW + 5])]
)
def test_dnsmos_hears_all_of_a_clip(length: int, hop_s: float, starts: list[int]) -> None:
    samples = np.arange(length, dtype=np.float32)
    assert [int(window[0]) for window in windows(samples, hop_s)] == starts
    assert all(len(window) == WINDOW for window in windows(samples, hop_s))


def test_a_short_clip_is_repeated_to_fill_the_window() -> None:
    samples = np.arange(50_000, dtype=np.float32)
    (window,) = windows(samples, 9.01)
    assert np.array_equal(window[:50_000], samples) and np.array_equal(window[50_000:100_000], samples)


def test_drop_outs_and_edits_are_no_silent_room(corpora: Path) -> None:
    """The same sentence with digital silence in it must not score as if it had been recorded without any noise."""
    broken = corpora / "world/broken"
    session = session_of(
        *(broken / name for name in ("exact_duplicate.flac", "packet_loss.flac", "very_long_silence.flac"))
    )
    session = run_stages(session, "decode", "detect_speech", "segment", "score_quality")
    found = [segment.snr_db for segment in session.alive()]
    assert len(found) == 4 and found == pytest.approx([45.6] * 4, abs=2.0)


def test_snr_without_any_noise_is_not_made_up() -> None:
    speech = frame_power(np.ones(3_200, np.float32) * 0.1)
    assert snr_db(speech, np.zeros(100)) is None


@pytest.mark.parametrize("turned_down", [1.0, 0.5])
@pytest.mark.parametrize("sides", ["both", "one"])
def test_flat_tops_are_found_after_the_gain_was_turned_down(turned_down: float, sides: str) -> None:
    time = np.arange(44_100) / 44_100
    wave = 2.0 * np.sin(2 * np.pi * 150 * time)
    cut = np.clip(wave, -1 if sides == "both" else -2, 1) / (1 if sides == "both" else 2)
    cut = np.rint(cut * turned_down * 32767).astype(np.float32) / 32768
    # A sine of twice full scale is above it for 2/3 of the time.
    assert clipping(cut) == pytest.approx(2 / 3 if sides == "both" else 1 / 3, abs=0.02)


def test_an_offset_of_the_recorder_spoils_no_score(corpora: Path) -> None:
    broken = corpora / "world/broken"
    session = session_of(broken / "exact_duplicate.flac", broken / "dc_offset.wav")
    session = run_stages(session, "decode", "detect_speech", "segment", "score_quality")
    clean, shifted = session.alive()
    assert clean.energy_db is not None and clean.loudness_lufs is not None
    # It is the same sentence, 6 dB quieter.
    assert shifted.snr_db == pytest.approx(clean.snr_db, abs=1.5)
    assert shifted.energy_db == pytest.approx(clean.energy_db - 6, abs=0.3)
    assert shifted.loudness_lufs == pytest.approx(clean.loudness_lufs - 6, abs=0.3)


def test_a_segment_that_cannot_be_scored_is_set_aside_and_the_others_go_on(corpora: Path) -> None:
    session = session_of(corpora / "world/broken/two_languages_two_speakers.flac")
    session = run_stages(session, "decode", "detect_speech", "segment")
    stage = make_stage("score_quality")
    first = next(session.alive())
    first.end_s = first.start_s
    session = stage(session)
    assert first.failures == ["failed_score_quality"]
    assert session.quarantine[0].stage == "score_quality" and "(at " in session.quarantine[0].error
    (second,) = session.alive()
    assert second.dnsmos_ovr is not None and 1 < second.dnsmos_ovr < 5
