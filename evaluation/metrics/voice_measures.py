"""What is measured of a take to compare it with other takes: pitch, range, loudness, rate and gender. No model but GE2E."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

RATE = 16_000
_FRAME = RATE // 100
_NEAR_ST = 7.0
"""Frames farther from the median pitch do not count for the range: they are mostly octave errors. With this limit, the range of
sentences that were stretched or shifted changes by 0.25 st in the mean (without it: 1.2 st)."""
_SOUND_RANGE_DB = 30.0
"""A frame of 10 ms has sound if it is at most this far below the loudest twentieth of the frames."""


@dataclass(frozen=True)
class Measures:
    """Figures of one clip. None: not measurable.

    `pitch_hz`: median of the voiced frames. `range_st`: 10th to 90th percentile of the pitch, in semitones, within 7
    semitones of the median. `level_lufs`: loudness.
    `level_range_db`: 10th to 90th percentile of the voiced levels. `rate`: syllables of the text (characters of Chinese, Japanese
    and so on) per second from the first to the last sound. `pitch_low_hz`, `formant_hz`, `voiced_s`: what the gender follows from.
    """

    pitch_hz: float | None = None
    range_st: float | None = None
    level_lufs: float | None = None
    level_range_db: float | None = None
    rate: float | None = None
    pitch_low_hz: float | None = None
    formant_hz: float | None = None
    voiced_s: float | None = None


FIGURES = tuple(field.name for field in fields(Measures))


def measure(samples: np.ndarray, text: str) -> Measures:
    """Return the measures of float32 [S] at 16 kHz that says a text."""
    from pipeline.quality.levels import loudness_lufs
    from pipeline.text.counts import count_syllables
    from pipeline.voice.prosody import measure_prosody, track_pitch
    from pipeline.voice.tract import measure_tract

    spoken_s = sounding_seconds(samples)
    rate = count_syllables(text) / spoken_s if spoken_s else None
    pitch = track_pitch(samples)
    prosody = measure_prosody(samples, pitch)
    if prosody is None:
        return Measures(level_lufs=loudness_lufs(samples), rate=rate)
    tract = measure_tract(samples, pitch)
    return Measures(
        pitch_hz=prosody.pitch_hz,
        range_st=_range(pitch),
        level_lufs=loudness_lufs(samples),
        level_range_db=prosody.level_range_db,
        rate=rate,
        pitch_low_hz=prosody.pitch_low_hz,
        formant_hz=tract.formant_hz if tract is not None else None,
        voiced_s=prosody.voiced_share * len(samples) / RATE,
    )


def _range(pitch: np.ndarray) -> float:
    """Return the range of the voiced frames of a clip in semitones."""
    voiced = pitch[pitch > 0]
    away = 12 * np.log2(voiced / np.median(voiced))
    low, high = np.percentile(away[np.abs(away) <= _NEAR_ST], [10, 90])
    return float(high - low)


def sounding_seconds(samples: np.ndarray) -> float:
    """Return the seconds from the first to the last sound of float32 [S] at 16 kHz; 0 for silence."""
    count = len(samples) // _FRAME
    if not count:
        return 0.0
    power = np.square(samples[: count * _FRAME], dtype=np.float64).reshape(count, _FRAME).mean(axis=1)
    loudest = float(np.sort(power)[-max(1, count // 20) :].mean())
    sounding = np.flatnonzero(power >= max(loudest * 10 ** (-_SOUND_RANGE_DB / 10), 1e-10))
    return float(sounding[-1] - sounding[0] + 1) * _FRAME / RATE if len(sounding) else 0.0


def female_logit(measures: Measures, voiceprint: np.ndarray | None) -> float | None:
    """Return the log odds that the voice is a woman's; None without pitch. voiceprint: by GE2E, unit length [256]."""
    from annotators.experts.gender import VoiceClip, pitch_and_formant
    from annotators.experts.gender import female_logit as by_pitch
    from pipeline.voice.gender import witnesses

    if not measures.pitch_low_hz or not measures.voiced_s:
        return None
    clip = VoiceClip(measures.pitch_low_hz, measures.formant_hz, measures.voiced_s)
    if voiceprint is None or not measures.formant_hz or by_pitch([clip]) is None:
        return by_pitch([clip])
    return witnesses().logit(*pitch_and_formant([clip]), voiceprint.astype(np.float64))


def semitones(hz: float, reference_hz: float) -> float:
    """Return the interval from a reference to a frequency."""
    return float(12 * np.log2(hz / reference_hz))
