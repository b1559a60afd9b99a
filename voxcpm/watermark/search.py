"""Look for keys in one window of audio: at normal speed, or on a grid of speeds and tempos, and where in it the mark is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voxcpm.watermark.correlate import Match, decoy_scores, match
from voxcpm.watermark.features import HOP, RATE, band_powers, cells, fold
from voxcpm.watermark.keys import Key
from voxcpm.watermark.pattern import FRAMES, FRAMES_PER_SECOND, pattern_of
from voxcpm.watermark.thresholds import PRESENT, passes

Floats = NDArray[np.float32]
Spans = list[tuple[float, float]]

PLAIN = (1.0, 1.0)
"""Speed and tempo of audio that nobody changed."""

GRID = [(round(1 + step * 0.005, 3), 1.0) for step in range(-12, 13) if step] + [
    (1.0, round(1 + step * 0.01, 2)) for step in range(-12, 13) if step
]
"""(speed, tempo) that a thorough search tries: speed changes the pitch, tempo does not."""

_STREAMS = 4
"""Most marked streams, one after the other, that are looked for in one window."""

_GAP_S = 1.0
"""Spans that are closer than this are one."""

_SHORTEST_S = 0.3
"""A span that is shorter is a coincidence."""


@dataclass(frozen=True)
class Hit:
    """What a window says about a key. spans: seconds from the start of the window, empty if the score alone is low."""

    match: Match
    speed: float = 1.0
    tempo: float = 1.0
    spans: Spans = field(default_factory=list)


class Window:
    """The cells of one window [n] float32 at 16 kHz, at two offsets within a hop, for one speed and tempo."""

    def __init__(self, samples: Floats, speed: float = 1.0, tempo: float = 1.0) -> None:
        self.speed, self.tempo = speed, tempo
        self.cells = [cells(powers) for powers in band_powers(samples, speed, tempo)]

    def folded(self, frames: int | None = None) -> Floats:
        """Return the folded cells [2, FRAMES, BANDS] of the first `frames` frames, or of all."""
        return np.stack([fold(values[:frames]) for values in self.cells])

    def hits(self, key: Key) -> list[Hit]:
        """Return the best match of a key, and further ones while each passes for a mark: streams with other phases or payloads."""
        held, found = [values.copy() for values in self.cells], list[Hit]()
        while len(found) < _STREAMS:
            best = match(np.stack([fold(values) for values in held]), key)
            if found and not passes(best.score, best.fits):
                break
            spans = self._spans(held[best.offset], key, best)
            found.append(Hit(best, self.speed, self.tempo, [(self._second(a), self._second(b)) for a, b in spans]))
            if not spans or not passes(best.score, best.fits):
                break
            for values in held:
                for start, end in spans:
                    values[start:end] = 0
        return found

    def _second(self, frame: float) -> float:
        """Return the time of a frame's start, seconds of the audio as it is."""
        return frame * HOP / RATE / self.speed / self.tempo

    def _spans(self, values: Floats, key: Key, found: Match) -> list[tuple[int, int]]:
        """Return the frames [start, end) in which the pattern that was found is present."""
        if not len(values):
            return []
        signs = pattern_of(key).signs(found.payload)[(np.arange(len(values)) + found.phase) % FRAMES]
        score = _second_sums((values * signs).sum(axis=1))
        spread = np.sqrt(np.maximum(_second_sums((values**2).sum(axis=1)), 1e-9))
        runs = _runs(score / spread > PRESENT, round(_GAP_S * FRAMES_PER_SECOND))
        return [(start, end) for start, end in runs if end - start >= _SHORTEST_S * FRAMES_PER_SECOND]


def _second_sums(values: Floats) -> Floats:
    """Return the sum over the second around each frame [T]; at the ends, over the part that there is."""
    side = FRAMES_PER_SECOND // 2
    sums = np.concatenate(([0.0], values.astype(np.float64).cumsum()))
    places = np.arange(len(values))
    found = sums[np.minimum(places + side + 1, len(values))] - sums[np.maximum(places - side, 0)]
    return found.astype(np.float32)


def _runs(inside: NDArray[np.bool_], gap: int) -> list[tuple[int, int]]:
    """Return [start, end) of the runs of True; runs that are closer than `gap` are one."""
    runs: list[tuple[int, int]] = []
    changes = np.flatnonzero(np.diff(np.concatenate(([0], inside.astype(np.int8), [0]))))
    for start, end in changes.reshape(-1, 2).tolist():
        if runs and start - runs[-1][1] < gap:
            runs[-1] = runs[-1][0], end
        else:
            runs.append((start, end))
    return runs


def search(
    samples: Floats, key: Key, grid: Sequence[tuple[float, float]], decoys: int, floor: float
) -> tuple[Hit, Floats]:
    """Return (the best hit of a key at any point of the grid, the best scores [decoys] of decoys there).

    Decoys that do not exceed `floor`, or do not reach the best score, are not told apart.
    """
    windows = [Window(samples, speed, tempo) for speed, tempo in grid]
    scores = [match(window.folded(), key).score for window in windows]
    best = windows[int(np.argmax(scores))].hits(key)[0]
    floor = max(floor, float(np.nextafter(np.float32(best.match.score), np.float32(-np.inf))))
    highest = np.full(decoys, floor, np.float32)
    for window in windows:
        highest = np.maximum(highest, decoy_scores(window.folded(), key, decoys, floor))
    return best, highest
