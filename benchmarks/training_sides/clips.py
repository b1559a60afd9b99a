"""The clips of the training benchmark: real speech with transcripts, in batches, as WAV files with manifests and as a corpus.

Folder: `equal.jsonl` and `natural.jsonl` (one line per clip, in order of batch: audio, text, segment_id, seconds), `wav/`,
`corpus/`.
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from catalogs.corpus.commit import UnitContent, bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.ids import segment_id, short_hash, source_id, unit_id

RATE = 16_000
PATCH = 2560
BATCH = 4
#: 4.8 s of audio and 20 tokens: the official code's ratio of text to audio (40 : 60), without padding.
EQUAL_PATCHES, EQUAL_TOKENS = 30, 20
_FINGERPRINT = "0123456789abcdef"


@dataclass(frozen=True)
class Clip:
    """One clip: float32 [S] at 16 kHz, and its transcript."""

    text: str
    language: str
    samples: np.ndarray

    @property
    def patches(self) -> int:
        """The number of patches it fills, the last one padded."""
        return -(-len(self.samples) // PATCH)


def read_clips(corpora: Path) -> list[Clip]:
    """Return all transcribed clips of up to 30 s of the multilingual collection, in a seeded random order."""
    lines = (corpora / "world" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    clips = []
    for entry in map(json.loads, lines):
        if not entry["path"].startswith("multilingual/") or not entry.get("transcript") or not entry["duration_s"]:
            continue
        if entry["duration_s"] <= 30:
            samples, rate = soundfile.read(corpora / "world" / entry["path"], dtype="float32", always_2d=True)
            mono = np.asarray(soxr.resample(samples.mean(axis=1), rate, RATE), dtype=np.float32)
            clips.append(Clip(" ".join(entry["transcript"].split()), entry["language"], mono))
    random.Random(7).shuffle(clips)
    return clips


def natural_batches(clips: list[Clip], batches: int) -> list[Clip]:
    """Return the first clips, unchanged, `BATCH` per batch."""
    return clips[: batches * BATCH]


def equal_batches(clips: list[Clip], batches: int, tokenizer: Any) -> list[Clip]:
    """Return clips cut to `EQUAL_PATCHES`, with the first `EQUAL_TOKENS` tokens of their text."""
    found = []
    for clip in clips:
        ends = [n for n in range(1, len(clip.text) + 1) if len(tokenizer.encode(clip.text[:n])) == EQUAL_TOKENS]
        if len(clip.samples) >= EQUAL_PATCHES * PATCH and ends:
            found.append(Clip(clip.text[: ends[-1]], clip.language, clip.samples[: EQUAL_PATCHES * PATCH]))
    if len(found) < batches * BATCH:
        raise SystemExit(f"only {len(found)} clips have {EQUAL_PATCHES} patches and {EQUAL_TOKENS} tokens")
    return found[: batches * BATCH]


def write_sets(folder: Path, sets: dict[str, list[Clip]]) -> None:
    """Write WAV files, manifests and one corpus with all clips."""
    (folder / "wav").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    start = 0.0
    source, session = source_id("benchmark/clips.flac", "benchmark"), short_hash("session", "benchmark")
    for name, clips in sets.items():
        lines = []
        for number, clip in enumerate(clips):
            path = folder / "wav" / f"{name}_{number:03d}.wav"
            soundfile.write(path, clip.samples, RATE, subtype="PCM_16")
            rows.append(_row(clip, start, source, session, len(rows)))
            start += len(clip.samples) / RATE
            known = {"segment_id": rows[-1]["segment_id"], "seconds": len(clip.samples) / RATE}
            lines.append(json.dumps({"audio": str(path), "text": clip.text, **known}, ensure_ascii=False))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _commit(folder / "corpus", rows, source, session, start)


def _row(clip: Clip, start: float, source: str, session: str, number: int) -> dict[str, Any]:
    seconds = len(clip.samples) / RATE
    sink = io.BytesIO()
    soundfile.write(sink, clip.samples, RATE, format="FLAC", subtype="PCM_16")
    return {
        "segment_id": segment_id(source, round(start * RATE), round((start + seconds) * RATE), _FINGERPRINT),
        "session_id": session,
        "source_id": source,
        "seq": number,
        "start_s": start,
        "end_s": start + seconds,
        "duration_s": seconds,
        "sample_rate": RATE,
        "language": clip.language[:2],
        "text": clip.text,
        "text_source": "given",
        "words": [],
        "kept": True,
        "reasons": [],
        "audio": sink.getvalue(),
    }


def _commit(folder: Path, rows: list[dict[str, Any]], source: str, session: str, seconds: float) -> None:
    create_corpus(folder)
    bind_fingerprint(folder, _FINGERPRINT)
    recording = {
        "source_id": source,
        "path": "benchmark/clips.flac",
        "session_id": session,
        "duration_s": seconds,
        "sample_rate": RATE,
        "channels": 1,
        "codec": "flac",
        "bytes": 1,
        "status": "ok",
        "silence_s": 0.0,
        "content_sha256": "benchmark",
    }
    unit = unit_id([(source, 1, "benchmark")], _FINGERPRINT)
    commit_unit(folder, UnitContent(unit, _FINGERPRINT, [session], rows, [recording]))
