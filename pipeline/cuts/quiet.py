"""Quiet places: moving a cut to where nobody speaks."""

from __future__ import annotations

import numpy as np

from pipeline.quality.edges import EDGE_S, measure_levels
from pipeline.records import PCM_RATE

QUIET = 0.2
"""Up to this share of the way from background to speech (`Levels.place`) a place is quiet. Ends above 0.3 are cut-off words."""
_STEP = PCM_RATE // 200


def quietest(pcm: np.ndarray, width: int = PCM_RATE // 10) -> int:
    """Index of the middle of the quietest `width` samples."""
    power = np.concatenate([[0.0], np.cumsum(np.square(pcm, dtype=np.float64))])
    width = min(width, len(pcm))
    return int(np.argmin(power[width:] - power[:-width])) + width // 2


def settle(samples: np.ndarray, wanted: int, low: int, high: int) -> int:
    """The index between `low` and `high` at which to cut float32 [S] at 16 kHz, `wanted` where that is quiet.

    Else the nearest quiet index, and where there is none the quietest one: 30 ms around it are judged, beside the levels of
    speech and background of all the samples. Where these do not differ, `wanted` stays.
    """
    levels = measure_levels(samples)
    half = round(EDGE_S * PCM_RATE) // 2

    def level(index: int) -> float | None:
        return levels.place(samples[max(0, index - half) : index + half])

    here = level(wanted)
    if here is None or here <= QUIET:
        return wanted
    places = np.arange(low, high + 1, _STEP)
    values = np.array([level(int(place)) for place in places], dtype=np.float64)
    quiet = np.flatnonzero(values <= QUIET)
    if len(quiet):
        return int(places[quiet[np.argmin(np.abs(places[quiet] - wanted))]])
    best = int(np.argmin(values))
    return int(places[best]) if values[best] < here else wanted
