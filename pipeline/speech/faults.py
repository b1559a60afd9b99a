"""Faults of generated speech, found in the level of a clip and in what a recognizer heard. Pure functions.

The limits were set on recordings of people (docs/evaluation.md has the shares that they flag there): a fault is something that
people hardly ever do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATE = 16_000
FRAME_S = 0.01
SPEECH_RANGE_DB = 30.0
"""A frame has sound if it is at most this far below the level of speech."""
FLOOR_SHARE = 0.3
"""In noisy clips: and at least this share of the way from the background to the speech, in dB."""
JOINED_S = 0.1
"""Shorter gaps do not separate sounds: they are stops within words."""
SILENT_DB = -80.0
"""Frames below this level (dBFS) have no sound, whatever the level of speech."""
SHORTEST_S = 0.05
"""Shorter sounds are clicks; they do not count as the beginning or the end of speech."""

START_S = 0.2
"""The level of the start is that of the first 200 ms."""
BURST_S, BURST_GAP_S, BURST_DB = (0.03, 0.3), 0.15, -20.0
"""A start artifact is a sound of 0.03 to 0.3 s, that begins in the first 0.2 s, is separated from the next sound by 0.15 s or
more, is at most 20 dB below speech, and ends before the middle of the first word."""
TAIL_S = 1.0
"""Seconds of sound after the last word that make a tail."""
TAIL_UNITS = {"word": 3, "char": 6}
"""Words (characters) after the end of the text that make a tail."""
LOOP_UNITS = {"word": 3, "char": 6}
"""Length of the sequences whose repetition makes a loop."""
STOP_SHARE = 1 / 3
"""Share of the text, at its end, that is missing after an early stop."""
STOP_UNITS = {"word": 2, "char": 4}
"""Words (characters) that are at least missing after an early stop."""


@dataclass(frozen=True)
class Sounds:
    """Where a clip has sound. `spans`: (start, end) in seconds, in order, gaps up to 0.1 s closed. `level_db` [frames]: level
    of frames of 10 ms. `speech_db`: level of speech. `seconds`: length of the clip."""

    spans: list[tuple[float, float]]
    level_db: np.ndarray
    speech_db: float
    seconds: float

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Spans that are long enough to be speech; all if none is."""
        return [span for span in self.spans if span[1] - span[0] >= SHORTEST_S] or self.spans

    def mean_db(self, start: float, end: float) -> float:
        """Return the mean level between two times, in dB relative to speech."""
        frames = self.level_db[round(start / FRAME_S) : max(round(end / FRAME_S), round(start / FRAME_S) + 1)]
        if not len(frames):
            return -np.inf
        return float(10 * np.log10(np.mean(10 ** (frames / 10))) - self.speech_db)

    def sound_after(self, time: float) -> float:
        """Return the seconds of sound after a time."""
        return sum(max(0.0, end - max(start, time)) for start, end in self.spans)


def find_sounds(samples: np.ndarray) -> Sounds:
    """Return the sounds of float32 [S] at 16 kHz."""
    from pipeline.quality.edges import measure_levels

    size = round(FRAME_S * RATE)
    count = max(1, len(samples) // size)
    padded = np.pad(samples, (0, max(0, count * size - len(samples))))[: count * size]
    power = np.square(padded, dtype=np.float64).reshape(count, size).mean(axis=1)
    level_db = 10 * np.log10(np.maximum(power, 1e-10))
    levels = measure_levels(samples)
    contrast = max(levels.speech_db - levels.floor_db, 0.0)
    limits = (levels.speech_db - SPEECH_RANGE_DB, levels.floor_db + FLOOR_SHARE * contrast, SILENT_DB)
    active = level_db >= max(limits)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    spans: list[tuple[float, float]] = []
    for start, end in (edges.reshape(-1, 2) * FRAME_S).tolist():
        if spans and start - spans[-1][1] < JOINED_S:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return Sounds(spans, level_db, levels.speech_db, len(samples) / RATE)


def has_start_artifact(sounds: Sounds, first_word: tuple[float, float] | None) -> bool:
    """Return True if a short sound precedes the first word (start and end in seconds; None: nothing was recognized)."""
    if len(sounds.spans) < 2 or first_word is None:
        return False
    (start, end), (following, _) = sounds.spans[:2]
    return (
        start < START_S
        and BURST_S[0] <= end - start <= BURST_S[1]
        and following - end >= BURST_GAP_S
        and sounds.mean_db(start, end) >= BURST_DB
        and end < (first_word[0] + first_word[1]) / 2
    )


def units_after_the_end(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Return the number of units at the end of what was heard that come after the whole text."""
    from pipeline.text.compare import prefix_distances

    distances = prefix_distances(wanted, heard)
    # Of equally good ends, the last: it may be a word of the text that was heard wrongly.
    covered = len(distances) - 1 - int(np.argmin(distances[::-1]))
    return len(heard) - covered


def units_missing_at_the_end(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Return the number of units at the end of a text that were not heard."""
    from pipeline.text.compare import prefix_distances

    distances = prefix_distances(heard, wanted)
    covered = len(distances) - 1 - int(np.argmin(distances[::-1]))
    return len(wanted) - covered


def stops_early(wanted: Sequence[str], heard: Sequence[str], unit: str) -> bool:
    """Return True if the last third of the text was not heard, and that is more than a word or so.

    Not judged if digits were heard that the text spells out: few digits stand for many words.
    """
    if _digits(heard) > _digits(wanted):
        return False
    missing = units_missing_at_the_end(wanted, heard)
    return missing >= max(STOP_UNITS[unit], STOP_SHARE * len(wanted))


def repeated_units(wanted: Sequence[str], heard: Sequence[str], length: int) -> int:
    """Return how many runs of `length` units were heard more often than the text has them, beyond the first time.

    0 unless at least `length` units more were heard than the text has: a word that is spelled differently each time must not count.
    """
    if len(heard) - len(wanted) < length:
        return 0
    asked, found = (
        Counter(tuple(units[place : place + length]) for place in range(len(units) - length + 1))
        for units in (wanted, heard)
    )
    return sum(max(0, times - max(asked[run], 1)) for run, times in found.items())


def _digits(units: Sequence[str]) -> int:
    return sum(any(c.isdigit() for c in unit) for unit in units)
