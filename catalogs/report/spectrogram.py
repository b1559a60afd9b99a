"""A small spectrogram as a PNG, for the clips of the report."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_WIDTH, _HEIGHT = 320, 64
_WINDOW = 512
_RANGE_DB = 65.0
_COLORS = ((10, 12, 30), (60, 25, 110), (150, 45, 115), (225, 90, 70), (250, 180, 80), (252, 250, 200))
"""Colors of equally spaced levels, from the lowest to the highest."""


def spectrogram_png(audio: np.ndarray, rate: int) -> bytes:
    """Return a PNG of the spectrogram of `[S] float32`: 65 dB below the peak, frequencies on the mel scale up to half the rate."""
    return _png(_levels(audio, rate))


def _levels(audio: np.ndarray, rate: int) -> np.ndarray:
    """Return `[64, 320] uint8`, low frequencies at the bottom."""
    padded = np.pad(np.asarray(audio, np.float32), (0, max(0, _WINDOW - len(audio))))
    starts = np.linspace(0, len(padded) - _WINDOW, _WIDTH).astype(int)
    frames = padded[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _HEIGHT + 1) / 2595) - 1) / (rate / 2) * (power.shape[1] - 1)
    first = np.minimum(edges[:-1].astype(int), power.shape[1] - 1)
    bands = np.maximum.reduceat(power, first, axis=1)
    level = 10 * np.log10(bands + 1e-12)
    scaled = np.clip(1 + (level - level.max()) / _RANGE_DB, 0, 1)
    return np.ascontiguousarray((scaled * 255).astype(np.uint8).T[::-1])


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
