"""Write speech to files. The name's suffix sets the format. A file is complete or absent, except for a WAV stream.

Every file states that it is synthetic, except with `mark=False`, and may be signed (docs/provenance.md).
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxcpm.provenance.c2pa.store import sidecar_of
from voxcpm.provenance.files import marked
from voxcpm.provenance.riff import wav_header
from voxcpm.provenance.statement import Statement

if TYPE_CHECKING:
    from voxcpm.provenance.c2pa.signer import Signing

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


def write_audio(path: Path, wav: Wav, rate: int, mark: Statement | bool = True, signing: Signing | None = None) -> int:
    """Write float32 [S] at `rate` Hz, as 16-bit PCM or in the suffix's format; return the number of samples.

    mark: what the file says about itself. True: that it is synthetic, and when it was made; False: nothing.
    signing: how the file is signed; formats that hold no manifest get it beside them (`a.ogg.c2pa` of `a.ogg`). Needs a mark.
    A manifest that stands beside an earlier file of this name is removed.
    Raises ValueError (see `check_name`), and OSError with the file's name.
    """
    import soundfile

    check_name(path)
    statement = _statement(mark)
    kind, subtype = FORMATS[".wav" if path == STDOUT else path.suffix.lower()]
    sink = io.BytesIO()
    try:
        if kind == "WAV":
            data = wav_header(rate, len(wav), _tags(statement)) + _pcm(wav, rate)
        else:
            soundfile.write(sink, wav, rate, format=kind, subtype=subtype)
            data = sink.getvalue() if statement is None else marked(sink.getvalue(), statement)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise ValueError(f"{path}: {kind} at {rate} Hz cannot be written ({error}); use a .wav or .flac") from None
    beside: bytes | None = None
    if signing is not None:
        data, beside = _signed(path, data, statement, signing)
    if path == STDOUT:
        _write_all(sys.stdout.buffer, data, path)
    else:
        _put(path, data, beside)
    return len(wav)


def _signed(path: Path, data: bytes, statement: Statement | None, signing: Signing) -> tuple[bytes, bytes | None]:
    """Return the bytes of a file with its manifest, or (its bytes, the manifest for the place beside it)."""
    if statement is None:
        raise ValueError(f"{path}: a file that states nothing cannot be signed")
    signed = signing.sign(data, statement)
    return signed.data, signed.sidecar


def _put(path: Path, data: bytes, beside: bytes | None) -> None:
    """Write a file, and its manifest beside it if it has one."""
    if beside is not None:
        _replace(sidecar_of(path), beside)
    _replace(path, data)
    if beside is None:
        _remove_stale(path)


def _remove_stale(path: Path) -> None:
    """Remove the manifest beside a file that was written without one. Raises OSError with its name."""
    stale = sidecar_of(path)
    try:
        if stale.is_file():
            stale.unlink()
    except OSError as error:
        raise in_words(error, stale) from None


def _replace(path: Path, data: bytes) -> None:
    """Write a file, or none. Raises OSError with its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            _write_all(file, data, path)
        temporary.replace(path)
    except OSError as error:  # Closing a file flushes the rest of it, and fails once more.
        raise in_words(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_stream(
    path: Path, rate: int, chunks: Iterable[Wav], mark: Statement | bool = True, signing: Signing | None = None
) -> int:
    """Write chunks as they arrive; return the number of samples. mark, signing: see `write_audio`.

    A WAV can be played while it grows; other formats are written at the end. On standard output, the header of the WAV has
    the maximum length. A WAV is signed after its end, so standard output cannot be: raises ValueError.
    """
    if path == STDOUT and signing is not None:
        raise ValueError("a stream on standard output cannot be signed: write it to a file, or leave the stream out")
    if path != STDOUT and path.suffix.lower() != ".wav":
        return write_audio(path, np.concatenate(list(chunks)), rate, mark, signing)
    chunks = iter(chunks)
    # Wait for the first chunk before opening the file: a rejected request must leave no file.
    first = next(chunks, None)
    parts = itertools.chain(() if first is None else (first,), chunks)
    statement = _statement(mark)
    tags = _tags(statement)
    if path == STDOUT:
        return _pour(sys.stdout.buffer, path, rate, parts, tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            samples = _pour(file, path, rate, parts, tags)
    except OSError as error:  # Closing a file flushes the rest of it, and fails once more.
        raise in_words(error, path) from None
    if signing is None:
        _remove_stale(path)
    else:
        _put(path, *_signed(path, path.read_bytes(), statement, signing))
    return samples


def _pour(file: IO[bytes], path: Path, rate: int, parts: Iterable[Wav], tags: Mapping[str, str]) -> int:
    samples = 0
    _write_all(file, wav_header(rate, None if path == STDOUT else 0, tags), path)
    for part in parts:
        _write_all(file, _pcm(part, rate), path)
        samples += len(part)
        if path != STDOUT:
            file.seek(0)
            _write_all(file, wav_header(rate, samples, tags), path)
            file.seek(0, io.SEEK_END)
    return samples


def _pcm(wav: Wav, rate: int) -> bytes:
    """Return samples as s16le."""
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, wav, rate, format="RAW", subtype="PCM_16", endian="LITTLE")
    return sink.getvalue()


def _statement(mark: Statement | bool) -> Statement | None:
    if isinstance(mark, Statement):
        return mark
    return Statement() if mark else None


def _tags(statement: Statement | None) -> Mapping[str, str]:
    return {} if statement is None else statement.tags()


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
