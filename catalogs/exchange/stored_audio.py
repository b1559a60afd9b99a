"""Audio of an import as the corpus stores it: mono FLAC with the samples that it came with."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from catalogs.exchange.sources.row import RowError
from catalogs.files import one_line

_LONGEST_S = 3600.0
_EXACT = {"PCM_S8": "int16", "PCM_U8": "int16", "PCM_16": "int16", "ULAW": "int16", "ALAW": "int16", "PCM_24": "int32"}
"""Subtypes whose samples FLAC holds as they are, and the integers that they are read as."""


@dataclass(frozen=True)
class StoredAudio:
    """A clip as FLAC. is_exact: whether its samples are those of the source; otherwise they were rounded to integers."""

    flac: bytes
    rate: int
    frames: int
    is_exact: bool


def stored(data: bytes, start_s: float | None, stop_s: float | None) -> StoredAudio:
    """Return a clip, or a part of a file, as FLAC. Mono FLAC files are copied as they are, after they were decoded once.

    Other integers keep their samples. Floats are exact if 24 bits hold them; lossy codecs are decoded to 16 bits. Raises RowError.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as clip:
            rate, frames, subtype, kind = int(clip.samplerate), int(clip.frames), str(clip.subtype), str(clip.format)
            if clip.channels != 1:
                raise RowError(
                    f"it has {clip.channels} channels, a clip has one; voxmill prepare mixes or separates them"
                )
            first = 0 if start_s is None else round(start_s * rate)
            last = frames if stop_s is None else round(stop_s * rate)
            if first > 0 or last < frames - 1:
                if first >= frames or last > frames + 1:
                    raise RowError(f"it is said to end at {last / rate:.2f} s of a file of {frames / rate:.2f} s")
                first, last = first, min(last, frames)
            else:
                first, last = 0, frames
            if not 0 < last - first <= _LONGEST_S * rate:
                raise RowError(
                    f"it has {(last - first) / rate:.0f} s; a clip has more than 0 and at most {_LONGEST_S:.0f}"
                )
            clip.seek(first)
            samples = clip.read(last - first, dtype=_EXACT.get(subtype, "float64"))
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError(f"its audio cannot be decoded ({one_line(error)[:200]})") from None
    if len(samples) != last - first:
        raise RowError(f"its audio is cut off: {len(samples)} samples of {last - first}")
    if kind == "FLAC" and (first, last) == (0, frames):
        return StoredAudio(data, rate, frames, True)
    is_exact = subtype in _EXACT
    width = "PCM_16" if samples.dtype == np.int16 else "PCM_24"
    if not is_exact:
        samples, width, is_exact = _integers(samples, subtype)
    sink = io.BytesIO()
    try:
        soundfile.write(sink, samples, rate, format="FLAC", subtype=width)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise RowError(f"its audio cannot be stored as FLAC ({one_line(error)[:200]})") from None
    return StoredAudio(sink.getvalue(), rate, last - first, is_exact)


def _integers(samples: np.ndarray, subtype: str) -> tuple[np.ndarray, str, bool]:
    """Return floats as integers, the width that FLAC needs, and whether nothing was lost."""
    bits = 24 if subtype in ("FLOAT", "DOUBLE", "PCM_32") else 16
    if not np.isfinite(samples).all():
        raise RowError("its audio holds values that are not numbers")
    scaled = samples * (1 << (bits - 1))
    rounded = np.clip(np.rint(scaled), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    is_exact = bits == 24 and bool((rounded == scaled).all())
    shifted = rounded.astype(np.int32) << (32 - bits)
    return (shifted, "PCM_24", is_exact) if bits == 24 else ((shifted >> 16).astype(np.int16), "PCM_16", is_exact)
