"""Detect whether the two channels of a recording are two speakers, each on a separate track (calls, interviews, podcasts)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.audio.open import read_chunks
from pipeline.audio.probe import AudioInfo

_LOOKED_AT_S = 1200.0
_FRAME_S = 0.02
# -60 dB of full scale: speech is never below it.
_ACTIVE = 1e-6
# A voice is alone if the other channel is 20 dB lower. With less, two microphones in one room pick up both voices.
_ALONE = 100.0
_EACH, _TOGETHER = 0.05, 0.6
_RELATED = 0.2


def is_one_speaker_a_channel(path: str, info: AudioInfo) -> bool:
    """Return True if a file of two channels holds a different speaker on each, judged by its first 20 minutes.

    Of the time with sound, one channel must be 20 dB above the other for 60 %, and each of the two for at least 5 %. The
    two channels must not be alike (correlation under 0.2). Music and ordinary stereo speech are in both channels at once.
    Channels that look like these are mixed, as those of two microphones in a room must be. Raises AudioFileError as the
    reader does.
    """
    if info.channels != 2:
        return False
    powers, products = [], 0.0
    sums = np.zeros(2)
    for frames in _frames(path, info):
        power = np.square(frames, dtype=np.float64).mean(axis=1)
        powers.append(power)
        active = power.max(axis=1) >= _ACTIVE
        products += float((frames[active, :, 0].astype(np.float64) * frames[active, :, 1]).sum())
        sums += np.square(frames[active], dtype=np.float64).sum(axis=(0, 1))
    both = np.concatenate(powers) if powers else np.zeros((0, 2))
    active = both[both.max(axis=1) >= _ACTIVE] if len(both) else both
    if not len(active) or not sums.all():
        return False
    alone = [float((active[:, one] > _ALONE * active[:, 1 - one]).mean()) for one in (0, 1)]
    related = abs(products) / float(np.sqrt(sums.prod()))
    return min(alone) >= _EACH and sum(alone) >= _TOGETHER and related < _RELATED


def _frames(path: str, info: AudioInfo) -> Iterator[np.ndarray]:
    """Yield float32 [N, S, 2]: 20 ms frames of the file's beginning."""
    size, left = round(_FRAME_S * info.sample_rate), round(_LOOKED_AT_S * info.sample_rate)
    held = np.zeros((0, 2), dtype=np.float32)
    for chunk in read_chunks(path, info):
        held = np.concatenate([held, chunk[:left]])
        left -= len(chunk)
        whole = len(held) // size * size
        if whole:
            yield held[:whole].reshape(-1, size, 2)
            held = held[whole:]
        if left <= 0:
            return
