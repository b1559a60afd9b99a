"""A small corpus of real speech for the trainer's tests: committed as the pipeline would, with descriptions and references."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr
from corpus_builders import FINGERPRINT, flac, good_row

from catalogs.corpus.commit import UnitContent, bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.ids import short_hash, source_id, unit_id
from catalogs.corpus.schema import DESCRIPTIONS


def build_corpus(folder: Path, corpora: Path, clips: int = 4, speakers: int = 2) -> Path:
    """RAVDESS (en, native 48 kHz) and EmoDB (de) clips of a few speakers; one unit a speaker, native rates kept.

    Every clip has evenly spread word times; every other one a description; from the third on, the speaker's first as
    reference.
    """
    create_corpus(folder)
    bind_fingerprint(folder, FINGERPRINT)
    for name, entries in chosen_clips(corpora, clips, speakers).items():
        commit_speaker(folder, corpora, name, entries)
    return folder


def chosen_clips(corpora: Path, clips: int, speakers: int) -> dict[str, list[dict[str, Any]]]:
    """Manifest rows by speaker: the first `clips` of the first `speakers` of either corpus."""
    by_speaker: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        group = entry["path"].split("/")[0]
        if group in ("ravdess", "emodb") and entry["text"]:
            by_speaker[group][entry["speaker"]].append(entry)
    return {
        name: by_speaker[group][name][:clips]
        for group in ("ravdess", "emodb")
        for name in sorted(by_speaker[group])[:speakers]
    }


def commit_speaker(
    folder: Path, corpora: Path, name: str, entries: list[dict[str, Any]], text: str | None = None
) -> None:
    """Commit one speaker's clips as one unit and describe every other one."""
    session, path = short_hash("session", name), f"{name}/takes.flac"
    source = source_id(path, name)
    rows: list[dict[str, Any]] = []
    start = 0.0
    for number, entry in enumerate(entries):
        samples, rate = soundfile.read(corpora / entry["path"], dtype="float32")
        # The loudest part is speech: room tone before and after is cut to keep the tests quick.
        heard = np.flatnonzero(np.abs(samples) > 0.02)
        samples = samples[max(0, heard[0] - rate // 10) : heard[-1] + rate // 10]
        if rate == 48_000 and number % 2:
            samples, rate = soxr.resample(samples, rate, 24_000), 24_000
        seconds = len(samples) / rate
        row = good_row(number, source, session, start, round(seconds, 2))
        row |= {"end_s": start + seconds, "duration_s": seconds, "sample_rate": rate, "language": entry["language"]}
        row |= {"text": text or entry["text"], "speaker": name, "license": entry["license"]}
        row["words"] = spread_words(row["text"], seconds)
        row["audio"] = flac((samples * 32767).astype(np.int16), rate)
        rows.append(row)
        start += seconds + 0.5
    recording = {
        "source_id": source, "path": path, "session_id": session, "duration_s": start, "sample_rate": 48_000,
        "channels": 1, "codec": "flac", "bytes": 1000, "license": entries[0]["license"], "status": "ok",
        "silence_s": 0.5 * len(rows), "content_sha256": name,
    }  # fmt: skip
    references = [
        {"segment_id": row["segment_id"], "reference_id": rows[0]["segment_id"], "cosine": 0.8, "gap": 2 + number}
        for number, row in enumerate(rows[2:])
    ]
    unit = unit_id([(source, 1000, name)], FINGERPRINT)
    stats = {"busy_s": {"decode": 0.5}, "wall_s": 3.0, "settings": "abc"}
    commit_unit(folder, UnitContent(unit, FINGERPRINT, [session], rows, [recording], references, stats=stats))
    describe(folder, unit, [row["segment_id"] for row in rows[::2]])


def spread_words(text: str, seconds: float) -> list[dict[str, Any]]:
    """Words as a recognizer would time them if all were equally long."""
    words = text.split()
    each = seconds / len(words)
    return [
        {"word": word, "start": n * each, "end": (n + 1) * each, "p": 0.9} for n, word in enumerate(words)
    ]  # fmt: skip


def describe(folder: Path, unit: str, segments: list[str]) -> None:
    """One description a segment, as `voxmill describe` leaves them."""
    rows = [
        {
            "segment_id": segment, "annotator": "acoustic", "brief": "a calm voice", "full": "A calm voice, not loud.",
            "verdict": "agree", "status": "ok", "disagreements": [],
        }
        for segment in segments
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=DESCRIPTIONS)
    path = folder / "annotations" / "acoustic" / unit[:2] / f"{unit}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
