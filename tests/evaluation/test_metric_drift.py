"""Drift within a take and diversity over seeds, on real speech with planted changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from altered_speech import RATE, faded, glided, read, shifted, stretched
from hypothesis import given
from hypothesis import strategies as st

from catalogs.weights.registry import available
from evaluation.items import Item
from evaluation.metrics.base import Take
from evaluation.metrics.diversity import Diversity, spread
from evaluation.metrics.drift import Drift, slope

Samples = np.ndarray


@pytest.fixture(scope="module")
def drift() -> Drift:
    if not available("ge2e"):
        pytest.skip("no weights of GE2E on this machine")
    metric = Drift()
    metric.load()
    return metric


@pytest.fixture(scope="module")
def long(corpora: Path) -> Samples:
    """44 s of one reader."""
    return read(corpora / "long" / "two_cities.flac")


def take_of(samples: Samples, folder: Path, words: Sequence[dict[str, Any]] = (), seed: int = 1) -> Take:
    path = folder / f"{seed}.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    made = Take(Item("It was the best of times", "en"), seed, "ok", path, len(samples) / RATE)
    made.given = {"transcript": {"words": list(words)}}
    return made


def row_of(drift: Drift, samples: Samples, folder: Path, words: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    (row,) = drift.score([take_of(samples, folder, words)])
    assert row is not None
    return row


@pytest.fixture(scope="module")
def steady(drift: Drift, long: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return row_of(drift, long, tmp_path_factory.mktemp("steady"))


def test_a_reader_hardly_drifts(steady: dict[str, Any], long: Samples) -> None:
    windows = int((len(long) / RATE - 5.0) // 2.5) + 1
    assert all(len(steady[name]) == windows for name in ("times", "level_db", "pitch_st", "voice_series"))
    # 5.5 dB and 1.8 semitones per minute: over 44 s, a person's phrases differ by so much.
    assert steady["level_drift"] < 7 and steady["pitch_drift"] < 2.5
    assert steady["voice_series"][0] == pytest.approx(1.0) and steady["voice_last"] > 0.8
    assert steady["rate_slope"] is None, "nothing was heard"


@pytest.mark.parametrize("decibels", [-8.0, 6.0])
def test_a_fade_is_measured(
    drift: Drift, steady: dict[str, Any], long: Samples, tmp_path: Path, decibels: float
) -> None:
    row = row_of(drift, faded(long, decibels), tmp_path)
    planted = decibels * 60 / (len(long) / RATE)
    assert row["level_slope"] - steady["level_slope"] == pytest.approx(planted, abs=0.3)
    assert row["level_drift"] == abs(row["level_slope"])


def test_a_rising_pitch_is_measured(drift: Drift, steady: dict[str, Any], long: Samples, tmp_path: Path) -> None:
    made = glided(long, 4.0)
    row = row_of(drift, made, tmp_path)
    planted = 4.0 * 60 / (len(made) / RATE)
    assert row["pitch_slope"] - steady["pitch_slope"] == pytest.approx(planted, rel=0.25)


def test_another_voice_at_the_end_is_found(
    drift: Drift, steady: dict[str, Any], long: Samples, corpora: Path, tmp_path: Path
) -> None:
    other = read(corpora / "read" / "2412-153948-0000.flac")
    row = row_of(drift, np.concatenate([long[: 24 * RATE], other]), tmp_path)
    assert row["voice_last"] < steady["voice_last"] - 0.15
    assert row["voice_slope"] < steady["voice_slope"] - 0.1


def test_the_rate_is_that_of_the_words_that_were_heard(drift: Drift, long: Samples, tmp_path: Path) -> None:
    """From four words per second to two."""
    times = np.cumsum(1 / np.linspace(4.0, 2.0, 120))
    words = [{"word": "cat", "start": float(time), "end": float(time) + 0.1, "p": 1.0} for time in times]
    row = row_of(drift, long, tmp_path, words)
    assert row["rate_series"][0] == pytest.approx(4.0, abs=0.3) and row["rate_series"][-3] == pytest.approx(
        2.1, abs=0.3
    )
    # 2 words per second less over 41.6 s, relative to the median of 2.85.
    assert row["rate_slope"] == pytest.approx(-100 * 2.0 * 60 / 41.6 / 2.85, abs=8)


def test_short_and_silent_takes(drift: Drift, long: Samples, tmp_path: Path) -> None:
    assert drift.score([take_of(long[: 19 * RATE], tmp_path)]) == [None]
    silent = row_of(drift, np.concatenate([long[: 10 * RATE], np.zeros(15 * RATE, dtype=np.float32)]), tmp_path)
    assert silent["voice_series"][-1] is None and silent["pitch_st"][-1] is None and silent["level_db"][-1] is None


@given(st.floats(-5, 5), st.lists(st.floats(-3, 3), min_size=4, max_size=12))
def test_a_straight_line_has_its_slope_and_one_outlier_does_not_matter(rate: float, noise: list[float]) -> None:
    times = [2.5 * number for number in range(len(noise) + 6)]
    values: list[float | None] = [rate * time / 60 for time in times]
    assert slope(times, values) == pytest.approx(rate, abs=1e-9)
    values[-1] = 1000.0
    values[1] = None
    assert slope(times, values) == pytest.approx(rate, abs=1e-9)
    assert slope(times[:2], values[:2]) is None


def test_the_spread_over_seeds_is_that_which_was_planted(corpora: Path, tmp_path: Path) -> None:
    plain = read(corpora / "ravdess" / "actor_01" / "03-01-01-01-01-01-01.flac")
    made = [plain, shifted(plain, 2.0), shifted(plain, -2.0)]
    takes = [take_of(samples, tmp_path, seed=seed) for seed, samples in enumerate(made)]
    rows = Diversity().score(takes)
    assert rows[0] is not None and rows[0] == rows[1] == rows[2]
    assert rows[0]["pitch_spread"] == pytest.approx(2.0, abs=0.15) and rows[0]["takes"] == 3
    assert rows[0]["duration_spread"] < 3 and rows[0]["rate_spread"] < 3
    longer = [take_of(stretched(plain, 1.2 if seed else 1.0), tmp_path, seed=10 + seed) for seed in range(2)]
    (row, _) = Diversity().score(longer)
    assert row is not None and row["pitch_spread"] < 0.3
    # Two values a and 1.2 a: 0.2 a / sqrt(2) over 1.1 a.
    assert row["duration_spread"] == pytest.approx(100 * 0.2 / np.sqrt(2) / 1.1, abs=1.0)


def test_one_take_has_no_spread(corpora: Path, tmp_path: Path) -> None:
    plain = read(corpora / "ravdess" / "actor_01" / "03-01-01-01-01-01-01.flac")
    assert Diversity().score([take_of(plain, tmp_path)]) == [None]
    same = Diversity().score([take_of(plain, tmp_path, seed=seed) for seed in (1, 2)])
    assert same[0] is not None and same[0]["pitch_spread"] == same[0]["duration_spread"] == 0.0


@given(st.lists(st.floats(1, 100), min_size=2, max_size=8), st.floats(0.5, 20))
def test_a_relative_spread_has_no_unit(values: list[float], factor: float) -> None:
    scaled = spread([value * factor for value in values], relative=True)
    assert scaled == pytest.approx(spread(values, relative=True), rel=1e-6, abs=1e-6)
    assert spread([*values[:1], None]) is None
