"""Audio out of the body of a reply: WAV (streamed ones too), FLAC, MP3, and raw 16-bit PCM."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_UNKNOWN = 0xFFFFFFFF - 1024
"""A stream's WAV header states sizes near 2^32: it was sent before the length was known."""


def decoded(body: bytes, form: str, pcm_rate: int) -> tuple[np.ndarray, int]:
    """Return samples float32 [S], mono, and their rate. form: wav, pcm, flac or mp3. Raises ValueError if it is not such audio."""
    import numpy as np
    import soundfile

    if form == "pcm":
        if body[:4] == b"RIFF":
            raise ValueError("the reply is a WAV file, not raw PCM; set format=wav")
        return np.frombuffer(body[: len(body) // 2 * 2], "<i2").astype(np.float32) / 32768.0, pcm_rate
    if not body:
        return np.zeros(0, np.float32), pcm_rate
    try:
        samples, rate = soundfile.read(io.BytesIO(with_sizes(body)), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the reply cannot be decoded as {form} ({error})") from None
    return samples.mean(axis=1), int(rate)


def with_sizes(wav: bytes) -> bytes:
    """Return a WAV file with the sizes of what is there, if its header says that they are unknown; other bytes as they are."""
    if wav[:4] != b"RIFF" or wav[8:12] != b"WAVE":
        return wav
    place = 12
    while place + 8 <= len(wav):
        size = int.from_bytes(wav[place + 4 : place + 8], "little")
        if wav[place : place + 4] == b"data":
            if size != 0 and size < _UNKNOWN:
                return wav
            here = (len(wav) - place - 8).to_bytes(4, "little")
            whole = (len(wav) - 8).to_bytes(4, "little")
            return wav[:4] + whole + wav[8 : place + 4] + here + wav[place + 8 :]
        place += 8 + size + size % 2
    return wav
