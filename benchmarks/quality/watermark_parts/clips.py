"""The clips of the watermark benchmark: one channel, the loudest 3 s, each corpus and language in turn.

Constants of the watermark were chosen on `TUNING` and other clips of its corpora. None of these corpora is among the clips that are
measured.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SECONDS = 3.0
_LOWEST_RATE = 16_000
_TUNING_CORPORA = {"RAVDESS", "LJSpeech", "LibriTTS", "CommonVoice", "LibriSpeech", "EmoDB"}

TUNING = (
    "ravdess/actor_01/03-01-01-01-01-01-01.flac",
    "read/LJ002-0020.flac",
    "read/5142_33396_000002_000004.flac",
    "read/common_voice_en_651325.mp3",
    "read/jfk.flac",
)


@dataclass(frozen=True)
class Clip:
    """One channel of speech [n] float32 at its own rate, Hz."""

    name: str
    language: str
    samples: Samples
    rate: int
    text: str = ""


def measured_clips(corpora: Path, limit: int) -> list[Clip]:
    """Return up to `limit` clips: the first of each corpus and language, then the second, each of another speaker."""
    groups: dict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)
    for line in (corpora / "world" / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        speech = row["path"].split("/")[0] in ("multilingual", "emotional") and not row["synthetic"] and row["language"]
        if not speech or row["corpus"] in _TUNING_CORPORA or row["sample_rate"] < _LOWEST_RATE:
            continue
        group = groups[row["corpus"], row["language"]]
        if row["duration_s"] >= SECONDS and all(row["speaker"] != other["speaker"] for other in group):
            group.append(row)
    chosen: list[dict[str, object]] = []
    for turn in range(max(map(len, groups.values()))):
        chosen += [group[turn] for _, group in sorted(groups.items()) if turn < len(group)]
    return [_clip(corpora / "world", str(row["path"]), str(row["language"])) for row in chosen[:limit]]


def tuning_clips(corpora: Path) -> list[Clip]:
    """Return the clips that constants may be chosen on."""
    return [_clip(corpora, path, "en") for path in TUNING]


def labeled_clips(corpora: Path) -> list[Clip]:
    """Return the whole utterances whose words are known, emotional speech in English and German, in random order: a run that was
    stopped has measured a sample."""
    found = []
    for line in (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("text") and row["path"].split("/")[0] in ("ravdess", "emodb"):
            samples, rate = soundfile.read(corpora / row["path"], dtype="float32", always_2d=True)
            own = np.ascontiguousarray(samples[:, 0])
            found.append(Clip(row["path"], row["language"], own, rate, row["text"]))
    return [found[number] for number in np.random.default_rng(0).permutation(len(found))]


def _clip(folder: Path, path: str, language: str) -> Clip:
    samples, rate = soundfile.read(folder / path, dtype="float32", always_2d=True)
    return Clip(path, language, loudest(np.ascontiguousarray(samples[:, 0]), rate, SECONDS), rate)


def loudest(samples: Samples, rate: int, seconds: float) -> Samples:
    """Return the loudest part of `seconds` seconds, or all if it is shorter."""
    count = round(seconds * rate)
    if len(samples) <= count:
        return samples
    sums = np.concatenate(([0.0], np.cumsum(samples.astype(np.float64) ** 2)))
    start = int((sums[count:] - sums[:-count]).argmax())
    return samples[start : start + count]


def music(corpora: Path) -> tuple[Samples, int]:
    """Return a piece of music and its rate."""
    samples, rate = soundfile.read(corpora / "music" / "test.mp3", dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples[:, 0]), rate
