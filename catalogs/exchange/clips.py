"""One clip of an export: its row, its words and its audio, as stored or in the form that a reader wants."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from catalogs.corpus.ids import short_hash

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_SUBTYPES = {"PCM_S8": "int16", "PCM_U8": "int16", "PCM_16": "int16", "PCM_24": "int32"}


def file_stem(segment_id: str) -> str:
    """Return the name of a clip's files, without a dot: its id, or a hash of an id that would not be safe in a path."""
    return segment_id if _SAFE.fullmatch(segment_id) else f"id-{short_hash('name', segment_id)}"


def audio_path(segment_id: str, suffix: str) -> str:
    """Return the path of a clip's audio in an export of files. 256 folders keep each of them small."""
    return f"audio/{short_hash('folder', segment_id)[:2]}/{file_stem(segment_id)}.{suffix}"


@dataclass
class Clip:
    """One clip: `row` as selected, `words` with times from its start, `flac` as the shard holds it."""

    row: dict[str, Any]
    words: list[dict[str, Any]] | None
    flac: bytes | None
    audio: str
    """`flac`, `wav` or `none`."""
    sample_rate: int | None
    """Hz; None: as stored."""

    @property
    def id(self) -> str:
        """Identity of the segment."""
        return str(self.row["segment_id"])

    @property
    def is_as_stored(self) -> bool:
        """Whether the audio is the shard's FLAC file, byte by byte."""
        return self.audio == "flac" and self.sample_rate in (None, self.row["sample_rate"])

    @property
    def suffix(self) -> str:
        """Suffix of its audio file."""
        return "wav" if self.audio == "wav" else "flac"

    @cached_property
    def about(self) -> tuple[int, int]:
        """(rate in Hz, number of samples) of the audio that `data` returns."""
        import soundfile

        if self.flac is None:
            rate = int(self.sample_rate or self.row["sample_rate"])
            return rate, round(self.row["duration_s"] * rate)
        with soundfile.SoundFile(io.BytesIO(self.flac if self.is_as_stored else self.data)) as clip:
            return int(clip.samplerate), int(clip.frames)

    @cached_property
    def data(self) -> bytes:
        """The audio file. FLAC as stored is copied; otherwise samples are equal unless they are resampled."""
        assert self.flac is not None
        return self.flac if self.is_as_stored else converted(self.flac, self.audio, self.sample_rate)


def converted(data: bytes, audio: str, sample_rate: int | None) -> bytes:
    """Return a clip as WAV or FLAC with the same integers as samples, or resampled (soxr, HQ) and rounded to as many bits.

    sample_rate: Hz, None for that of the clip.
    """
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as clip:
        rate, subtype = int(clip.samplerate), str(clip.subtype)
        kind = _SUBTYPES.get(subtype, "int16")
        wanted = int(sample_rate or rate)
        samples = clip.read(dtype=kind if wanted == rate else "float32")
    if wanted != rate:
        import soxr

        samples = np.clip(soxr.resample(samples, rate, wanted), -1.0, 1.0)
    sink = io.BytesIO()
    written = "PCM_24" if kind == "int32" else "PCM_16"
    soundfile.write(sink, samples, wanted, format=audio.upper(), subtype=written)
    return sink.getvalue()
