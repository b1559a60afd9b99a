"""MP3 of a constant bit rate, by LAME, behind an ID3 tag."""

from __future__ import annotations

from collections.abc import Mapping

from voxcpm.provenance.id3 import id3_tag
from voxcpm.server.writers.base import pcm16
from voxcpm.server.writers.blocks import Samples

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates in Hz."""
QUALITY = 5
"""LAME's effort: 0 best, 9 fastest."""
DELAY = 576
"""Samples that LAME puts before the audio."""


class Mp3Writer:
    """MP3 frames. A frame of facts before them lets players drop LAME's delay and padding (whole files)."""

    def __init__(self, rate: int, tags: Mapping[str, str]) -> None:
        import lameenc

        self._rate, self._tags, self._samples = rate, tags, 0
        self._bit_rate = 128 if rate >= 32_000 else 64
        self._encoder = lameenc.Encoder()
        self._encoder.silence()
        self._encoder.set_channels(1)
        self._encoder.set_in_sample_rate(rate)
        self._encoder.set_out_sample_rate(rate)
        self._encoder.set_bit_rate(self._bit_rate)
        self._encoder.set_quality(QUALITY)
        self._frames = _FrameCounter()

    def head(self, whole: bool) -> bytes:
        """See `Writer`."""
        tag = id3_tag(self._tags) if self._tags else b""
        return tag + (self._info() if whole and self._frames.frames else b"")

    def write(self, samples: Samples) -> bytes:
        """See `Writer`."""
        if not len(samples):
            return b""
        self._samples += len(samples)
        return self._counted(self._encoder.encode(pcm16(samples).tobytes()))

    def finish(self) -> bytes:
        """See `Writer`."""
        # LAME does not flush an encoder that has had no samples.
        return self._counted(self._encoder.flush()) if self._samples else b""

    def _counted(self, data: bytearray) -> bytes:
        self._frames.push(bytes(data))
        return bytes(data)

    def _info(self) -> bytes:
        """Return a frame of silence that states the number of frames and bytes, the delay and the padding."""
        head, per_frame = self._frames.first, 1152 if self._rate >= 32_000 else 576
        frames, size = self._frames.frames, self._frames.bytes
        length = frame_bytes(head)
        padding = frames * per_frame - DELAY - self._samples
        # 3: both numbers follow. LAME's part: its version, nothing measured, then delay and padding with 12 bits each.
        facts = b"Info" + (3).to_bytes(4, "big") + frames.to_bytes(4, "big") + (size + length).to_bytes(4, "big")
        facts += b"LAME3.100" + bytes(11) + bytes([self._bit_rate])
        facts += (DELAY << 12 | padding).to_bytes(3, "big") + bytes(4)
        frame = head + bytes(17 if self._rate >= 32_000 else 9) + facts + (size + length).to_bytes(4, "big") + bytes(2)
        frame += _crc16(frame).to_bytes(2, "big")
        return frame + bytes(length - len(frame))


class _FrameCounter:
    """Counts the frames in a stream of MP3 that is cut anywhere."""

    def __init__(self) -> None:
        self.frames, self.bytes, self.first = 0, 0, b""
        self._rest, self._left = b"", 0

    def push(self, data: bytes) -> None:
        self.bytes += len(data)
        data = self._rest + data
        at = self._left
        while at + 4 <= len(data):
            self.first = self.first or data[at : at + 4]
            self.frames += 1
            at += frame_bytes(data[at : at + 4])
        self._rest, self._left = data[at:], max(at - len(data), 0)


_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_HZ_1 = (44100, 48000, 32000)


def frame_bytes(head: bytes) -> int:
    """Return the length of the frame of layer III that starts with these four bytes."""
    version = head[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate = _HZ_1[head[2] >> 2 & 3] // {3: 1, 2: 2, 0: 4}[version]
    kbps = (_KBPS_1 if version == 3 else _KBPS_2)[head[2] >> 4]
    return (144 if version == 3 else 72) * kbps * 1000 // rate + (head[2] >> 1 & 1)


def _crc16(data: bytes) -> int:
    """Return the CRC-16 (ARC) by which LAME protects its facts."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
