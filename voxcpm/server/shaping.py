"""Change the tempo and the sample rate of audio that arrives in pieces."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from voxcpm.server.writers.blocks import Blocks, Samples

SPEEDS = (0.25, 4.0)
"""Lowest and highest speed."""
_TEMPO_BLOCK = 1024
"""Samples that the filter of the tempo gets at once."""
_NONE = np.zeros(0, np.float32)


class Shaper:
    """float32 [n] at `in_rate` Hz -> float32 [m] at `out_rate` Hz, spoken `speed` times as fast at the same pitch.

    However the samples are cut into pieces, the joined result is the same.
    """

    def __init__(self, in_rate: int, out_rate: int, speed: float = 1.0) -> None:
        """Raises ValueError if `speed` is outside 0.25..4."""
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise ValueError(f"speed {speed:g} is outside {SPEEDS[0]:g}..{SPEEDS[1]:g}")
        self._tempo = None if speed == 1.0 else _Tempo(in_rate, speed)
        self._resampler: Any = None
        if in_rate != out_rate:
            import soxr

            self._resampler = soxr.ResampleStream(in_rate, out_rate, 1, dtype="float32", quality="HQ")

    def push(self, samples: Samples) -> Samples:
        """Return what is ready after the next samples; it may be empty."""
        samples = np.ascontiguousarray(samples, np.float32).reshape(-1)
        if self._tempo is not None:
            samples = self._tempo.push(samples)
        return samples if self._resampler is None or not len(samples) else self._resampler.resample_chunk(samples)

    def finish(self) -> Samples:
        """Return what is left at the end."""
        rest = _NONE if self._tempo is None else self._tempo.finish()
        return rest if self._resampler is None else self._resampler.resample_chunk(rest, last=True)


class _Tempo:
    """FFmpeg's `atempo` (overlapped windows that are aligned by correlation), in stages of at most a factor of two.

    Above two, a single stage would skip samples. The length is right up to one window (85 ms) per stage.
    """

    def __init__(self, rate: int, speed: float) -> None:
        import av.filter

        self._rate, self._at = rate, 0
        # The filter's result depends on the lengths of the frames that it gets.
        self._blocks = Blocks(_TEMPO_BLOCK)
        graph = av.filter.Graph()
        self._source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono", time_base=Fraction(1, rate))
        stages = max(1, math.ceil(abs(math.log2(speed)) - 1e-9))
        last = self._source
        for _ in range(stages):
            stage = graph.add("atempo", f"{speed ** (1 / stages):.9f}")
            last.link_to(stage)
            last = stage
        self._sink: Any = graph.add("abuffersink")
        last.link_to(self._sink)
        graph.configure()
        self._graph = graph  # The filters work as long as their graph exists.

    def push(self, samples: Samples) -> Samples:
        for block in self._blocks.push(samples):
            self._filter(block)
        return self._ready()

    def finish(self) -> Samples:
        if len(rest := self._blocks.rest()):
            self._filter(rest)
        if not self._at:
            return _NONE
        self._source.push(None)
        return self._ready()

    def _filter(self, block: Samples) -> None:
        import av

        frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._at, Fraction(1, self._rate)
        self._at += len(block)
        self._source.push(frame)

    def _ready(self) -> Samples:
        import av.error

        parts = []
        while True:
            try:
                frame: Any = self._sink.pull()
                parts.append(frame.to_ndarray().reshape(-1))
            except (av.error.BlockingIOError, av.error.EOFError):
                return np.concatenate(parts) if parts else _NONE
