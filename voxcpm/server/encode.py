"""Speech as the bytes of an audio format, piece by piece while it is generated, or whole.

encoder = encoder_for("mp3", 48000, 24000, statement)
for chunk in chunks:
    send(encoder.push(chunk))
send(encoder.finish())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxcpm.provenance.statement import Statement
from voxcpm.provenance.watermark_hook import NO_WATERMARK, Watermark
from voxcpm.server.shaping import Shaper
from voxcpm.server.writers import aac, mp3
from voxcpm.server.writers.aac import AacWriter, M4aWriter
from voxcpm.server.writers.base import Writer
from voxcpm.server.writers.mp3 import Mp3Writer
from voxcpm.server.writers.opus import OpusWriter
from voxcpm.server.writers.plain import FlacWriter, PcmWriter, WavWriter

LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000
"""Bounds of the sample rate of an answer, in Hz."""


@dataclass(frozen=True)
class Format:
    """A format of answers. `rates`: the sample rates that it can have; none: any. `streams`: bytes come before the end."""

    media_type: str
    writer: Callable[[int, Mapping[str, str]], Writer]
    rates: tuple[int, ...] = ()
    streams: bool = True


#: Name of `response_format` -> format.
FORMATS: dict[str, Format] = {
    "mp3": Format("audio/mpeg", Mp3Writer, mp3.RATES),
    "opus": Format("audio/ogg", OpusWriter, (8000, 12000, 16000, 24000, 48000)),
    "aac": Format("audio/aac", AacWriter, aac.RATES),
    "flac": Format("audio/flac", FlacWriter),
    "wav": Format("audio/wav", WavWriter),
    "pcm": Format("audio/pcm", PcmWriter),
    "m4a": Format("audio/mp4", M4aWriter, aac.RATES, streams=False),
}


class Encoder:
    """Makes the bytes of one answer. However the samples are cut into pieces, the decoded audio is the same."""

    def __init__(
        self,
        format: Format,
        in_rate: int,
        out_rate: int,
        tags: Mapping[str, str],
        speed: float,
        whole: bool,
        watermark: Watermark,
    ) -> None:
        """See `encoder_for`."""
        self.media_type = format.media_type
        self._shaper, self._writer = Shaper(in_rate, out_rate, speed), format.writer(out_rate, tags)
        self._watermark, self._state = watermark, watermark.start(out_rate)
        self._held: list[bytes] | None = [] if whole else None
        self._begun = False

    def push(self, samples: NDArray[np.float32]) -> bytes:
        """Return the bytes that are ready after the next samples, float32 [n]; none if the answer is whole."""
        data = self._written(self._shaper.push(samples))
        # The head waits for audio, so that the first bytes of an answer can be heard.
        return self._sent(data) if data else b""

    def finish(self) -> bytes:
        """Return the bytes that are left; for a whole answer, all of them. Call this once, after the last samples."""
        rest = self._written(self._shaper.finish())
        rest += self._writer.write(self._watermark.finish(self._state))
        rest = self._sent(rest + self._writer.finish())
        return rest if self._held is None else b"".join((self._writer.head(True), *self._held))

    def _written(self, samples: NDArray[np.float32]) -> bytes:
        # The watermark comes after the tempo, whose changes it may not survive.
        samples, self._state = self._watermark.mark(samples, self._state)
        return self._writer.write(samples)

    def _sent(self, data: bytes) -> bytes:
        if self._held is not None:
            self._held.append(data)
            return b""
        head = b"" if self._begun else self._writer.head(False)
        self._begun = True
        return head + data


def encoder_for(
    format: str,
    in_rate: int,
    out_rate: int,
    statement: Statement | None,
    speed: float = 1.0,
    *,
    whole: bool = False,
    watermark: Watermark = NO_WATERMARK,
) -> Encoder:
    """Return an encoder of one answer, of mono audio at `in_rate` Hz.

    out_rate: sample rate of the answer in Hz. statement: what the file says about itself; None: nothing. speed: 0.25-4.
    whole: `finish` returns all bytes at once, with the true length in the header. M4A is always whole.
    watermark: put into the samples of the answer (`voxcpm.provenance.watermark_hook`).
    Raises ValueError if the format is unknown, or cannot have this rate or speed.
    """
    chosen = FORMATS.get(format)
    if chosen is None:
        raise ValueError(f"the format {format!r} is not known; use {', '.join(FORMATS)}")
    if chosen.rates and out_rate not in chosen.rates:
        possible = ", ".join(str(rate) for rate in sorted(chosen.rates) if LOWEST_RATE <= rate <= HIGHEST_RATE)
        raise ValueError(f"{format} cannot have a sample rate of {out_rate} Hz; use {possible}")
    if not LOWEST_RATE <= out_rate <= HIGHEST_RATE:
        raise ValueError(f"a sample rate of {out_rate} Hz is outside {LOWEST_RATE}..{HIGHEST_RATE}")
    tags = {} if statement is None else statement.tags()
    return Encoder(chosen, in_rate, out_rate, tags, speed, whole, watermark)
