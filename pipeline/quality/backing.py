"""The background of a voice: how far music, noise or hum are below the speech of a stretch."""

from __future__ import annotations

import numpy as np

from pipeline.quality.levels import decibel, frame_power

# Frames below -90 dB are digital silence: a gate, a drop-out, an edit. They carry no information about the recording.
_RECORDED = 1e-9
_AT_LEAST = 25


def backing_db(samples: np.ndarray) -> float | None:
    """Return by how many dB the quiet parts of float32 [S] at 16 kHz are below the loud ones: high for a voice alone, low
    over music or noise.

    Loud is the mean power of the loudest third of the 20 ms frames, quiet that of the quietest tenth. A speaker pauses and
    closes the mouth several times per second; music and noise do not stop. None for less than half a second of recorded
    sound.
    """
    power = np.sort(frame_power(samples))
    power = power[power > _RECORDED]
    if len(power) < _AT_LEAST:
        return None
    quiet, loud = power[: len(power) // 10 + 1], power[-(len(power) // 3) :]
    return decibel(float(loud.mean())) - decibel(float(quiet.mean()))
