"""Without loss: raw PCM, WAV and FLAC, with 16 bits per sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from voxcpm.provenance.flac import flac_head
from voxcpm.provenance.riff import wav_header
from voxcpm.server.writers.base import FramedCodec, pcm16
from voxcpm.server.writers.blocks import Samples


class PcmWriter:
    """Samples as s16le. It holds no tags: only the header of an answer can say that it is synthetic."""

    def __init__(self, rate: int, tags: Mapping[str, str]) -> None:
        del rate, tags

    def head(self, whole: bool) -> bytes:
        """See `Writer`."""
        return b""

    def write(self, samples: Samples) -> bytes:
        """See `Writer`."""
        return pcm16(samples).tobytes()

    def finish(self) -> bytes:
        """See `Writer`."""
        return b""


class WavWriter(PcmWriter):
    """WAV. The sizes of a stream are 0xFFFFFFFF."""

    def __init__(self, rate: int, tags: Mapping[str, str]) -> None:
        self._rate, self._tags, self._samples = rate, tags, 0

    def head(self, whole: bool) -> bytes:
        """See `Writer`."""
        return wav_header(self._rate, self._samples if whole else None, self._tags)

    def write(self, samples: Samples) -> bytes:
        """See `Writer`."""
        self._samples += len(samples)
        return super().write(samples)


class FlacWriter:
    """FLAC. A stream does not state its length and the digest of its samples."""

    def __init__(self, rate: int, tags: Mapping[str, str]) -> None:
        self._codec, self._tags = FramedCodec("flac", rate, "s16"), tags
        self._unknown = self._codec.description
        self._digest = hashlib.md5(usedforsecurity=False)

    def head(self, whole: bool) -> bytes:
        """See `Writer`."""
        # The digest that FFmpeg puts into its last 16 bytes is not that of the samples.
        info = self._codec.description[:-16] + self._digest.digest() if whole else self._unknown
        return flac_head(info, self._tags)

    def write(self, samples: Samples) -> bytes:
        """See `Writer`."""
        self._digest.update(pcm16(samples).tobytes())
        return b"".join(self._codec.push(samples))

    def finish(self) -> bytes:
        """See `Writer`."""
        return b"".join(self._codec.finish())
