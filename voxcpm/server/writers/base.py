"""What a writer of a format does, and what several of them use."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from voxcpm.server.writers.blocks import Blocks, Samples

if TYPE_CHECKING:
    import av


class Writer(Protocol):
    """Writes one stream of audio. The bytes of a file are `head`, then those of all `write` and of `finish`."""

    def head(self, whole: bool) -> bytes:
        """Return the bytes before the audio. whole: after `finish`; the true length is stated if the format has a place for it."""
        ...

    def write(self, samples: Samples) -> bytes:
        """Return the bytes that are ready after the next samples, float32 [n] at the rate of the file."""
        ...

    def finish(self) -> bytes:
        """Return the bytes that are left at the end."""
        ...


def pcm16(samples: Samples) -> NDArray[np.int16]:
    """Return float32 [n] in -1..1 as the nearest 16-bit integers; what is louder is clipped."""
    return np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype("<i2")


class FramedCodec:
    """An encoder of FFmpeg that takes frames of one length, for mono audio of any pieces."""

    def __init__(
        self,
        name: str,
        rate: int,
        sample_format: str,
        bit_rate: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """name: of the codec in FFmpeg. sample_format: `s16` or `fltp`. bit_rate: bits per second. options: the codec's."""
        import av
        from av.audio.codeccontext import AudioCodecContext

        self._rate, self._format, self._at = rate, sample_format, 0
        self.codec = cast(AudioCodecContext, av.CodecContext.create(name, "w"))
        self.codec.sample_rate, self.codec.layout, self.codec.format = rate, "mono", sample_format
        self.codec.time_base = Fraction(1, rate)
        if bit_rate is not None:
            self.codec.bit_rate = bit_rate
        self.codec.options = dict(options or {})
        self.codec.open()
        self._blocks = Blocks(self.codec.frame_size)

    @property
    def description(self) -> bytes:
        """The codec's header for a file. For FLAC it is complete after `finish`."""
        return bytes(self.codec.extradata or b"")

    @property
    def samples(self) -> int:
        """Number of samples that were encoded."""
        return self._at

    def push(self, samples: Samples) -> list[bytes]:
        """Return the packets that are ready after the next samples."""
        return [packet for block in self._blocks.push(samples) for packet in self._encode(block)]

    def finish(self) -> list[bytes]:
        """Return the packets that are left at the end."""
        rest = self._blocks.rest()
        packets = self._encode(rest) if len(rest) else []
        return packets + self._packets(None)

    def _encode(self, block: Samples) -> list[bytes]:
        frame = audio_frame(block, self._rate, self._format, self._at)
        self._at += len(block)
        return self._packets(frame)

    def _packets(self, frame: av.AudioFrame | None) -> list[bytes]:
        return [bytes(packet) for packet in self.codec.encode(frame) if packet.size]


def audio_frame(samples: Samples, rate: int, sample_format: str, at: int) -> av.AudioFrame:
    """Return mono samples as a frame of FFmpeg. at: number of samples before it."""
    import av

    data = pcm16(samples) if sample_format == "s16" else np.ascontiguousarray(samples)
    frame = av.AudioFrame.from_ndarray(data[None], format=sample_format, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
    return frame
