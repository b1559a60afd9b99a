"""Quiet places: move a cut to where nobody speaks."""

from __future__ import annotations

import numpy as np

from pipeline.quality.edges import EDGE_S, measure_levels
from pipeline.records import PCM_RATE

QUIET = 0.2
"""A place is quiet up to this share of the way from background to speech (`Levels.place`). Ends above 0.3 are cut-off
words."""
_STEP = PCM_RATE // 200


def quietest(pcm: np.ndarray, width: int = PCM_RATE // 10) -> int:
    """Return the index of the middle of the quietest `width` samples."""
    power = np.concatenate([[0.0], np.cumsum(np.square(pcm, dtype=np.float64))])
    width = min(width, len(pcm))
    return int(np.argmin(power[width:] - power[:-width])) + width // 2


def settle(samples: np.ndarray, wanted: int, low: int, high: int) -> int:
    """Return the index between `low` and `high` at which to cut float32 [S] at 16 kHz: `wanted` if that is quiet.

    Otherwise the nearest quiet index. The 30 ms on each side of it are compared with the levels of speech and background of
    all samples, because `measure_edges` takes 30 ms of a clip for its end. If no pause is that long, 15 ms on each side are
    enough. If nothing is quiet, the quietest index is used. If the levels do not differ, `wanted` stays.
    """
    levels = measure_levels(samples)
    places = np.arange(low, high + 1, _STEP)
    for half in (round(EDGE_S * PCM_RATE), round(EDGE_S * PCM_RATE) // 2):
        here = levels.place(samples[max(0, wanted - half) : wanted + half])
        if here is None or here <= QUIET:
            return wanted
        around = (levels.place(samples[max(0, int(place) - half) : int(place) + half]) for place in places)
        values = np.array(list(around), dtype=np.float64)
        quiet = np.flatnonzero(values <= QUIET)
        if len(quiet):
            return int(places[quiet[np.argmin(np.abs(places[quiet] - wanted))]])
    best = int(np.argmin(values))
    return int(places[best]) if values[best] < here else wanted
