"""A small spectrogram as a PNG, for the clips of the report."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from catalogs.inspection.sound import spectrogram

_WIDTH, _HEIGHT = 320, 64
_COLORS = ((10, 12, 30), (60, 25, 110), (150, 45, 115), (225, 90, 70), (250, 180, 80), (252, 250, 200))
"""Colors of equally spaced levels, from the lowest to the highest."""


def spectrogram_png(audio: np.ndarray, rate: int) -> bytes:
    """Return a PNG of at most 320 x 64 pixels: the spectrogram of `[S] float32` (`catalogs.inspection.sound`), rate in Hz."""
    levels, _ = spectrogram(audio, rate, _HEIGHT, _WIDTH)
    return _png(np.ascontiguousarray(levels[::-1]))


def _png(levels: np.ndarray) -> bytes:
    places = np.linspace(0, len(_COLORS) - 1, 256)
    palette = np.stack([np.interp(places, range(len(_COLORS)), channel) for channel in zip(*_COLORS, strict=True)], 1)
    height, width = levels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in levels)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.round().astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
