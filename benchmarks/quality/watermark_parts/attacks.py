"""What happens to speech on its way: codecs, filters, noise, rooms, cuts, other speeds. Each keeps the rate of the clip."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soxr
from clips import Samples, loudest, music
from scipy import signal

Attack = Callable[[Samples, int], Samples]


def codec(name: str, container: str, kbit: int, rate: int | None = None) -> Attack:
    """Return encoding and decoding by FFmpeg at a bit rate in kbit/s, at `rate` Hz if the codec needs it."""

    def attacked(samples: Samples, own: int) -> Samples:
        used = rate or own
        file = io.BytesIO()
        with av.open(file, "w", format=container) as output:
            stream = output.add_stream(name, rate=used, layout="mono")
            stream.bit_rate = 1000 * kbit
            frame = av.AudioFrame.from_ndarray(resampled(samples, own, used)[None], format="fltp", layout="mono")
            frame.rate = used
            cut = av.AudioResampler(stream.format.name, "mono", used, frame_size=stream.frame_size or 1152)
            for part in [*cut.resample(frame), *cut.resample(None)]:
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
        file.seek(0)
        with av.open(file) as source:
            back = av.AudioResampler("fltp", "mono", own)
            parts = [part.to_ndarray()[0] for frame in source.decode(audio=0) for part in back.resample(frame)]
        return np.concatenate(parts).astype(np.float32)

    return attacked


def resampled(samples: Samples, rate: float, to: float) -> Samples:
    """Return the samples at another rate."""
    return samples if rate == to else np.asarray(soxr.resample(samples, rate, to), np.float32)


def at_rate(rate: int) -> Attack:
    """Return resampling to a lower rate and back."""
    return lambda samples, own: resampled(resampled(samples, own, rate), rate, own) if own > rate else samples


def tilt(db: float) -> Attack:
    """Return an equalizer that rises by 2 `db` from 100 Hz to 8 kHz."""

    def attacked(samples: Samples, rate: int) -> Samples:
        steps = np.linspace(0, 1, 257)
        octaves = np.clip(np.log(np.maximum(steps * rate / 2, 1) / 100) / np.log(80), 0, 1)
        taps = signal.firwin2(255, steps, 10 ** (db * (2 * octaves - 1) / 20))
        return signal.fftconvolve(samples, taps, "same").astype(np.float32)

    return attacked


def band(low: float | None, high: float | None, order: int = 4) -> Attack:
    """Return a Butterworth filter, Hz."""

    def attacked(samples: Samples, rate: int) -> Samples:
        kind, edge = ("bandpass", [low, high]) if low and high else ("highpass", low)
        return signal.sosfilt(signal.butter(order, edge, kind, fs=rate, output="sos"), samples).astype(np.float32)

    return attacked


def compressor(samples: Samples, rate: int) -> Samples:
    """Return the samples compressed 4:1 above -30 dB of their peak, with 5 ms attack and 100 ms release, and brought up again."""
    step = max(rate // 1000, 1)
    peaks = np.abs(np.pad(samples, (0, -len(samples) % step))).reshape(-1, step).max(axis=1)
    level, levels = 0.0, np.empty(len(peaks))
    for at, peak in enumerate(peaks):
        level += (peak - level) * (1 - np.exp(-1 / (5 if peak > level else 100)))
        levels[at] = level
    over = np.maximum(20 * np.log10(levels / np.abs(samples).max() + 1e-6) + 30, 0)
    gain = np.interp(np.arange(len(samples)), np.arange(len(peaks)) * step, 10 ** (-0.75 * over / 20))
    return (samples * gain * 10 ** (0.6 * 0.75 * 30 / 20)).astype(np.float32)


def noise(db: float) -> Attack:
    """Return the clip with white noise `db` dB below it."""

    def attacked(samples: Samples, rate: int) -> Samples:
        added = np.random.default_rng(7).normal(size=len(samples)).astype(np.float32)
        return samples + added * np.float32(np.sqrt((samples**2).mean()) * 10 ** (-db / 20))

    return attacked


def crop(seconds: float) -> Attack:
    """Return the loudest part of `seconds` seconds."""
    return lambda samples, rate: loudest(samples, rate, seconds)


def reverberation(samples: Samples, rate: int) -> Samples:
    """Return the samples in a room of 0.4 s with as much late sound as direct sound."""
    time = np.arange(round(0.5 * rate)) / rate
    room = np.random.default_rng(5).normal(size=len(time)) * 10 ** (-3 * time / 0.4)
    room[: round(0.005 * rate)] = 0
    late = signal.fftconvolve(samples, room)[: len(samples)]
    return (samples + late * np.sqrt((samples**2).mean() / (late**2).mean())).astype(np.float32)


def tempo(factor: float) -> Attack:
    """Return FFmpeg's atempo: as many times faster, pitch kept."""

    def attacked(samples: Samples, rate: int) -> Samples:
        graph = av.filter.Graph()
        nodes = [
            graph.add_abuffer(sample_rate=rate, format="flt", layout="mono"),
            graph.add("atempo", str(factor)),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.rate = rate
        graph.push(frame)
        graph.push(None)
        parts = []
        while True:
            try:
                parts.append(graph.pull().to_ndarray()[0])
            except (av.error.EOFError, av.error.BlockingIOError):
                return np.concatenate(parts).astype(np.float32)

    return attacked


def speed(factor: float) -> Attack:
    """Return the samples as many times faster, with their pitch."""
    return lambda samples, rate: resampled(samples, rate * factor, rate)


def with_music(db: float, corpora: Path) -> Attack:
    """Return the samples with music `db` dB below them."""

    def attacked(samples: Samples, rate: int) -> Samples:
        piece = resampled(*music(corpora), rate)[5 * rate :][: len(samples)]
        return samples + piece * np.float32(np.sqrt((samples**2).mean() / (piece**2).mean()) * 10 ** (-db / 20))

    return attacked


def griffin_lim(samples: Samples, rate: int) -> Samples:
    """Return the samples made again from 80 mel bands at 16 kHz (hop 12.5 ms) by 32 rounds of Griffin-Lim."""
    own = resampled(samples, rate, 16_000)
    mel = _mel(513, 16_000, 80)
    frames = {"fs": 16_000, "nperseg": 1024, "noverlap": 824}
    power = np.abs(signal.stft(own, **frames)[2]) ** 2
    magnitude = np.sqrt(np.maximum(np.linalg.pinv(mel) @ (mel @ power), 1e-10))
    phase = np.exp(2j * np.pi * np.random.default_rng(3).uniform(size=magnitude.shape))
    for _ in range(32):
        made = signal.istft(magnitude * phase, **frames)[1]
        again = signal.stft(made, **frames)[2][:, : magnitude.shape[1]]
        phase[:, : again.shape[1]] = np.exp(1j * np.angle(again))
    return resampled(signal.istft(magnitude * phase, **frames)[1].astype(np.float32), 16_000, rate)


def _mel(bins: int, rate: int, bands: int) -> np.ndarray:
    """Return triangular filters [bands, bins] that are even in mel."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2) / 2595) - 1)
    hz = np.linspace(0, rate / 2, bins)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    return np.maximum(np.minimum(rising, falling), 0)


def attacks(corpora: Path) -> dict[str, Attack]:
    """Return all attacks by name that the plain search answers."""
    return {
        "none": lambda samples, rate: samples,
        "MP3 128k": codec("libmp3lame", "mp3", 128),
        "MP3 64k": codec("libmp3lame", "mp3", 64),
        "MP3 32k": codec("libmp3lame", "mp3", 32),
        "AAC 64k": codec("aac", "adts", 64),
        "Opus 24k": codec("libopus", "ogg", 24, 48_000),
        "Opus 12k": codec("libopus", "ogg", 12, 48_000),
        "16 kHz": at_rate(16_000),
        "8 kHz": at_rate(8_000),
        "EQ +8 dB tilt": tilt(8),
        "EQ -8 dB tilt": tilt(-8),
        "telephone band": band(300, 3400),
        "high-pass 500 Hz": band(500, None),
        "compressor 4:1": compressor,
        "white noise 20 dB": noise(20),
        "white noise 10 dB": noise(10),
        "crop to 1 s": crop(1),
        "reverberation": reverberation,
        "music 10 dB below": with_music(10, corpora),
        "music 0 dB below": with_music(0, corpora),
        "mel-80, Griffin-Lim": griffin_lim,
    }


def changes_of_speed() -> dict[str, Attack]:
    """Return the attacks that only a thorough search answers."""
    return {
        "tempo 0.90": tempo(0.9),
        "tempo 1.05": tempo(1.05),
        "tempo 1.10": tempo(1.1),
        "speed 0.95": speed(0.95),
        "speed 1.02": speed(1.02),
        "speed 1.05": speed(1.05),
    }
