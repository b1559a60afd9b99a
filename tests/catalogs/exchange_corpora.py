"""Corpora for the tests of exports and imports: real FLAC clips in two rates and widths, words, licenses, a planted copy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
from corpus_builders import FINGERPRINT, annotate, make_unit, tone

from catalogs.corpus.columns import RIGHTS
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.duplicates import duplicates_path
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import DUPLICATES
from catalogs.corpus.shards import to_table

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SPLITS = "train=0.6,validation=0.2,test=0.2"


def exchange_corpus(root: Path, sessions: int = 10, clips: int = 4) -> list[dict[str, Any]]:
    """Make a corpus of one session per unit; return the rows of its kept clips.

    Session 0 and 5 hold a copy of the same clip, which the duplicate search has marked; sessions 1 and 6 the same sentence.
    Each session has a last clip without audio. The rate of session 2 is 24 kHz, the samples of session 3 have 24 bits.
    """
    create_corpus(root, name="exchanged")
    bind_fingerprint(root, FINGERPRINT)
    kept: list[dict[str, Any]] = []
    marked: list[dict[str, Any]] = []
    for session in range(sessions):
        unit = make_unit(chr(ord("a") + session), clips + 1)
        for number, row in enumerate(unit.rows[:-1]):
            row |= {
                "text": f"{NUMBERS[session]}, sentence  {NUMBERS[number]}! Größe|水",
                "language": "de" if session % 2 else "en",
                "license": ("CC0-1.0", "CC-BY-4.0", None)[session % 3],
                "words": [
                    {"word": "größe", "start": 0.1, "end": 0.37, "p": 0.91},
                    {"word": "水", "start": 0.4, "end": 1.2345, "p": None},
                ],
            }
            row["audio"] = _flac(tone(1.5, 200 + 20 * session + number), 16_000)
            if session == 2:
                row |= {"audio": _flac(tone(1.5, 300 + number, 24_000), 24_000), "sample_rate": 24_000}
            if session == 3:
                deep = (tone(1.5, 400 + number).astype(np.int32) << 16) + 0x1100
                row["audio"] = _flac(deep, 16_000, "PCM_24")
        unit.recordings[0]["license"] = unit.rows[0]["license"]
        if session % 3 == 1:
            unit.recordings[0] |= {
                "license_source": "rules",
                "attribution": "Jane Doe, “Talks”",
                "source_url": "https://example.org/talks?v=1",
                "consent": "explicit",
                "purposes": ["tts-training", "research"],
                "owner_speaker": f"P{session}",
            }
        if session == 5:
            unit.rows[1]["audio"] = kept[1]["audio"]
            marked = [
                {"segment_id": kept[1]["segment_id"], "duplicate_group": kept[1]["segment_id"]},
                {
                    "segment_id": unit.rows[1]["segment_id"],
                    "duplicate_of": kept[1]["segment_id"],
                    "duplicate_kind": "exact",
                    "duplicate_group": kept[1]["segment_id"],
                },
            ]
        if session == 6:
            unit.rows[0]["text"] = f"{NUMBERS[1]} - Sentence {NUMBERS[0]}, größe (水)"
        commit_unit(root, unit)
        annotate(root, unit.unit_id, [row["segment_id"] for row in unit.rows[:1]], f"A voice of session {session}.")
        kept += unit.rows[:-1]
    path = duplicates_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(marked, DUPLICATES), path)
    return kept


def _flac(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, samples, rate, format="FLAC", subtype=subtype)
    return sink.getvalue()


def integers(data: bytes) -> tuple[bytes, int]:
    """The samples of an audio file as int32, and its rate: equal for equal samples in another container."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int32")
    return samples.tobytes(), rate


def held(root: Path) -> dict[str, dict[str, Any]]:
    """What a corpus holds of each clip that has audio: text, words, samples, rights, language, speaker."""
    corpus = Corpus(root)
    found = {}
    said = {row["source_id"]: row for row in corpus.table("recordings").to_pylist()}
    for row in corpus.index.to_pylist():
        if row["shard"] is None:
            continue
        name = row["segment_id"]
        found[name] = {
            "words": corpus.segment(name)["words"],
            "samples": integers(corpus.audio_buffer(name).to_pybytes()),
            **{key: row[key] for key in ("text", "license", "language", "speaker")},
            **{
                column.name: said[row["source_id"]][column.name] for column in RIGHTS if column.name != "license_source"
            },
        }
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file of a folder, by its path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
