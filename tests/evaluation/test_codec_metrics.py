"""Distances between a recording and its reconstruction: golden figures, lags, and what each measure must and must not hear."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes.recordings import noise, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.items import Item
from evaluation.metrics import METRICS, load_metrics
from evaluation.metrics.base import Metric, Take, read_clip, resampled
from evaluation.metrics.codec.pairs import RATE, ROUND_TRIP, best_lag, pair_of, shifted
from evaluation.metrics.codec.spectra import MEL_SCALES, mel_distance, stft_distance
from evaluation.metrics.codec.stoi_pesq import stoi_and_pesq
from evaluation.metrics.codec.waveforms import BEST_DB, pitch_difference, roll_off_ratio, si_sdr

CODEC = [name for name, place in METRICS.items() if place.startswith("evaluation.metrics.codec.")]
heard = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pystoi", "pesq")),
    reason="pystoi and pesq are not installed: pip install 'voxmill[codec]'",
)


def take_of(folder: Path, wanted: np.ndarray, made: np.ndarray, rate: int, notes: dict[str, Any] | None = None) -> Take:
    """A take that is a reconstruction of `wanted`."""
    for name, samples in (("human", wanted), ("made", made)):
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype="FLOAT")
    item = Item("text", "en", human=folder / "human.wav")
    return Take(item, 0, "ok", folder / "made.wav", row={"notes": json.dumps(notes) if notes else None})


@pytest.fixture(scope="module")
def speech(corpora: Path) -> np.ndarray:
    """Two seconds of LibriTTS at 48 kHz."""
    return read_clip(corpora / "read" / "7176_92135_000004_000000.flac", RATE)[: 2 * RATE]


# Spectra


@pytest.mark.parametrize(("rate", "of_noise", "of_tones"), [(16_000, 0.6784, 0.4206), (48_000, 0.6493, 0.3683)])
def test_the_mel_distance_is_that_of_dac(rate: int, of_noise: float, of_tones: float) -> None:
    """The figures are of DAC's `MelSpectrogramLoss` with its training settings, run once (design/evaluation.md, 2.3)."""
    white = noise(1, rate, 0.1, seed=7)
    tones = tone(440, 1, rate, 0.5) + tone(3000, 1, rate, 0.1)
    assert mel_distance(white, 0.8 * white, rate) == pytest.approx(of_noise, abs=1e-4)
    assert mel_distance(tones, 0.8 * tones, rate) == pytest.approx(of_tones, abs=1e-4)


def test_a_gain_costs_its_logarithm_at_each_scale() -> None:
    """At 16 kHz no filter is empty and no band of this noise is below the clamp."""
    white = noise(0.5, 16_000)
    assert mel_distance(white, 0.5 * white, 16_000) == pytest.approx(len(MEL_SCALES) * np.log10(2), abs=1e-4)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6000), st.sampled_from([16_000, 48_000]))
def test_distances_are_symmetric_and_zero_to_the_same(seed: int, length: int, rate: int) -> None:
    a, b = (noise(length / rate, rate, 0.1, seed + add) for add in (0, 1))
    for distance in (lambda x, y: mel_distance(x, y, rate), stft_distance):
        assert distance(a, a) == 0.0
        assert 0 < distance(a, b) == pytest.approx(distance(b, a), rel=1e-6)


def test_less_treble_is_further_away_at_48_khz_only(speech: np.ndarray) -> None:
    limited = resampled(resampled(speech, RATE, 16_000), 16_000, RATE)
    low, low_limited = (resampled(x, RATE, 16_000) for x in (speech, limited))
    assert mel_distance(speech, limited, RATE) > 5 * mel_distance(low, low_limited, 16_000) > 0
    assert stft_distance(speech, limited) > 0.1
    assert 0.3 < (roll_off_ratio(speech, limited) or 0) < 0.95
    assert roll_off_ratio(speech, speech) == 1.0


# Lags


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(-2400, 2400), st.integers(0, 500))
def test_the_lag_of_a_shifted_clip_is_found_exactly(seed: int, lag: int, longer: int) -> None:
    whole = noise(0.5, RATE, seed=seed)
    wanted, made = whole[2400:-2400], whole[2400 - lag : len(whole) - 2400 - lag + longer]
    made = 0.7 * made + noise(len(made) / RATE, RATE, 0.02, seed + 1)
    found = best_lag(wanted, made, 2400)
    assert found == lag
    pair = shifted(wanted, made, found)
    assert len(pair.wanted) == len(pair.made) and pair.correlation > 0.9
    assert pair.lag_ms == pytest.approx(lag / 48)


@pytest.mark.parametrize("lag", [-2000, -1, 0, 7, 2399])
def test_a_delay_changes_no_figure_of_a_codec(tmp_path: Path, speech: np.ndarray, lag: int) -> None:
    made = speech[-lag:] if lag < 0 else np.concatenate([np.zeros(lag, np.float32), speech])
    for metric in load_metrics(["mel_dac", "codec_signal"]):
        (row,) = metric.score([take_of(tmp_path, speech, made, RATE)])
        assert row is not None and row["lag_ms"] == pytest.approx(lag / 48)
        if metric.name == "mel_dac":
            assert row["mel_dac_48k"] == row["mel_dac_16k"] == 0.0 and row["correlation"] == pytest.approx(1.0)
        else:
            assert row["si_sdr"] > 90 and row["f0_cents"] == row["voicing_error"] == row["stft"] == 0.0
            assert row["roll_off_kept"] == row["bandwidth_kept"] == 1.0


def test_another_reading_is_not_a_reconstruction(tmp_path: Path, corpora: Path) -> None:
    """The same sentence by two speakers. A round trip that lost everything counts, without a lag."""
    one, other = (
        read_clip(corpora / f"ravdess/actor_{actor}/03-01-01-01-01-01-{actor}.flac", RATE) for actor in ("01", "02")
    )
    assert pair_of(take_of(tmp_path, one, other, RATE)) is None
    assert [metric.score([take_of(tmp_path, one, other, RATE)]) for metric in load_metrics(["mel_dac"])] == [[None]]
    pair = pair_of(take_of(tmp_path, one, other, RATE, {ROUND_TRIP: True}))
    assert pair is not None and pair.lag == 0 and pair.correlation < 0.3


def test_sample_rates_may_differ(tmp_path: Path, speech: np.ndarray) -> None:
    take = take_of(tmp_path, speech, speech, RATE)
    soundfile.write(tmp_path / "made.wav", resampled(speech, RATE, 16_000), 16_000, subtype="FLOAT")
    pair = pair_of(take)
    assert pair is not None and pair.lag == 0 and len(pair.wanted) == len(pair.made) == len(speech)


# Waveforms


@settings(max_examples=30)
@given(st.floats(-20, 40), st.floats(0.01, 10), st.integers(0, 2**32 - 1))
def test_si_sdr_is_the_ratio_that_was_mixed_and_ignores_the_gain(ratio_db: float, gain: float, seed: int) -> None:
    wanted, other = noise(1, 16_000, seed=seed), noise(1, 16_000, seed=seed + 1)
    wanted, other = wanted - wanted.mean(), other - other.mean()
    other = other - (other @ wanted) / (wanted @ wanted) * wanted
    other *= np.linalg.norm(wanted) / np.linalg.norm(other) * 10 ** (-ratio_db / 20)
    assert si_sdr(wanted, gain * (wanted + other)) == pytest.approx(ratio_db, abs=0.01)


def test_si_sdr_at_its_ends() -> None:
    wanted = noise(1, 16_000)
    assert si_sdr(wanted, wanted) == BEST_DB
    assert si_sdr(wanted, np.zeros_like(wanted)) is None


def test_a_higher_pitch_is_measured_in_cents() -> None:
    def voice(hertz: float) -> np.ndarray:
        return np.asarray(sum(tone(hertz * k, 1, 16_000, 0.3 / k) for k in range(1, 8)), dtype=np.float32)

    cents, voicing = pitch_difference(voice(150), voice(150 * 2 ** (100 / 1200)))
    assert cents == pytest.approx(100, abs=2) and voicing == 0.0
    silent = np.zeros(16_000, np.float32)
    assert pitch_difference(voice(150), silent) == (None, 1.0)
    assert pitch_difference(silent[:100], silent[:100]) == (None, None)
    half = voice(150) * (np.arange(16_000) < 8000)
    cents, voicing = pitch_difference(voice(150), half.astype(np.float32))
    assert cents == pytest.approx(0, abs=3) and voicing == pytest.approx(0.5, abs=0.05)


# STOI, PESQ, ViSQOL


@heard
def test_stoi_and_pesq_fall_with_noise_and_are_absent_for_silence(speech: np.ndarray) -> None:
    low = resampled(speech, RATE, 16_000)
    level = float(low.std())
    same, little, much = (stoi_and_pesq(low, low + noise(2, 16_000, level * by)) for by in (0.0, 0.1, 1.0))
    assert same["stoi"] == pytest.approx(1.0, abs=1e-3) and same["pesq_wb"] == pytest.approx(4.644, abs=1e-3)
    for name in ("stoi", "pesq_wb"):
        assert (same[name] or 0) > (little[name] or 0) > (much[name] or 0) > 0
    absent = {"stoi": None, "pesq_wb": None}
    assert stoi_and_pesq(low, 0 * low) == absent
    for length in (3, 1600):
        assert stoi_and_pesq(low[8000 : 8000 + length], low[8000 : 8000 + length])["stoi"] is None


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("stoi_pesq", "pesq", "codec"), ("visqol", "visqol", "visqol"), ("visqol", "ai_edge_litert", "visqol")],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == module else found(asked))
    (metric,) = load_metrics([name])
    with pytest.raises(ModuleNotFoundError, match=rf"need.* {module}.*pip install 'voxmill\[{extra}\]'") as error:
        metric.load()
    assert "\n" not in str(error.value)


def test_visqol_prefers_the_same(tmp_path: Path, speech: np.ndarray) -> None:
    pytest.importorskip("visqol", reason="visqol-python is not installed: pip install 'voxmill[visqol]'")
    (metric,) = load_metrics(["visqol"])
    metric.load()
    noisy = speech + noise(2, RATE, float(speech.std()))
    rows = metric.score([take_of(tmp_path, speech, speech, RATE)]) + metric.score(
        [take_of(tmp_path, speech, noisy, RATE)]
    )
    for column in metric.schema.names:
        same, worse = (row[column] for row in rows if row is not None)
        # The lattice network rates identical clips 4.3 to 4.7.
        assert 4.0 < same <= 5.0 and worse < same - 0.3


@pytest.mark.parametrize("name", CODEC)
@pytest.mark.parametrize("length", [1, 40, 4_800])
def test_a_clip_may_be_very_short(name: str, length: int, tmp_path: Path, speech: np.ndarray) -> None:
    (metric,) = load_metrics([name])
    if not _loads(metric):
        pytest.skip(f"the package of {name} is not installed")
    (row,) = metric.score([take_of(tmp_path, speech[:length], speech[:length], RATE)])
    assert row is not None and all(figure is None or np.isfinite(figure) for figure in row.values())


@pytest.mark.parametrize("name", CODEC)
def test_rows_have_the_columns_of_the_schema(name: str, tmp_path: Path, speech: np.ndarray) -> None:
    (metric,) = load_metrics([name])
    assert metric.needs == {"audio", "human"}
    assert {value.column for value in metric.values} <= set(metric.schema.names)
    if not _loads(metric):
        pytest.skip(f"the package of {name} is not installed")
    made = resampled(resampled(speech, RATE, 24_000), 24_000, RATE)
    (row,) = metric.score([take_of(tmp_path, speech, made, RATE)])
    assert row is not None and list(row) == metric.schema.names
    assert all(isinstance(figure, float) and np.isfinite(figure) for figure in row.values())


def _loads(metric: Metric) -> bool:
    try:
        metric.load()
    except ModuleNotFoundError:
        return False
    return True
