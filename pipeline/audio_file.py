"""Opening recordings: whatever libsndfile or FFmpeg reads, streamed at its native rate, one readable line for a bad one.

Everything here works in chunks, so that a recording of many hours costs no more memory than one of a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.stage import StageError

CHUNK_S = 10.0
_MIN_RATE, _MAX_RATE = 4_000, 768_000
# A mix below this share of the louder channel's energy means that the channels cancel (one has inverted polarity).
_CANCELLED = 0.1
# Raw streams have no header that FFmpeg could know them by.
_RAW_FORMATS = {".g722": "g722"}


class AudioFileError(StageError):
    """A file that cannot be used as a recording; the message says in one line what is wrong with it."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header promises. `duration_s` is 0 where it does not say; `bits` is 16 or 24 (what holds it whole)."""

    duration_s: float
    sample_rate: int
    channels: int
    codec: str
    bits: int
    reader: str


def probe(path: str) -> AudioInfo:
    """Read a file's header. Raises AudioFileError with one line for anything that is no usable audio."""
    file = Path(path)
    try:
        if file.stat().st_size == 0:
            raise AudioFileError("the file is empty (0 bytes)")
        with file.open("rb") as handle:
            head = handle.read(64)
    except PermissionError:
        raise AudioFileError("no permission to read the file") from None
    except FileNotFoundError:
        raise AudioFileError("the file is gone") from None
    if not head.strip(b"\0"):
        with file.open("rb") as handle:
            if not any(block.strip(b"\0") for block in iter(lambda: handle.read(1 << 20), b"")):
                raise AudioFileError("the file holds nothing but zero bytes")
    info = _probe_soundfile(path) or _probe_av(path)
    if info.channels < 1:
        raise AudioFileError("the audio has no channels")
    if not _MIN_RATE <= info.sample_rate <= _MAX_RATE:
        raise AudioFileError(f"sample rate {info.sample_rate} Hz is outside {_MIN_RATE}-{_MAX_RATE} Hz")
    return info


def probe_seconds(path: str) -> float:
    """The duration a file's header promises, in seconds; 0 where it cannot be read or does not say."""
    try:
        return probe(path).duration_s
    except (AudioFileError, OSError):
        return 0.0


def stream_mono(path: str, info: AudioInfo | None = None) -> Iterator[np.ndarray]:
    """float32 [S] chunks at the native rate, channels mixed; where the mix cancels, the louder channel alone.

    Raises AudioFileError for what turns out to be unreadable on the way, and for NaN or infinite samples.
    """
    info = info or probe(path)
    chunks = _read_soundfile(path, info) if info.reader == "soundfile" else _read_av(path, info)
    chosen: int | None = None
    decided = info.channels == 1
    position = 0
    for chunk in chunks:
        finite = np.isfinite(chunk)
        if not finite.all():
            first = int(np.argmin(finite.all(axis=1)))
            raise AudioFileError(
                f"holds samples that are no numbers (NaN or infinite), first at {(position + first) / info.sample_rate:.2f} s"
            )
        if not decided and np.any(chunk):
            chosen, decided = _louder_where_cancelled(chunk), True
        position += len(chunk)
        yield chunk[:, 0] if chunk.shape[1] == 1 else chunk.mean(axis=1) if chosen is None else chunk[:, chosen]


def _louder_where_cancelled(chunk: np.ndarray) -> int | None:
    energy = np.square(chunk, dtype=np.float64).mean(axis=0)
    mixed = float(np.square(chunk.mean(axis=1), dtype=np.float64).mean())
    loudest = int(energy.argmax())
    return loudest if mixed < _CANCELLED * energy[loudest] / 4 else None


def _probe_soundfile(path: str) -> AudioInfo | None:
    import soundfile

    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError, TypeError):
        return None
    if info.format == "MP3":
        # libsndfile's MP3 decoder writes its complaints straight to the terminal; FFmpeg reads these files as well.
        return None
    bits = 16 if info.subtype in ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW", "VORBIS", "OPUS") else 24
    codec = f"{info.format.lower()}/{info.subtype.lower()}"
    return AudioInfo(info.frames / info.samplerate, info.samplerate, info.channels, codec, bits, "soundfile")


def _read_soundfile(path: str, info: AudioInfo) -> Iterator[np.ndarray]:
    import soundfile

    size = max(1, int(CHUNK_S * info.sample_rate))
    try:
        with soundfile.SoundFile(path) as file:
            while len(chunk := file.read(size, dtype="float32", always_2d=True)):
                yield chunk
    except soundfile.LibsndfileError as error:
        raise AudioFileError(f"cannot be decoded: {_plain(error)}") from None


def _open_av(path: str) -> Any:
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        return av.open(path, format=_RAW_FORMATS.get(Path(path).suffix.lower()), metadata_errors="ignore")
    except av.error.FFmpegError as error:
        raise AudioFileError(f"not audio that can be read ({_plain(error)})") from None
    except (OSError, ValueError) as error:
        raise AudioFileError(f"cannot be opened ({_plain(error)})") from None


def _audio_stream(container: Any) -> Any:
    if not container.streams.audio:
        raise AudioFileError("there is no audio stream in it")
    return container.streams.audio[0]


def _probe_av(path: str) -> AudioInfo:
    import av

    with _open_av(path) as container:
        stream = _audio_stream(container)
        rate, channels = stream.codec_context.sample_rate or 0, stream.codec_context.channels or 0
        seconds = 0.0
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / av.time_base
        codec = f"{container.format.name.split(',')[0]}/{stream.codec_context.name}"
        return AudioInfo(max(seconds, 0.0), rate, channels, codec, 16, "av")


def _read_av(path: str, info: AudioInfo) -> Iterator[np.ndarray]:
    import av

    size = int(CHUNK_S * info.sample_rate)
    with _open_av(path) as container:
        stream = _audio_stream(container)
        resampler = av.AudioResampler(format="fltp", rate=info.sample_rate)
        gathered: list[np.ndarray] = []
        length = 0
        broken: str | None = None
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                # One damaged packet does not condemn the others; a file of nothing else fails below.
                broken = _plain(error)
                continue
            for frame in frames:
                for even in resampler.resample(frame):
                    gathered.append(even.to_ndarray().T)
                    length += len(gathered[-1])
            if length >= size:
                yield np.ascontiguousarray(np.concatenate(gathered))
                gathered, length = [], 0
        if length:
            yield np.ascontiguousarray(np.concatenate(gathered))
        elif broken:
            raise AudioFileError(f"cannot be decoded: {broken}")


def _plain(error: BaseException) -> str:
    """A library's error without its prefix, path and line breaks."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return " ".join(str(text).split())[:160].rstrip(".").lower() or type(error).__name__
