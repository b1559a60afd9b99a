"""What tests of audio formats share: a sweep, its bytes in a format, and the samples that FFmpeg decodes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxcpm.provenance.statement import Statement
from voxcpm.server.encode import encoder_for

Samples = NDArray[np.float32]
RATE = 48_000
STATEMENT = Statement("tiny", "0123456789abcdef", 7, "req-1", created="2026-11-30T06:00:00Z")


def sweep(samples: int, rate: int = RATE) -> Samples:
    """A tone that rises from 300 Hz and fades in and out; no two places of it are alike."""
    t = np.arange(samples) / rate
    fades = np.minimum(1, np.minimum(t, t[::-1]) * 50)
    return (0.4 * np.sin(2 * np.pi * (300 * t + 400 * t * t)) * fades).astype(np.float32)


def encoded(
    name: str,
    wav: Samples,
    rate: int = RATE,
    cuts: Iterable[int] = (),
    statement: Statement | None = STATEMENT,
    **options: Any,
) -> bytes:
    """The bytes of an answer whose samples come in pieces that end at `cuts`, in any order. options: those of `encoder_for`."""
    encoder = encoder_for(name, RATE, rate, statement, **options)
    ends = sorted({min(cut, len(wav)) for cut in cuts} | {len(wav)})
    pieces = (wav[start:end] for start, end in zip([0, *ends], ends, strict=False))
    return b"".join([*map(encoder.push, pieces), encoder.finish()])


def decoded(data: bytes, name: str = "") -> tuple[Samples, int]:
    """(samples float32 [n], rate in Hz) of a file, by FFmpeg. Raw PCM has no rate: 0."""
    if name == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768), 0
    import av

    parts: list[Any] = [np.zeros(0, np.float32)]
    with av.open(io.BytesIO(data), "r") as file:
        stream = file.streams.audio[0]
        for frame in file.decode(stream):
            samples = frame.to_ndarray().reshape(-1)
            parts.append(samples.astype(np.float32) / np.float32(32768 if samples.dtype == np.int16 else 1))
        return np.concatenate(parts), stream.rate


def tags(data: bytes) -> dict[str, str]:
    """The tags that FFmpeg shows of a file, its stream included, in small letters."""
    import av

    with av.open(io.BytesIO(data), "r") as file:
        found = dict(file.streams.audio[0].metadata) | dict(file.metadata)
    return {name.lower(): text for name, text in found.items()}
