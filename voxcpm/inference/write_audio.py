"""Write speech to files. The name's suffix sets the format. A file is complete or absent, except for a WAV stream."""

from __future__ import annotations

import io
import itertools
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Wav = NDArray[np.float32]

#: Suffix of the name -> libsndfile's format and subtype.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
STDOUT = Path("-")
_FULL = (28, 122)
"""ENOSPC and EDQUOT: no space left on the device, quota exceeded."""


def check_name(path: Path, stream: bool = False) -> None:
    """Raise ValueError if the name's suffix is not a supported format (for a stream: WAV). `-` is standard output."""
    if path == STDOUT:
        return
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: the name's ending says the format; use one of {', '.join(FORMATS)}")
    if stream and path.suffix.lower() != ".wav":
        raise ValueError(
            f"{path}: a stream is written as WAV only; use {path.with_suffix('.wav')}, or leave --stream out"
        )


def write_audio(path: Path, wav: Wav, rate: int) -> int:
    """Write float32 [S] at `rate` Hz, as 16-bit PCM or in the suffix's format; return the number of samples.

    Raises ValueError (see `check_name`), and OSError with the file's name.
    """
    import soundfile

    check_name(path)
    kind, subtype = FORMATS[".wav" if path == STDOUT else path.suffix.lower()]
    sink = io.BytesIO()
    try:
        soundfile.write(sink, wav, rate, format=kind, subtype=subtype)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise ValueError(f"{path}: {kind} at {rate} Hz cannot be written ({error}); use a .wav or .flac") from None
    if path == STDOUT:
        _write_all(sys.stdout.buffer, sink.getvalue(), path)
        return len(wav)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            _write_all(file, sink.getvalue(), path)
        temporary.replace(path)
    except OSError as error:  # Closing a file flushes the rest of it, and fails once more.
        raise in_words(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)
    return len(wav)


def write_stream(path: Path, rate: int, chunks: Iterable[Wav]) -> int:
    """Write chunks as they arrive; return the number of samples.

    A WAV can be played while it grows; other formats are written at the end. On standard output, the header of the WAV has
    the maximum length.
    """
    if path != STDOUT and path.suffix.lower() != ".wav":
        return write_audio(path, np.concatenate(list(chunks)), rate)
    chunks = iter(chunks)
    # Wait for the first chunk before opening the file: a rejected request must leave no file.
    first = next(chunks, None)
    if path == STDOUT:
        return _pour(sys.stdout.buffer, path, rate, first, chunks)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            return _pour(file, path, rate, first, chunks)
    except OSError as error:  # Closing a file flushes the rest of it, and fails once more.
        raise in_words(error, path) from None


def _pour(file: IO[bytes], path: Path, rate: int, chunk: Wav | None, chunks: Iterable[Wav]) -> int:
    samples = 0
    _write_all(file, _header(rate, None if path == STDOUT else 0), path)
    for part in itertools.chain(() if chunk is None else (chunk,), chunks):
        samples += _add(file, path, rate, part, samples)
    return samples


def _add(file: IO[bytes], path: Path, rate: int, part: Wav, before: int) -> int:
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, part, rate, format="RAW", subtype="PCM_16")
    _write_all(file, sink.getvalue(), path)
    if path != STDOUT:
        file.seek(0)
        _write_all(file, _header(rate, before + len(part)), path)
        file.seek(0, io.SEEK_END)
    return len(part)


def _header(rate: int, samples: int | None) -> bytes:
    """The 44-byte header of a mono 16-bit WAV; samples None: the maximum length, for a stream of unknown length."""
    data = 0xFFFFFFFF - 36 if samples is None else 2 * samples
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + data, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", data
    )


def _write_all(file: IO[bytes], data: bytes, path: Path) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise in_words(error, path) from None


def in_words(error: OSError, path: Any) -> OSError:
    """Return the error with the file's name and, if the disk is full, a message that says what to do."""
    if error.errno in _FULL:
        return OSError(
            error.errno, "no space left on the disk for the audio; free some and run the same command again", str(path)
        )
    return type(error)(error.errno, error.strerror or str(error), str(path)) if error.errno else error
