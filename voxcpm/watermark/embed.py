"""Put the mark into speech while it is made: each band of each frame becomes louder or quieter by its `STRENGTHS_DB`.

Samples come out less than two hops (40 ms) after they went in; with chunks of whole hops, one hop (20 ms) is held back. Only the
difference is computed in the spectrum and added: silence stays silence, and what lies above the bands stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from voxcpm.watermark.code import encode
from voxcpm.watermark.keys import PUBLIC_KEY, Key
from voxcpm.watermark.pattern import FRAMES, FRAMES_PER_SECOND, STRENGTHS_DB, band_of_bins, pattern_of

Samples = NDArray[np.float32]

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
"""Hz. From 16 kHz on, all bands exist. Below, those that the rate has."""

_BATCH = 32
"""Most frames that are transformed at once: bounds the memory of a long chunk."""


@dataclass(repr=False)
class StreamState:
    """One stream: `held` and `added` begin at the same sample, `start`. Time starts one hop of silence before the stream.

    It has no representation, since `changes` tells the pattern of a key.
    """

    rate: int
    changes: NDArray[np.float32]  #: change of the lower bins, as a factor less 1 [FRAMES, bins]
    window: Samples  #: square root of a Hann window
    held: Samples  #: samples that did not come out yet
    added: Samples  #: what the frames before `frame` add to them
    skip: int  #: samples of silence that do not come out
    start: int = 0
    frame: int = 0  #: the next frame
    clipped: int = 0  #: samples limited so far


@dataclass(frozen=True)
class SpeechMark:
    """Marks any number of streams of one channel at once; see `voxcpm.provenance.watermark_hook.Watermark`.

    Every key of `keys` is embedded, and can be read without the others. The pattern starts at a random phase in each stream. With a
    `seed`, the phases are the same for all streams of this object; without one, they come from the operating system.
    Samples that the mark would push beyond full scale are limited to it and counted in `StreamState.clipped`. Of several channels,
    each is a stream.
    Raises ValueError if the payload is not in 0..65535 or if `keys` is empty.
    """

    payload: int
    keys: Sequence[Key] = field(default=(PUBLIC_KEY,))
    seed: int | None = None

    def __post_init__(self) -> None:
        encode(self.payload)
        object.__setattr__(self, "keys", tuple(self.keys))
        if not self.keys:
            raise ValueError("a watermark needs at least one key")

    def start(self, rate: int) -> StreamState:
        """Return the state of a new stream at `rate` Hz. Raises ValueError if the rate is not in 4..384 kHz."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise ValueError(f"a watermark needs a sample rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, not {rate}")
        hop = round(rate / FRAMES_PER_SECOND)
        window = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop)).astype(np.float32)
        silence = np.zeros(hop, np.float32)
        return StreamState(rate, self._changes(2 * hop, rate), window, silence, silence, hop)

    def mark(self, samples: Samples, state: StreamState) -> tuple[Samples, StreamState]:
        """Return (marked samples [m], state after them) for the next samples [n] float32. m may differ from n.

        The state is changed in place. Raises ValueError if there is more than one channel.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise ValueError(f"the watermark goes into one channel [n], not into samples of shape {samples.shape}")
        state.held = np.concatenate((state.held, samples))
        state.added = np.concatenate((state.added, np.zeros(len(samples), np.float32)))
        _add_frames(state)
        return _take(state, _frame_start(state, state.frame) - state.start), state

    def finish(self, state: StreamState) -> Samples:
        """Return the samples [m] that are left at the end of a stream, so that as many came out as went in."""
        left = len(state.held)
        silence = np.zeros(2 * len(state.window), np.float32)
        state.held, state.added = np.concatenate((state.held, silence)), np.concatenate((state.added, silence))
        _add_frames(state)
        return _take(state, left)

    def _changes(self, length: int, rate: int) -> NDArray[np.float32]:
        """Return the change of each bin that lies in a band, as a factor less 1 [FRAMES, bins], each key at a random phase."""
        phases = np.random.default_rng(None if self.seed is None else self.seed % (1 << 64)).integers(
            FRAMES, size=len(self.keys)
        )
        signs = sum(
            np.roll(pattern_of(key).signs(self.payload), -phase, axis=0).astype(np.float64)
            for key, phase in zip(self.keys, phases, strict=True)
        )
        factors = 10 ** (np.asarray(signs) * (STRENGTHS_DB / 20)) - 1
        bands = band_of_bins(length // 2 + 1, rate / length)
        bands = bands[: np.flatnonzero(bands >= 0)[-1] + 1]
        return np.where(bands >= 0, factors[:, bands], 0).astype(np.float32)


def mark(
    samples: Samples, rate: int, payload: int, keys: Sequence[Key] = (PUBLIC_KEY,), seed: int | None = None
) -> Samples:
    """Return marked samples [n] of a whole clip [n] float32 at `rate` Hz. Raises ValueError as `SpeechMark` does."""
    watermark = SpeechMark(payload, keys, seed)
    first, state = watermark.mark(samples, watermark.start(rate))
    return np.concatenate((first, watermark.finish(state)))


def _frame_start(state: StreamState, frame: int) -> int:
    """Return the sample at which a frame starts. It is rounded for each frame, so that no rate drifts."""
    return (frame * state.rate + FRAMES_PER_SECOND // 2) // FRAMES_PER_SECOND


def _add_frames(state: StreamState) -> None:
    """Add the changes of all frames that have their samples."""
    length, bins = len(state.window), state.changes.shape[1]
    end = state.start + len(state.held) - length
    windows = sliding_window_view(state.held, length) if end >= state.start else None
    while windows is not None and _frame_start(state, state.frame) <= end:
        frames = [state.frame]
        while len(frames) < _BATCH and _frame_start(state, frames[-1] + 1) <= end:
            frames.append(frames[-1] + 1)
        places = [_frame_start(state, frame) - state.start for frame in frames]
        spectra = np.fft.rfft(windows[places] * state.window, axis=1)[:, :bins]
        spectra *= state.changes[np.array(frames) % FRAMES]
        changes = np.fft.irfft(spectra, length, axis=1) * state.window
        for place, change in zip(places, changes, strict=True):
            state.added[place : place + length] += change
        state.frame = frames[-1] + 1


def _take(state: StreamState, count: int) -> Samples:
    """Remove the first samples from the state and return them marked, without the silence before the stream."""
    count = min(max(count, 0), len(state.held))
    plain, out = state.held[:count], state.held[:count] + state.added[:count]
    # A sample that was beyond full scale before may stay as large as it was.
    most = np.maximum(np.abs(plain), 1)
    state.clipped += int(np.count_nonzero(np.abs(out) > most))
    out = np.clip(out, -most, most)
    state.held, state.added = state.held[count:].copy(), state.added[count:].copy()
    state.start += count
    skipped = min(state.skip, count)
    state.skip -= skipped
    return out[skipped:]
