"""Look for the watermark in audio files of any format and length, in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxcpm.errors import AudioError, first_line
from voxcpm.watermark.detect import Detection, detect_blocks
from voxcpm.watermark.keys import PUBLIC_KEY, Key

_BLOCK = 1 << 16
"""Frames that are read at once."""

_UNKNOWN_LENGTH = 1 << 48
"""Frames from which on a length is not one: what libsndfile says of a file that states none."""


def detect_in_file(
    path: str | Path, keys: Sequence[Key] = (PUBLIC_KEY,), thorough: bool = False
) -> tuple[list[Detection], float]:
    """Return (what is found of each key, seconds of audio) in a file. Its channels are mixed. See `voxcpm.watermark.detect`.

    Raises FileNotFoundError, and AudioError if the file cannot be decoded or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no audio file at {path}")
    rate, blocks = _open(path)
    samples = 0

    def counted() -> Iterator[NDArray[np.float32]]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    found = detect_blocks(counted(), rate, keys, thorough)
    if not samples:
        raise AudioError(f"{path} has no audio")
    return found, samples / rate


def _open(path: Path) -> tuple[int, Iterator[NDArray[np.float32]]]:
    """Return (rate in Hz, blocks of mono samples [n]): by libsndfile, otherwise by PyAV if it is installed (m4a, aac, webm ...)."""
    import soundfile

    try:
        file = soundfile.SoundFile(path)
        if file.frames < _UNKNOWN_LENGTH:
            return int(file.samplerate), _sound_blocks(path, file)
        file.close()
        reason = "libsndfile does not read a FLAC that states no length, as streams do"
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = first_line(error)
    try:
        import av
    except ImportError:
        raise AudioError(f"{path} cannot be decoded ({reason}); convert it to WAV or FLAC, or install 'av'") from None
    try:
        with av.open(str(path)) as container:
            rate = int(container.streams.audio[0].rate)
    except (av.error.FFmpegError, IndexError, ValueError):
        raise AudioError(f"{path} cannot be decoded; convert it to WAV or FLAC") from None
    return rate, _av_blocks(path, rate)


def _sound_blocks(path: Path, file: Any) -> Iterator[NDArray[np.float32]]:
    import soundfile

    with file:
        try:
            for block in file.blocks(_BLOCK, dtype="float32", always_2d=True):
                yield block.mean(axis=1, dtype=np.float32)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(f"{path} cannot be decoded ({first_line(error)}); convert it to WAV or FLAC") from None


def _av_blocks(path: Path, rate: int) -> Iterator[NDArray[np.float32]]:
    import av

    try:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            for frame in container.decode(container.streams.audio[0]):
                for out in resampler.resample(frame):
                    yield out.to_ndarray().reshape(-1).astype(np.float32, copy=False)
            for out in resampler.resample(None):
                yield out.to_ndarray().reshape(-1).astype(np.float32, copy=False)
    except (av.error.FFmpegError, ValueError):
        raise AudioError(f"{path} cannot be decoded; convert it to WAV or FLAC") from None
