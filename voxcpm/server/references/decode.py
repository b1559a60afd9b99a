"""Decode a clip that a client sent, within bounds of bytes, seconds, channels and time.

The container is recognized by its first bytes and named to FFmpeg, which therefore tries no other demuxer: some of those open
files and addresses that a clip names.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxcpm.errors import AudioError
from voxcpm.inference.audio_files import check_audio

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MOST_BYTES = 10_000_000
"""The largest clip, in bytes as it is sent."""
READ_S = 60.0
"""Seconds that are decoded at most."""
LONGEST_S = 30.0
SHORTEST_S = 1.0
MOST_CHANNELS = 8
RATES = (8_000, 192_000)
TIME_LIMIT_S = 10.0

_HEADS = (
    (0, b"RIFF", "wav"),
    (0, b"RF64", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (4, b"ftyp", "mov"),
    (0, b"FORM", "aiff"),
    (0, b"ID3", "mp3"),
)
_CODECS = ("pcm_", "adpcm_", "flac", "mp3", "aac", "opus", "libopus", "vorbis", "libvorbis", "alac")


def decode_clip(
    data: bytes, sample_rate: int, name: str = "the reference", longest_s: float = LONGEST_S
) -> NDArray[np.float32]:
    """Decode a clip to mono float32 [S] at `sample_rate` Hz; the first `longest_s` seconds of it.

    Raises AudioError if it cannot be decoded within the bounds, is shorter than 1 s, is silent, or holds NaN. Blocks: call it
    in a thread.
    """
    mono, rate = decode_samples(data, name, longest_s)
    if len(mono) < SHORTEST_S * rate:
        raise AudioError(f"{name} is {len(mono) / rate:.2f} s long: send at least {SHORTEST_S:g} s of speech")
    mono = resampled(mono, rate, sample_rate)
    check_audio(mono, sample_rate, name)
    return mono


def decode_samples(
    data: bytes, name: str, longest_s: float = LONGEST_S, most_bytes: int = MOST_BYTES
) -> tuple[NDArray[np.float32], int]:
    """Decode a clip of any length and level to mono float32 [S] and its rate in Hz; at most the first 60 s of it.

    Raises AudioError if it cannot be decoded within the bounds, or holds NaN.
    """
    if len(data) > most_bytes:
        raise AudioError(f"{name} has {len(data) / 1e6:.1f} MB: send at most {most_bytes // 1_000_000} MB")
    demuxer = _demuxer(data)
    if demuxer is None:
        raise AudioError(
            f"{name} is not a WAV, FLAC, MP3, AAC, Ogg, Opus, WebM, MP4 or AIFF file: convert it to one of these"
        )
    import av

    try:
        with av.open(io.BytesIO(data), "r", format=demuxer, metadata_errors="ignore") as container:
            stream = _stream(container, name)
            rate = int(stream.rate)
            mono = np.concatenate([*_frames(container, stream, name), np.zeros(0, np.float32)])
    except (av.error.FFmpegError, ValueError, IndexError, OverflowError, MemoryError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name} cannot be decoded: send it as WAV, FLAC, MP3, Ogg or WebM") from None
    mono = mono[: int(longest_s * rate)]
    if not np.isfinite(mono).all():
        raise AudioError(f"{name} holds NaN or infinite samples")
    return mono, rate


def resampled(mono: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Return float32 [S] of `rate` Hz at the wanted rate."""
    if rate != wanted and len(mono):
        import soxr

        mono = soxr.resample(mono, rate, wanted, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32)


def _demuxer(data: bytes) -> str | None:
    """Return FFmpeg's name of the container, None if it is not one that is accepted."""
    for start, head, demuxer in _HEADS:
        if data[start : start + len(head)] == head:
            return demuxer
    # MPEG audio starts with eleven set bits; the layer bits are 00 in ADTS (AAC).
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "aac" if data[1] & 0x06 == 0 else "mp3"
    return None


def _stream(container: InputContainer, name: str) -> AudioStream:
    """Return the first audio stream. Raises AudioError if it is not within the bounds."""
    if not container.streams.audio:
        raise AudioError(f"{name} has no audio")
    stream = container.streams.audio[0]
    codec = stream.codec_context.name
    if not codec.startswith(_CODECS):
        raise AudioError(f"{name} is coded as {codec}: send it as WAV, FLAC, MP3, AAC, Vorbis or Opus")
    _check_form(stream.codec_context.channels, stream.rate, name)
    return stream


def _check_form(channels: int, rate: int | None, name: str) -> None:
    if not 1 <= channels <= MOST_CHANNELS:
        raise AudioError(f"{name} has {channels} channels: send 1 to {MOST_CHANNELS}")
    if rate is None or not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"{name} has a sample rate of {rate} Hz: send {RATES[0]} to {RATES[1]} Hz")


def _frames(container: InputContainer, stream: AudioStream, name: str) -> Iterator[NDArray[np.float32]]:
    """Yield mono float32 samples until 60 s are read. Raises AudioError after 10 s of work."""
    from av.audio.resampler import AudioResampler

    end = time.monotonic() + TIME_LIMIT_S
    rate = int(stream.rate)
    to_float = AudioResampler(format="fltp")
    left = int(READ_S * rate)
    for packet in container.demux(stream):
        for frame in packet.decode():
            if time.monotonic() > end:
                raise AudioError(f"{name} takes more than {TIME_LIMIT_S:g} s to decode: send it as WAV or FLAC")
            _check_form(frame.layout.nb_channels, frame.sample_rate, name)
            for part in to_float.resample(frame):
                yield part.to_ndarray().mean(axis=0)
                left -= part.samples
            if left <= 0:
                return
    for part in to_float.resample(None):
        yield part.to_ndarray().mean(axis=0)
