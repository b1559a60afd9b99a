"""Open recordings: anything that libsndfile or FFmpeg reads, streamed at its native rate, with one readable line for a bad
file.

Everything here works in chunks, so that a recording of many hours needs no more memory than one of a minute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.audio.probe import AudioFileError, AudioInfo, StreamReport, UnreachableError, what_it_is
from pipeline.audio.readers import probe_av, probe_soundfile, read_av, read_soundfile

__all__ = [
    "AudioFileError",
    "AudioInfo",
    "StreamReport",
    "UnreachableError",
    "probe",
    "probe_seconds",
    "read_chunks",
    "stream_mono",
]

_MIN_RATE, _MAX_RATE = 4_000, 768_000
# Seconds of audible sound by which channels and offset are judged, and seconds of the beginning in which it is searched.
_JUDGED_S, _LOOKED_AT_S = 20.0, 60.0
_AUDIBLE = 10 ** (-60 / 20)
# The mix of unrelated channels has the mean of their powers divided by their number. A tenth of that means that they cancel
# each other: one has inverted polarity.
_CANCELED = 0.1
# In a good recording, half of all samples lie on each side of zero. Otherwise the recorder has a fault. (The mean would
# also take the asymmetric peaks of clipped speech for an offset.)
_OFFSET = 0.01


def probe(path: str) -> AudioInfo:
    """Read a file's header. Raises AudioFileError with one line for anything that is not usable audio."""
    file = Path(path)
    try:
        if file.stat().st_size == 0:
            raise AudioFileError("the file is empty (0 bytes)")
        with file.open("rb") as handle:
            head = handle.read(512)
    except PermissionError:
        raise UnreachableError("no permission to read the file") from None
    except FileNotFoundError:
        raise UnreachableError("the file is gone") from None
    if not head.strip(b"\0"):
        with file.open("rb") as handle:
            if not any(block.strip(b"\0") for block in iter(lambda: handle.read(1 << 20), b"")):
                raise AudioFileError("the file holds nothing but zero bytes")
    if other := what_it_is(head):
        raise AudioFileError(other)
    info = probe_soundfile(path, head) or probe_av(path)
    if info.channels < 1:
        raise AudioFileError("the audio has no channels")
    if not _MIN_RATE <= info.sample_rate <= _MAX_RATE:
        raise AudioFileError(f"sample rate {info.sample_rate} Hz is outside {_MIN_RATE}-{_MAX_RATE} Hz")
    return info


def probe_seconds(path: str) -> float:
    """Return the duration in a file's header, in seconds; 0 if it cannot be read or states none."""
    try:
        return probe(path).duration_s
    except (AudioFileError, OSError):
        return 0.0


def read_chunks(path: str, info: AudioInfo) -> Iterator[np.ndarray]:
    """Yield float32 [S, C] chunks at the native rate, as they are in the file. Raises AudioFileError as `stream_mono` does."""
    return _finite_chunks(path, info, StreamReport())


def stream_mono(
    path: str, info: AudioInfo | None = None, report: StreamReport | None = None, channel: int | None = None
) -> Iterator[np.ndarray]:
    """Yield float32 [S] chunks at the native rate: the channels' mean without a constant offset, within -1..1.

    With `channel`, only that channel is used; otherwise, if the channels cancel each other, only the louder one. A floating
    point file with peaks above full scale is turned down as a whole. What was changed and what was lost is written to
    `report`; every pass over a file gives the same samples. Raises AudioFileError for data that turns out to be unreadable,
    and for NaN or infinite samples.
    """
    info = info or probe(path)
    report = report if report is not None else StreamReport()
    if info.is_float:
        report.gain = 1.0 / max(1.0, _peak(path, info))
    mixdown: _Mixdown | None = None
    held: list[np.ndarray] = []
    for chunk in _finite_chunks(path, info, report):
        held.append(chunk)
        if mixdown is None and not _enough(held, info.sample_rate):
            continue
        mixdown = mixdown or _Mixdown.judge(held, info.sample_rate, report, channel)
        yield from (mixdown.apply(part) for part in held)
        held = []
    if held:
        mixdown = _Mixdown.judge(held, info.sample_rate, report, channel)
        yield from (mixdown.apply(part) for part in held)


@dataclass(frozen=True)
class _Mixdown:
    """How a file's channels become one: decided once for the whole file, to avoid an audible seam."""

    channel: int | None
    offset: float
    gain: float

    @classmethod
    def judge(cls, chunks: list[np.ndarray], rate: int, report: StreamReport, channel: int | None) -> _Mixdown:
        """Decide by the audible part of the beginning, and write the decision to the report."""
        audio = np.concatenate(chunks)
        loud = audio[np.abs(audio).max(axis=1) >= _AUDIBLE]
        if channel is None and len(loud) and audio.shape[1] > 1:
            power = np.square(loud, dtype=np.float64).mean(axis=0)
            mixed = float(np.square(loud.mean(axis=1), dtype=np.float64).mean())
            if mixed < _CANCELED * float(power.sum()) / len(power) ** 2:
                channel = report.channel = int(power.argmax())
        if len(audio) >= rate:
            mono = audio.mean(axis=1) if channel is None else audio[:, channel]
            offset = float(np.median(mono)) * report.gain
            # A whole number of 16-bit steps, so that a 16-bit recording stays exact.
            report.offset = round(offset * 32768) / 32768 if abs(offset) > _OFFSET else 0.0
        return cls(channel, report.offset, report.gain)

    def apply(self, chunk: np.ndarray) -> np.ndarray:
        """Convert float32 [S, C] to float32 [S]."""
        if chunk.shape[1] == 1:
            mono = chunk[:, 0]
        else:
            mono = chunk.mean(axis=1) if self.channel is None else chunk[:, self.channel]
        if self.gain != 1.0 or self.offset:
            mono = np.clip(mono * np.float32(self.gain) - np.float32(self.offset), -1.0, 1.0)
        return np.ascontiguousarray(mono)


def _enough(chunks: list[np.ndarray], rate: int) -> bool:
    audible = sum(int((np.abs(chunk).max(axis=1) >= _AUDIBLE).sum()) for chunk in chunks)
    return audible >= _JUDGED_S * rate or sum(map(len, chunks)) >= _LOOKED_AT_S * rate


def _finite_chunks(path: str, info: AudioInfo, report: StreamReport) -> Iterator[np.ndarray]:
    for chunk in (read_soundfile if info.reader == "soundfile" else read_av)(path, info, report):
        finite = np.isfinite(chunk)
        if not finite.all():
            first = (report.samples + int(np.argmin(finite.all(axis=1)))) / info.sample_rate
            raise AudioFileError(f"holds samples that are NaN or infinite, first at {first:.2f} s")
        report.samples += len(chunk)
        yield chunk


def _peak(path: str, info: AudioInfo) -> float:
    peaks = (float(np.abs(chunk).max(initial=0.0)) for chunk in _finite_chunks(path, info, StreamReport()))
    return max((peak for peak in peaks if math.isfinite(peak)), default=0.0)
