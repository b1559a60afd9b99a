"""Find the mark in audio of any length, in bounded memory: in windows, and in the sum over all of them.

A window is 5.12 s long, two periods of the pattern, and windows overlap by half. A mark that is too weak for one window may show in
the sum over the whole file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import soxr
from numpy.typing import NDArray

from voxcpm.watermark.correlate import Match, decoy_scores, match
from voxcpm.watermark.embed import HIGHEST_RATE, LOWEST_RATE
from voxcpm.watermark.features import HOP, RATE
from voxcpm.watermark.keys import PUBLIC_KEY, Key
from voxcpm.watermark.pattern import BANDS, FRAMES
from voxcpm.watermark.search import GRID, Hit, Spans, Window, search
from voxcpm.watermark.thresholds import DECOYS, SAME_PAYLOAD, passes

Floats = NDArray[np.float32]

_PERIOD = FRAMES * HOP
"""Samples of one period of the pattern at 16 kHz: windows start at multiples of it."""

_BLOCK = 1 << 16
"""Most samples that are resampled at once."""


@dataclass(frozen=True)
class Detection:
    """What was found of one key in a file."""

    key: str  #: the key's name
    marked: bool  #: the score is above the fixed threshold, and no decoy has as high a score
    z: float  #: the best score; without a mark about 5.7
    p_value: float  #: share of the file's own decoys, and of itself, that reach `z`: 1/64 at least, 1 without decoys
    payload: int | None = None  #: 16 bits, None if it is not marked or if the checksum does not fit
    spans: tuple[tuple[float, float], ...] = ()  #: (start, end) of marked audio, seconds
    speed: float = 1.0  #: how many times faster it is played, with its pitch; thorough only
    tempo: float = 1.0  #: how many times faster it is, with the pitch kept; thorough only


@dataclass
class _Findings:
    """What the windows said about one key so far."""

    decoys: Floats  #: best score of each decoy
    hits: list[tuple[float, Hit]] = field(default_factory=list)  #: (start of the window in seconds, hit)
    total: Floats = field(default_factory=lambda: np.zeros((2, FRAMES, BANDS), np.float32))
    best: Hit | None = None
    searches: int = 0

    def floor(self, match: Match) -> float:
        """Return the score that decoys have to exceed to count, now that `match` is known: just below the best one."""
        best = max(match.score, self.best.match.score if self.best else 0.0)
        return float(np.nextafter(np.float32(best), np.float32(-np.inf)))

    def add(self, start: float, hits: Sequence[Hit], decoys: Floats, searches: int) -> None:
        """Add one window. Only hits that may be marks are kept."""
        for hit in hits:
            if self.best is None or hit.match.score > self.best.match.score:
                self.best = hit
            if (hit.match.fits and hit.match.score > SAME_PAYLOAD) or passes(hit.match.score, hit.match.fits):
                self.hits.append((start, hit))
        self.decoys = np.maximum(self.decoys, decoys)
        self.searches += searches


class Detector:
    """Looks for keys in one channel of audio at `rate` Hz that arrives in blocks of any length.

    thorough: where a window has no mark, look for other speeds (0.94 to 1.06) and tempos (0.88 to 1.12); takes about as long as
    the audio. decoys: 0 leaves out the comparison with keys that are not there, which takes longer than the search; if it finds a
    mark, look again with them. Raises ValueError if the rate is not in 4..384 kHz or if there are more than 63 decoys.
    """

    def __init__(
        self, rate: int, keys: Sequence[Key] = (PUBLIC_KEY,), thorough: bool = False, decoys: int = DECOYS
    ) -> None:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise ValueError(f"a watermark needs a sample rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, not {rate}")
        if not 0 <= decoys < BANDS:
            raise ValueError(f"{decoys} decoys: a pattern has 0 to {BANDS - 1}")
        self._keys, self._thorough, self._rate, self._decoys = tuple(keys), thorough, rate, decoys
        self._resampler = soxr.ResampleStream(rate, RATE, 1, dtype="float32") if rate != RATE else None
        self._held = np.zeros(0, np.float32)
        self._start = self._samples = self._windows = 0
        self._findings = [_Findings(np.zeros(decoys, np.float32)) for _ in self._keys]

    def push(self, samples: Floats) -> None:
        """Take the next samples [n]. Values that are not finite count as 0. Raises ValueError if there is more than one channel."""
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise ValueError(f"the watermark is looked for in one channel [n], not in samples of shape {samples.shape}")
        self._samples += len(samples)
        for at in range(0, len(samples), _BLOCK):
            self._feed(np.nan_to_num(samples[at : at + _BLOCK], nan=0, posinf=0, neginf=0))

    def finish(self) -> list[Detection]:
        """Return what was found of each key, after the last samples."""
        self._feed(np.zeros(0, np.float32), last=True)
        self._window(self._held, len(self._held))
        return [self._detection(key, found) for key, found in zip(self._keys, self._findings, strict=True)]

    def _feed(self, samples: Floats, last: bool = False) -> None:
        """Resample, and search the windows that are complete and are not the last one."""
        fresh = samples if self._resampler is None else self._resampler.resample_chunk(samples, last=last)
        self._held = np.concatenate((self._held, fresh))
        while len(self._held) >= 3 * _PERIOD:
            self._window(self._held[: 2 * _PERIOD], _PERIOD)
            self._held = self._held[_PERIOD:].copy()
            self._start += _PERIOD

    def _window(self, samples: Floats, own: int) -> None:
        """Search one window. own: samples at its start that no later window has."""
        plain = Window(samples)
        folded, start = plain.folded(), self._start / RATE
        self._windows += 1
        for key, findings in zip(self._keys, self._findings, strict=True):
            hits, searches = plain.hits(key), 1
            decoys = decoy_scores(folded, key, self._decoys, findings.floor(hits[0].match))
            if self._thorough and not passes(hits[0].match.score, hits[0].match.fits):
                other, others = search(samples, key, GRID, self._decoys, findings.floor(hits[0].match))
                decoys, searches = np.maximum(decoys, others), 1 + len(GRID)
                if other.match.score > hits[0].match.score:
                    hits = [other]
            findings.add(start, hits, decoys, searches)
            findings.total += plain.folded(-(-own // HOP))

    def _detection(self, key: Key, found: _Findings) -> Detection:
        """Return the verdict on a key."""
        assert found.best is not None, "there is at least one window"
        if self._windows > 1:
            whole = Hit(match(found.total, key), spans=[(0.0, self._samples / self._rate)])
            decoys = decoy_scores(found.total, key, self._decoys, found.floor(whole.match))
            found.add(0.0, [replace(whole, spans=[])], decoys, 1)
        else:
            whole = found.best
        best = found.best
        p_value = (1 + int(np.count_nonzero(found.decoys >= best.match.score))) / (1 + len(found.decoys))
        marked = passes(best.match.score, best.match.fits, found.searches) and p_value * (1 + len(found.decoys)) < 2
        if not marked:
            return Detection(key.name, False, round(best.match.score, 2), p_value)
        return Detection(
            key.name,
            True,
            round(best.match.score, 2),
            p_value,
            best.match.payload if best.match.readable else None,
            tuple(self._spans(found, best.match, whole)),
            best.speed,
            best.tempo,
        )

    def _spans(self, found: _Findings, best: Match, whole: Hit) -> Spans:
        """Return the marked spans of the file. If only the sum over the file shows the mark, they are the file."""
        spans: Spans = []
        for start, hit in found.hits:
            same = hit.match.fits and best.readable and hit.match.payload == best.payload
            if same or passes(hit.match.score, hit.match.fits, found.searches):
                spans += [(start + a, start + b) for a, b in hit.spans]
        merged: Spans = []
        for a, b in sorted(spans or whole.spans):
            if merged and a <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], b)
            else:
                merged.append((a, b))
        length = self._samples / self._rate
        return [(round(a, 2), round(min(b, length), 2)) for a, b in merged]


def detect(samples: Floats, rate: int, keys: Sequence[Key] = (PUBLIC_KEY,), thorough: bool = False) -> list[Detection]:
    """Return what is found of each key in samples [n] at `rate` Hz. See `Detector`."""
    return detect_blocks([samples], rate, keys, thorough)


def detect_blocks(
    blocks: Iterable[Floats],
    rate: int,
    keys: Sequence[Key] = (PUBLIC_KEY,),
    thorough: bool = False,
    decoys: int = DECOYS,
) -> list[Detection]:
    """Return what is found of each key in blocks of samples, which may be hours long. See `Detector`."""
    detector = Detector(rate, keys, thorough, decoys)
    for block in blocks:
        detector.push(block)
    return detector.finish()
