"""What happens to audio on its way through the world: codecs, telephones, levels, cuts, noise. float32 [S] at 16 kHz both ways."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import soxr

RATE = 16_000


def through_codec(samples: np.ndarray, container: str, codec: str, bit_rate: int, rate: int) -> np.ndarray:
    """The samples encoded at `rate` Hz and decoded again; encoder delay and padding stay in."""
    import av

    source = soxr.resample(samples, RATE, rate) if rate != RATE else samples
    pcm = (np.clip(source, -1, 1) * 32767).astype(np.int16)
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = bit_rate
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = rate
        fitting = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or None)
        for part in [*fitting.resample(frame), *fitting.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    sink.seek(0)
    with av.open(sink, "r") as coded:
        back = av.AudioResampler("flt", "mono", RATE)
        frames = [part for frame in coded.decode(audio=0) for part in back.resample(frame)] + back.resample(None)
        return np.concatenate([part.to_ndarray().reshape(-1) for part in frames]).astype(np.float32)


def telephone(samples: np.ndarray) -> np.ndarray:
    """8 kHz, 300 to 3400 Hz, eight bits of mu-law."""
    from scipy.signal import butter, sosfilt

    narrow = sosfilt(butter(4, [300, 3400], "band", fs=8000, output="sos"), soxr.resample(samples, RATE, 8000))
    code = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(np.clip(narrow, -1, 1))) / np.log(256)) / 127
    return soxr.resample(np.sign(code) * (256 ** np.abs(code) - 1) / 255, 8000, RATE).astype(np.float32)


def noise(samples: np.ndarray, snr_db: float = 20.0) -> np.ndarray:
    """White noise so far below the mean power of the clip."""
    power = np.mean(np.square(samples, dtype=np.float64)) * 10 ** (-snr_db / 10)
    return (samples + np.random.default_rng(len(samples)).normal(0, np.sqrt(power), len(samples))).astype(np.float32)


def offset(samples: np.ndarray) -> np.ndarray:
    """137 ms cut off before and 211 ms after."""
    return samples[round(0.137 * RATE) : -round(0.211 * RATE)]


def gain(samples: np.ndarray) -> np.ndarray:
    """12 dB quieter."""
    return (samples * 10 ** (-12 / 20)).astype(np.float32)


DAMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mp3_64k": lambda samples: through_codec(samples, "mp3", "libmp3lame", 64_000, 44_100),
    "opus_32k": lambda samples: through_codec(samples, "ogg", "libopus", 32_000, 48_000),
    "opus_12k": lambda samples: through_codec(samples, "ogg", "libopus", 12_000, 16_000),
    "aac_64k": lambda samples: through_codec(samples, "adts", "aac", 64_000, 44_100),
    "telephone": telephone,
    "gain": gain,
    "offset": offset,
    "noise_20db": noise,
    "noise_10db": lambda samples: noise(samples, 10.0),
    "chain": lambda samples: offset(
        gain(noise(through_codec(telephone(samples), "mp3", "libmp3lame", 64_000, 44_100)))
    ),
}
