"""Distill-MOS and DNSMOS: the figures of the packages that they come from, and an order that listeners would agree with.

The golden figures are of distillmos 0.9.1 (with xls-r-sqa 0.1.0, torch 2.13.0) and speechmos 0.0.1.1 (with librosa 0.11.0), run
once on these clips, which are 16 kHz and therefore not resampled. All clips of ../shared/corpora/read are CC-BY-4.0 here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalogs.weights import registry
from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.metrics import load_metrics
from evaluation.metrics.base import Take, read_clip, resampled
from evaluation.metrics.quality.distillmos import Distillmos
from evaluation.metrics.quality.distillmos_net import LONGEST_HOP, WINDOW, load_net, windows_of
from evaluation.metrics.quality.dnsmos import DnsmosMetric, reference_length

RATE = 16_000
DISTILLMOS = {
    ("1088-134315-0000.flac", 0, 3): 3.879601,
    ("2412-153948-0000.flac", 3, 6): 4.286623,
    ("2412-153948-0001.flac", 0, 8): 4.485007,
}
"""Clip, first and last second, score. The last one has two windows."""
DNSMOS = {
    ("1088-134315-0000.flac", 0, 12): (3.268310, 3.626327, 3.950914, 3.705096),
    ("ES2011a.Headset-0-40s-46s.wav", 0, 6): (2.775536, 3.166463, 3.877430, 3.544914),
}
"""OVRL, SIG, BAK, P.808. Three windows each; 6 s are heard twice."""


def clip(corpora: Path, name: str, first: int, last: int) -> np.ndarray:
    return read_clip(corpora / "read" / name, RATE)[first * RATE : last * RATE]


@pytest.fixture(scope="module")
def distillmos() -> Distillmos:
    if not registry.available("distillmos"):
        pytest.skip("the weights distillmos are not here: voxmill models pull evaluation")
    metric = Distillmos()
    metric.load()
    return metric


@pytest.fixture(scope="module")
def dnsmos() -> DnsmosMetric:
    if not registry.available("dnsmos"):
        pytest.skip("the weights dnsmos are not here: voxmill models pull evaluation")
    metric = DnsmosMetric()
    metric.load()
    return metric


def test_distillmos_is_that_of_the_package_and_hears_damage(distillmos: Distillmos, corpora: Path) -> None:
    clean = {key: distillmos.rate(clip(corpora, *key)) for key in DISTILLMOS}
    assert clean == pytest.approx(DISTILLMOS, abs=1e-4)
    rng = np.random.default_rng(0)
    scores: dict[str, list[float]] = {"clean": [], "low-pass": [], "clipped": [], "noisy": []}
    for key in list(DISTILLMOS)[:2]:
        samples = clip(corpora, *key)
        peak, level = np.abs(samples).max() / 10, samples.std() / 10**0.5
        scores["clean"].append(clean[key])
        low = resampled(resampled(samples, RATE, 6_000), 6_000, RATE)
        scores["low-pass"].append(distillmos.rate(low))
        scores["clipped"].append(distillmos.rate(samples.clip(-peak, peak)))
        scores["noisy"].append(distillmos.rate(samples + level * rng.standard_normal(len(samples)).astype(np.float32)))
    means = {name: float(np.mean(found)) for name, found in scores.items()}
    assert list(means) == sorted(means, key=lambda name: -means[name]), means


def test_the_level_does_not_change_distillmos(distillmos: Distillmos, corpora: Path) -> None:
    samples = clip(corpora, "1088-134315-0000.flac", 0, 3)
    assert distillmos.rate(0.05 * samples) == pytest.approx(DISTILLMOS["1088-134315-0000.flac", 0, 3], abs=2e-3)


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (WINDOW, 1), (WINDOW + 1, 2), (WINDOW + RATE, 2), (WINDOW + RATE + 1, 3)]
)
def test_windows_reach_from_the_first_sample_to_the_last(length: int, count: int) -> None:
    # A ramp: the first and the last value of a window say where in the clip it begins.
    windows = windows_of(np.arange(1, length + 1, dtype=np.float32)).astype(np.float64)
    assert windows.shape == (count, WINDOW) and np.allclose(windows.max(axis=1), 1.0)
    if length >= WINDOW:
        ratio = windows[:, 0] / windows[:, -1]
        starts = (ratio * WINDOW - 1) / (1 - ratio)
        assert starts[0] == pytest.approx(0, abs=0.5) and starts[-1] == pytest.approx(length - WINDOW, abs=0.5)
        assert np.diff(starts).max(initial=0) <= LONGEST_HOP + 0.5
    else:
        assert not windows[0, length:].any()


def test_silence_is_not_divided_by_zero() -> None:
    assert not windows_of(np.zeros(RATE, np.float32)).any()


def test_a_file_that_is_another_network_is_refused(tmp_path: Path) -> None:
    import torch

    for content in ({"model": {"cnn.cnn.0.weight": torch.zeros(1)}}, {"other": 1}):
        torch.save(content, tmp_path / "net.pt")
        with pytest.raises(EvaluationError, match="is not the Distill-MOS network") as error:
            load_net(tmp_path / "net.pt")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", DNSMOS, ids=str)
def test_dnsmos_is_that_of_the_reference_implementation(
    dnsmos: DnsmosMetric, corpora: Path, key: tuple[str, int, int]
) -> None:
    row = dnsmos.rate(clip(corpora, *key))
    assert list(row) == dnsmos.schema.names == ["dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808"]
    assert tuple(row.values()) == pytest.approx(DNSMOS[key], abs=1e-4)


@pytest.mark.parametrize(("seconds", "windows"), [(0.5, 7), (5, 1), (8, 7), (9.01, 1), (10.9, 1), (11.1, 2), (30, 21)])
def test_the_reference_implementation_hears_whole_seconds(seconds: float, windows: int) -> None:
    heard = reference_length(np.zeros(round(seconds * RATE), np.float32))
    assert len(heard) == round(9.01 * RATE) + (windows - 1) * RATE


def test_a_take_of_another_rate_is_resampled(distillmos: Distillmos, corpora: Path) -> None:
    path = corpora / "read" / "LJ002-0020.flac"
    (row,) = distillmos.score([Take(Item("text", "en"), 0, "ok", path)])
    assert row == {"distillmos": pytest.approx(distillmos.rate(read_clip(path, RATE)))}
    assert list(row) == distillmos.schema.names


def test_the_profile_has_the_weights_of_these_metrics() -> None:
    profile = registry.profile("evaluation")
    assert {name for metric in load_metrics(["distillmos", "dnsmos"]) for name in metric.weights} <= set(profile)
