"""What Whisper hears before and after marking: single utterances, and passages that fill its window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from clips import Clip, Samples
from measures import marked_clip


def words(clip: Clip, number: int, recognizer: Any) -> dict[str, Any]:
    """Return what Whisper hears in the clip before and after marking, and what is said."""
    plain, marked = (_heard(clip, samples, recognizer) for samples in (clip.samples, marked_clip(clip, number)[0]))
    return {"plain": plain, "marked": marked, "text": clip.text, "language": clip.language}


def control(clip: Clip, number: int, recognizer: Any) -> dict[str, Any]:
    """Return what Whisper hears in the clip with white noise 60 dB below its speech."""
    return {"control": _heard(clip, _with_noise(clip, number), recognizer)}


def spoken_passages(folder: Path) -> list[Clip]:
    """Return the passages that `benchmarks/workers/piper_passages.py` made. Raises FileNotFoundError."""
    found = []
    for line in (folder / "passages.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        samples, rate = soundfile.read(folder / row["path"], dtype="float32")
        found.append(Clip(row["path"], row["language"], samples, rate, row["text"]))
    return found


def _with_noise(clip: Clip, number: int) -> Samples:
    noise = np.random.default_rng(number).normal(0, 1e-3 * np.sqrt(np.mean(clip.samples**2)), len(clip.samples))
    return clip.samples + noise.astype(np.float32)


def _heard(clip: Clip, samples: Samples, recognizer: Any) -> str:
    wav = np.asarray(soxr.resample(samples, clip.rate, 16_000), np.float32)
    return str(recognizer.transcribe(wav, recognizer.code(clip.language), beam_size=1).text)


def word_line(rows: Sequence[dict[str, Any]], what: str) -> str:
    """Return a sentence with the word errors of `what`, which names the clips, and their change with marks and with noise."""
    total, before, after, change = _word_errors(rows, "marked")
    line = (
        f"Word errors of Whisper base on {len(rows)} {what} ({total:,} words): {before:.2%} before, {after:.2%} after; "
        f"change {change}."
    )
    noisy = [row for row in rows if "control" in row]
    if noisy:
        line += f" With white noise 60 dB below the speech in place of the mark, {len(noisy)} {what}: "
        line += f"change {_word_errors(noisy, 'control')[3]}."
    return line


def _word_errors(rows: Sequence[dict[str, Any]], kind: str) -> tuple[int, float, float, str]:
    """Return (words, their error rate as they were, as `kind`, the change in points with its interval, a bootstrap over clips)."""
    before, after, total = [], [], 0
    for row in rows:
        total += _count(row, row["text"])[0]
        before.append(_count(row, row["plain"])[1])
        after.append(_count(row, row[kind])[1])
    change = np.array(after) - np.array(before)
    draws = np.random.default_rng(0).integers(len(change), size=(10_000, len(change)))
    low, high = 100 * np.percentile(change[draws].sum(axis=1), [2.5, 97.5]) / total
    interval = f"{100 * change.sum() / total:+.2f} points (95 %: {low:+.2f} to {high:+.2f})"
    return total, sum(before) / total, sum(after) / total, interval


def _count(row: dict[str, Any], heard: str) -> tuple[int, int]:
    """Return (words that are said, errors in what is heard)."""
    from evaluation.metrics.words import clean_units, count_errors

    said = clean_units(row["text"], row["language"])
    counted = count_errors(said, clean_units(heard, row["language"])) or {}
    return len(said), sum(counted.get(one, 0) for one in ("substitutions", "deletions", "insertions"))
