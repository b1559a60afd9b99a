"""Compare two runs of the same system by seed: the distance between takes of one item and seed.

A change of the code must not change what a model says with a seed, beyond rounding. Far fewer items show it than any
score needs: a wrong seed, another reference or fewer solver steps change every take. The scale is what another seed changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from evaluation.metrics.base import Take
from evaluation.runs.folder import Run
from evaluation.runs.rows import Key
from evaluation.runs.score import all_takes

RATE = 16_000
SAME = 0.1
"""Share of the distance between two seeds up to which a take counts as the same. Rounding in float32 gives about 0.001, in
bfloat16 up to 0.05; half the solver steps give 0.3 and more (docs/benchmarks.md)."""
_WINDOW, _HOP, _BANDS = 512, 256, 64
_FLOOR_DB = -80.0
_PAIRS = 40
"""Pairs of takes that set the scale; their mean varies by a few percent."""
_WEIGHTS = (".safetensors", ".bin", ".pth")
_ELSEWHERE = ("folder", "device", "voxmill", "torch")
"""What a system says of its machine and version; the rest of its description decides what it says."""


@dataclass(frozen=True)
class Repeat:
    """Takes of two runs, paired by item and seed.

    `pairs`: pairs of takes with audio. `equal`: pairs with the same bytes. `distance`: mean distance in dB between the takes
    of a pair. `seeds`: mean distance in dB between takes of one item with different seeds, or with different items if a run has one
    seed. `same`: pairs within `SAME` times `seeds`. `failed`: pairs of which one take has audio and the other has not.
    `stuck`: items whose takes with different seeds are the same although those of the baseline are not.
    """

    pairs: int
    equal: int
    same: int
    failed: int
    distance: float
    seeds: float
    stuck: int

    @property
    def share(self) -> float:
        """Share of the pairs that are the same; a pair of which one take failed is not."""
        return self.same / max(self.pairs + self.failed, 1)


def repeat(run: Run, baseline: Run) -> Repeat:
    """Compare the takes of two runs that share items and seeds."""
    ours, theirs = _by_key(run), _by_key(baseline)
    keys = sorted(ours.keys() & theirs.keys())
    scale = _between_seeds([theirs[key] for key in keys])
    both = [key for key in keys if ours[key].path and theirs[key].path]
    # Bytes are compared first: most pairs of an unchanged system need no audio.
    equal = {key for key in both if ours[key].row["audio_sha256"] == theirs[key].row["audio_sha256"]}
    distances = [0.0 if key in equal else distance(_sound(ours[key]), _sound(theirs[key])) for key in both]
    stuck = _stuck(ours[key] for key in keys) - _stuck(theirs[key] for key in keys)
    return Repeat(
        pairs=len(both),
        equal=len(equal),
        same=sum(one <= SAME * scale for one in distances),
        failed=sum((ours[key].path is None) != (theirs[key].path is None) for key in keys),
        distance=float(np.mean(distances)) if distances else 0.0,
        seeds=scale,
        stuck=len(stuck),
    )


def _by_key(run: Run) -> dict[Key, Take]:
    """Return takes by item and seed. A take that was cut or is silent has audio, too."""
    takes = {}
    for take in all_takes(run):
        take.path = run.root / take.row["audio"] if take.row["audio"] else None
        takes[take.item.id, take.seed] = take
    return takes


def same_system(run: Run, baseline: Run) -> bool:
    """Return True if both runs are of one kind of system with the same weights and settings, on whatever machine and version."""
    ours, theirs = (
        {name: value for name, value in one.settings["system"].items() if name not in _ELSEWHERE}
        for one in (run, baseline)
    )
    return ours == theirs and any(name.endswith(_WEIGHTS) for name in ours)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean difference in dB of two clips' mel spectra, float32 [S] at 16 kHz. The shorter one ends in silence."""
    frames = max(len(one), len(other))
    return float(np.abs(_levels(one, frames) - _levels(other, frames)).mean())


def _levels(samples: np.ndarray, length: int) -> np.ndarray:
    """Return levels in dB, `[T, 64] float32`, of a clip that is padded to a length."""
    padded = np.pad(samples.astype(np.float32), (0, max(length - len(samples), 0) + _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32), axis=1)) ** 2 / _WINDOW
    return np.maximum(10 * np.log10(power @ _bands() + 1e-12), _FLOOR_DB)


@lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """Return weights `[bins, 64]` that average the bins of each of 64 bands, equally spaced on the mel scale."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), _BANDS + 1)
    edges = 700 * (10 ** (mels / 2595) - 1) * _WINDOW / RATE
    bins = np.arange(_WINDOW // 2 + 1)
    weights = np.zeros((len(bins), _BANDS), np.float32)
    for band in range(_BANDS):
        first = int(edges[band])
        weights[first : max(int(edges[band + 1]), first + 1), band] = 1.0
    return weights / np.maximum(weights.sum(axis=0), 1.0)


def _sound(take: Take) -> np.ndarray:
    return Take(take.item, take.seed, take.status, take.path).audio(RATE)


def _between_seeds(takes: Iterable[Take]) -> float:
    """Return the mean distance of takes with different seeds of one item, or of neighboring items if there is one seed."""
    spoken = [take for take in takes if take.path]
    pairs = [(a, b) for a, b in pairwise(spoken) if a.item.id == b.item.id]
    pairs = pairs or list(pairwise(spoken))
    found = [distance(_sound(a), _sound(b)) for a, b in pairs[:_PAIRS]]
    return float(np.mean([one for one in found if one > 0])) if any(found) else 0.0


def _stuck(takes: Iterable[Take]) -> set[str]:
    """Return the items whose takes all have the same bytes, although there are several seeds."""
    digests: dict[str, list[str]] = {}
    for take in takes:
        if take.path:
            digests.setdefault(take.item.id, []).append(take.row["audio_sha256"])
    return {item for item, found in digests.items() if len(found) > 1 and len(set(found)) == 1}
