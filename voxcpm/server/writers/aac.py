"""AAC: raw with ADTS headers, which streams, and in a whole M4A."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from voxcpm.provenance.id3 import id3_tag
from voxcpm.provenance.mp4 import tagged_mp4
from voxcpm.server.writers.base import FramedCodec, audio_frame
from voxcpm.server.writers.blocks import Blocks, Samples

RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""Sample rates in Hz in the order of their numbers in a header."""

OPTIONS = {"aac_coder": "fast"}
"""FFmpeg's other coder takes twice the time, is not better for speech, and distorts plain tones."""


def bit_rate(rate: int) -> int:
    """Return bits per second for mono speech at a sample rate; AAC allows 6 bits per sample."""
    return min(96_000, 4 * rate)


class AacWriter:
    """AAC-LC with ADTS headers. An ID3 tag comes first, as in HLS.

    The format has no place for the encoder's delay: audio starts with 1,024 samples of silence and ends with padding.
    """

    def __init__(self, rate: int, tags: Mapping[str, str]) -> None:
        self._codec, self._tags = FramedCodec("aac", rate, "fltp", bit_rate(rate), OPTIONS), tags
        self._rate_number = RATES.index(rate)

    def head(self, whole: bool) -> bytes:
        """See `Writer`."""
        return id3_tag(self._tags) if self._tags else b""

    def write(self, samples: Samples) -> bytes:
        """See `Writer`."""
        return b"".join(self._header(packet) + packet for packet in self._codec.push(samples))

    def finish(self) -> bytes:
        """See `Writer`."""
        return b"".join(self._header(packet) + packet for packet in self._codec.finish())

    def _header(self, packet: bytes) -> bytes:
        """Return the seven bytes of ADTS: MPEG-4, no checksum, AAC-LC, one channel, one frame of variable rate."""
        length = 7 + len(packet)
        fields = (
            (0xFFF, 12), (0, 1), (0, 2), (1, 1),
            (1, 2), (self._rate_number, 4), (0, 1), (1, 3), (0, 4),
            (length, 13), (0x7FF, 11), (0, 2),
        )  # fmt: skip
        number = 0
        for value, bits in fields:
            number = number << bits | value
        return number.to_bytes(7, "big")


class M4aWriter:
    """AAC-LC in an M4A, of the exact length. All bytes come at the end: its table of frames needs them all."""

    def __init__(self, rate: int, tags: Mapping[str, str]) -> None:
        import av

        self._rate, self._tags, self._at = rate, tags, 0
        self._sink = io.BytesIO()
        self._file = av.open(self._sink, "w", format="ipod")
        self._stream: Any = self._file.add_stream("aac", rate=rate, layout="mono", options=OPTIONS)
        self._stream.bit_rate = bit_rate(rate)
        self._blocks = Blocks(1024)

    def head(self, whole: bool) -> bytes:
        """See `Writer`."""
        return b""

    def write(self, samples: Samples) -> bytes:
        """See `Writer`."""
        for block in self._blocks.push(samples):
            self._encode(block)
        return b""

    def finish(self) -> bytes:
        """See `Writer`."""
        if len(rest := self._blocks.rest()):
            self._encode(rest)
        if not self._at:
            # A file without a frame has no tables, so that nothing could read it.
            self._encode(np.zeros(1, np.float32))
        self._file.mux(self._stream.encode(None))
        self._file.close()
        data = self._sink.getvalue()
        return tagged_mp4(data, self._tags) if self._tags else data

    def _encode(self, block: Samples) -> None:
        self._file.mux(self._stream.encode(audio_frame(block, self._rate, "fltp", self._at)))
        self._at += len(block)
