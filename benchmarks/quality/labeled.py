"""Measure the labeled clips of the shared corpora: pitch, prosody, vocal tract and, if asked for, the voiceprint."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.records import PCM_RATE, Segment
from pipeline.voice.encoders import load_encoder
from pipeline.voice.prosody import Prosody, measure_prosody, track_pitch
from pipeline.voice.tract import measure_tract

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
PERMISSIVE = {
    "AISHELL-3", "FSDD", "LJSpeech", "MFA-styles", "VCTK", "azure-samples", "higgs-voices", "jfk", "malaya-speech",
    "neutts-voices", "viet-tts-voices",
}  # fmt: skip
"""Labeled corpora whose license allows any use: what ships is fitted on these only."""
_AISHELL_MEN = {"SSB0073", "SSB0139", "SSB0241", "SSB0273"}
"""Men among the AISHELL-3 voices at hand, by the corpus' published spk-info.txt. The others are women."""


@dataclass(frozen=True)
class Measured:
    """One labeled clip: its measures as a segment, and its prosody."""

    corpus: str
    voice: str
    gender: str | None
    emotion: str | None
    segment: Segment
    prosody: Prosody


class Clock:
    """CPU seconds of the measures, and seconds of audio."""

    def __init__(self) -> None:
        self.audio_s = self.pitch_s = self.tract_s = 0.0


def rows() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the path and the row of every clip of the manifests."""
    for base in (CORPORA, CORPORA / "world"):
        for line in (base / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield base / row["path"], row


def measured(
    clock: Clock, voiceprints: bool = False, narrow: bool = False, noise_db: float | None = None
) -> list[Measured]:
    """Measure every clip that has a gender or an emotion.

    narrow: as by telephone, without what is above 4 kHz. noise_db: with white noise at this ratio of signal to noise.
    """
    encoder = load_encoder("ge2e", "cpu") if voiceprints else None
    found = []
    for place, (path, row) in enumerate(rows()):
        gender = _gender(row)
        if row["corpus"] == "made-here" or not (gender or row.get("emotion")):
            continue
        samples = _load(path, narrow)
        if noise_db is not None:
            level = float(np.sqrt(np.mean(np.square(samples)))) * 10 ** (-noise_db / 20)
            samples = samples + np.random.default_rng(place).normal(0, level, len(samples)).astype(np.float32)
        segment = Segment(row["path"], 0, 0.0, len(samples) / PCM_RATE)
        prosody = _measure(segment, samples, clock)
        if prosody is None or segment.effort_db is None:
            continue
        if encoder is not None:
            mean = encoder.partials([samples])[0].mean(axis=0)
            segment.embedding = (mean / np.linalg.norm(mean)).astype(np.float32)
        corpus = "jfk" if row["corpus"].startswith("JFK") else row["corpus"]
        voice = "jfk" if corpus == "jfk" else row["speaker"] or row["path"]
        found.append(Measured(corpus, voice, gender, row.get("emotion"), segment, prosody))
    return found


def family(corpus: str) -> str:
    """Return the corpus that a part belongs to."""
    return "KAIST" if corpus.startswith("KAIST") else corpus


def _gender(row: dict[str, Any]) -> str | None:
    if row["corpus"] == "AISHELL-3":
        return "male" if row["speaker"].removeprefix("aishell3:") in _AISHELL_MEN else "female"
    gender: str | None = row.get("gender")
    return gender


def _load(path: Path, narrow: bool) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if narrow:
        mono, rate = soxr.resample(mono, rate, 8000), 8000
    return np.asarray(soxr.resample(mono, rate, PCM_RATE) if rate != PCM_RATE else mono, dtype=np.float32)


def _measure(segment: Segment, samples: np.ndarray, clock: Clock) -> Prosody | None:
    """Measure as `classify_emotion` does."""
    clock.audio_s += segment.duration_s
    start = time.thread_time()
    pitch = track_pitch(samples)
    prosody = measure_prosody(samples, pitch)
    middle = time.thread_time()
    tract = measure_tract(samples, pitch)
    clock.pitch_s, clock.tract_s = clock.pitch_s + middle - start, clock.tract_s + time.thread_time() - middle
    if prosody is not None:
        segment.pitch_hz, segment.pitch_range_st = prosody.pitch_hz, prosody.pitch_range_st
        segment.pitch_low_hz, segment.voiced_share = prosody.pitch_low_hz, prosody.voiced_share
    if tract is not None:
        segment.formant_hz, segment.effort_db = tract.formant_hz, tract.effort_db
    return prosody
