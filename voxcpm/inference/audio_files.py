"""Read clips: decode, mix to mono, resample to the codec's rate, trim silence, and reject unusable clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxcpm.errors import AudioError, first_line

SHORTEST_S = 0.1
#: A clip whose loudest sample is below this (-60 dBFS) is silent: it has no voice to clone.
SILENCE = 1e-3


def load_audio(path: str | Path, sample_rate: int) -> NDArray[np.float32]:
    """Read a clip as mono float32 [S] at `sample_rate` Hz (channels averaged, resampled with soxr).

    Raises FileNotFoundError, and AudioError if the file cannot be decoded, is silent, is shorter than 0.1 s, or holds NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no audio file at {path}")
    wav, rate = _decode(path)
    mono = wav.mean(axis=1, dtype=np.float32) if wav.ndim == 2 else wav
    if rate != sample_rate and len(mono):
        import soxr

        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    mono = np.ascontiguousarray(mono, dtype=np.float32)
    check_audio(mono, sample_rate, str(path))
    return mono


def _decode(path: Path) -> tuple[NDArray[np.float32], int]:
    """Decode to samples [S] or [S, channels] and their rate: with libsndfile, otherwise with PyAV if installed (m4a, webm ...).

    Raises AudioError if neither can decode the file.
    """
    import soundfile

    try:
        wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return wav, int(rate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = first_line(error)
    try:
        import av
    except ImportError:
        raise AudioError(f"{path} cannot be decoded ({reason}); convert it to WAV or FLAC, or install 'av'") from None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
            frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
            frames += resampler.resample(None)
            return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]), int(stream.rate)
    except (av.error.FFmpegError, IndexError, ValueError):
        raise AudioError(f"{path} cannot be decoded; convert it to WAV or FLAC") from None


def check_audio(wav: NDArray[np.float32], sample_rate: int, name: str) -> None:
    """Raise AudioError if a clip is too short, is silent, or holds NaN or Inf."""
    if len(wav) < SHORTEST_S * sample_rate:
        raise AudioError(f"{name} is {len(wav) / sample_rate:.2f} s long; give at least {SHORTEST_S} s of speech")
    if not np.isfinite(wav).all():
        raise AudioError(f"{name} holds NaN or infinite samples")
    if float(np.abs(wav).max()) < SILENCE:
        raise AudioError(f"{name} is silent; give a clip with speech")


def trim_silence(
    wav: NDArray[np.float32], sample_rate: int, threshold_db: float = 35.0, margin_s: float = 0.2
) -> NDArray[np.float32]:
    """Trim the ends that are `threshold_db` below the loudest part, except for `margin_s` seconds (RMS of 25 ms windows)."""
    window, hop = int(0.025 * sample_rate), int(0.010 * sample_rate)
    if len(wav) <= window:
        return wav
    frames = np.lib.stride_tricks.sliding_window_view(wav, window)[::hop]
    rms = np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))
    loud = np.flatnonzero(rms > rms.max() * 10 ** (-threshold_db / 20))
    if len(loud) == 0:
        return wav
    margin = int(margin_s * sample_rate)
    start = max(0, int(loud[0]) * hop - margin)
    return wav[start : int(loud[-1]) * hop + window + margin]
