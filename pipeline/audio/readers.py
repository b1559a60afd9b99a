"""The two decoders behind `pipeline.audio.open`: libsndfile for what it reads well, FFmpeg (PyAV) for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio.probe import AudioFileError, AudioInfo, StreamReport, for_libsndfile, has_mp3_index, wav_promise_s

CHUNK_S = 10.0
# Raw streams have no header by which FFmpeg could recognize them.
_RAW_FORMATS = {".g722": "g722"}
# Formats whose packets follow each other without gaps: a hole in their times is damage. In other formats (WebM, MP4) a
# sender may have sent nothing during silence.
_GAPLESS = {"flac", "mp3", "aac", "wav", "aiff", "caf", "w64", "wv", "ape", "tta"}
_LOSSLESS = {"flac", "alac", "wavpack", "ape", "tta", "truehd", "mlp", "als"}
_HOLE_S, _LONGEST_HOLE_S = 0.02, 600.0


def probe_soundfile(path: str, head: bytes) -> AudioInfo | None:
    """Return the header as libsndfile reads it; None if it cannot read it."""
    import soundfile

    if not for_libsndfile(head):
        return None
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError, TypeError):
        return None
    if info.format == "MP3":
        return None
    bits = 16 if info.subtype in ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW", "VORBIS", "OPUS") else 24
    codec = f"{info.format.lower()}/{info.subtype.lower()}"
    # A FLAC written to a pipe does not state its length; libsndfile then reports a number without meaning.
    known = 0 < info.frames < 2**53
    seconds = info.frames / info.samplerate if known else 0.0
    seconds = max(seconds, wav_promise_s(path) or 0.0)
    return AudioInfo(seconds, info.samplerate, info.channels, codec, bits, "soundfile", seconds > 0)


def read_soundfile(path: str, info: AudioInfo, report: StreamReport) -> Iterator[np.ndarray]:
    """Yield float32 [S, C] chunks. FFmpeg continues where libsndfile fails, and skips damaged places."""
    import soundfile

    size = max(1, int(CHUNK_S * info.sample_rate))
    position = 0
    try:
        with soundfile.SoundFile(path) as file:
            while len(chunk := file.read(size, dtype="float32", always_2d=True)):
                position += len(chunk)
                yield chunk
        return
    except soundfile.LibsndfileError as error:
        broken = plain(error)
    skip = position
    try:
        for chunk in read_av(path, info, report):
            kept = chunk[skip:]
            skip -= len(chunk) - len(kept)
            if len(kept):
                yield kept
    except AudioFileError:
        report.stopped = broken
    report.stopped = report.stopped or broken


def probe_av(path: str) -> AudioInfo:
    """Return the header as FFmpeg reads it. Raises AudioFileError if the file has no audio."""
    import av

    with _open_av(path) as container:
        stream = _audio_stream(container)
        context = stream.codec_context
        rate, channels = context.sample_rate or 0, context.channels or 0
        seconds = 0.0
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / av.time_base
        kind = container.format.name.split(",")[0]
        if rate == 0 and channels == 0:
            raise AudioFileError(f"not audio that can be read (it looks like {kind}, but holds none)")
        promised = seconds > 0 and (kind not in ("mp3", "aac", "g722") or (kind == "mp3" and has_mp3_index(path)))
        wide = context.name in _LOSSLESS or context.name.startswith("pcm_")
        bits = 24 if wide and context.format is not None and not _is_16_bit(context) else 16
        return AudioInfo(max(seconds, 0.0), rate, channels, f"{kind}/{context.name}", bits, "av", promised)


def _is_16_bit(context: Any) -> bool:
    return context.format.name.rstrip("p") in ("u8", "s16") or context.name in ("pcm_alaw", "pcm_mulaw")


def read_av(path: str, info: AudioInfo, report: StreamReport) -> Iterator[np.ndarray]:
    """Yield float32 [S, C] chunks. Damaged packets become silence of their length. If reading ends early, `report` states
    why."""
    import av

    size = int(CHUNK_S * info.sample_rate)
    gathered: list[np.ndarray] = []
    length = total = 0
    with _open_av(path) as container:
        stream = _audio_stream(container)
        # Without this option, a damaged FLAC frame decodes to loud noise instead of an error.
        stream.codec_context.options = {"err_detect": "crccheck"}
        gapless = container.format.name.split(",")[0] in _GAPLESS
        even = _Evener(info.sample_rate, info.channels)
        expected: float | None = None
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except (StopIteration, EOFError):
                break
            except av.error.InvalidDataError as error:
                # The packets after a damaged one are still decoded; a hole in the times shows how much was lost.
                report.stopped = plain(error)
                continue
            except (av.error.FFmpegError, OSError) as error:
                report.stopped = plain(error)
                break
            for frame in frames:
                start = None if frame.pts is None else float(frame.pts * frame.time_base)
                if expected is not None and start is not None:
                    hole = round((start - expected) * info.sample_rate)
                    if _HOLE_S < start - expected < _LONGEST_HOLE_S:
                        gathered.append(np.zeros((hole, info.channels), dtype=np.float32))
                        length, report.lost = length + hole, report.lost + (hole if gapless else 0)
                block = even(frame)
                gathered.append(block)
                length += len(block)
                begun = expected if start is None else start
                expected = None if begun is None else begun + frame.samples / frame.sample_rate
            if length >= size:
                yield np.concatenate(gathered)
                total, gathered, length = total + length, [], 0
    if length:
        yield np.concatenate(gathered)
    if not total + length:
        raise AudioFileError(f"cannot be decoded: {report.stopped or 'no sample comes out of it'}")


class _Evener:
    """Converts frames to float32 [S, C] of one rate and channel count, because the format of a stream may change midway."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate, self._channels = rate, channels
        self._kind: tuple[str, str, int] | None = None
        self._resampler: Any = None

    def __call__(self, frame: Any) -> np.ndarray:
        import av

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._kind, self._resampler = kind, av.AudioResampler(format="fltp", rate=self._rate)
        parts = [part.to_ndarray().T for part in self._resampler.resample(frame)]
        block = np.concatenate(parts) if parts else np.zeros((0, self._channels), dtype=np.float32)
        if block.shape[1] != self._channels:
            block = np.repeat(block.mean(axis=1, keepdims=True), self._channels, axis=1)
        return block.astype(np.float32, copy=False)


def _open_av(path: str) -> Any:
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        return av.open(path, format=_RAW_FORMATS.get(Path(path).suffix.lower()), metadata_errors="ignore")
    except av.error.FFmpegError as error:
        raise AudioFileError(f"not audio that can be read ({plain(error)})") from None
    except (OSError, ValueError) as error:
        raise AudioFileError(f"cannot be opened ({plain(error)})") from None


def _audio_stream(container: Any) -> Any:
    stream = container.streams.best("audio") if container.streams.audio else None
    if stream is None:
        raise AudioFileError("has no audio stream")
    return stream


def plain(error: BaseException) -> str:
    """Return the message of a library's error without its prefix, path and line breaks."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return " ".join(str(text).split()).removeprefix("Error : ")[:160].rstrip(".").lower() or type(error).__name__
