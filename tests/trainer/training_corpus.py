"""A small corpus to train on: real acted speech where it is at hand, tones otherwise; references, words, descriptions."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from catalogs.commit import UnitContent, commit_unit, create_corpus
from catalogs.ids import segment_id, short_hash, source_id, unit_id
from catalogs.schema import DESCRIPTIONS

FINGERPRINT = "fedcba9876543210"
Clip = tuple[str, str, str, bytes, float, int]
"""session, language, text, FLAC bytes, seconds, rate"""


def tones(sessions: int = 2, each: int = 6, seconds: float = 2.3, rate: int = 24_000) -> list[Clip]:
    """Made-up clips: chirps whose pitch follows the number in their text."""
    clips = []
    for session in range(sessions):
        for number in range(each):
            length = round((seconds + 0.17 * number) * rate)
            times = np.arange(length) / rate
            pitch = 110.0 * (1 + session) * 2 ** (number / 12)
            samples = 0.3 * np.sin(2 * np.pi * pitch * times * (1 + 0.05 * times))
            text = f"tone number {number} of voice {session}"
            clips.append((f"voice{session}", ("en", "de")[session % 2], text, _flac(samples, rate), length / rate, rate))
    return clips


def speech(corpora: Path, sessions: int = 2, each: int = 8) -> list[Clip]:
    """Real clips with text: acted English (RAVDESS, 48 kHz) and German (EmoDB, 16 kHz)."""
    rows = [json.loads(line) for line in (corpora / "manifest.jsonl").read_text("utf-8").splitlines()]
    chosen = []
    for session in ["ravdess_01", "emodb_03", "ravdess_02", "emodb_08"][:sessions]:
        own = [row for row in rows if row["session"] == session and row["text"] and row["duration_s"] > 1][:each]
        for row in own:
            data = (corpora / row["path"]).read_bytes()
            info = soundfile.info(io.BytesIO(data))
            chosen.append(
                (session, row["language"], row["text"], data, info.frames / info.samplerate, info.samplerate)
            )
    return chosen


def build_corpus(root: Path, clips: list[Clip], described: bool = True, references: bool = True) -> Path:
    """Commit one unit per session; every clip's reference is the one two before it; every other clip is described."""
    create_corpus(root)
    descriptions = []
    for session in dict.fromkeys(clip[0] for clip in clips):
        rows = _rows(session, [clip for clip in clips if clip[0] == session])
        pairs = [
            {"segment_id": a["segment_id"], "reference_id": b["segment_id"], "cosine": 0.8, "gap": a["seq"] - b["seq"]}
            for a in rows
            for b in rows
            if abs(a["seq"] - b["seq"]) == 2
        ]
        commit_unit(root, _unit(session, rows, pairs if references else []))
        descriptions += [_description(row["segment_id"], session) for row in rows if row["seq"] % 2 == 0]
    if described:
        path = root / "annotations" / "test" / "descriptions.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(descriptions, schema=DESCRIPTIONS), path)
    return root


def _rows(session: str, clips: list[Clip]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    start = 0.0
    for seq, (_, language, text, data, seconds, rate) in enumerate(clips):
        words = text.split()
        each = seconds / max(1, len(words))
        identity = segment_id(session, round(start * rate), round((start + seconds) * rate), FINGERPRINT)
        rows.append(
            {
                "segment_id": identity,
                "session_id": short_hash("session", session),
                "source_id": source_id(f"{session}.wav", session),
                "seq": seq,
                "start_s": start,
                "end_s": start + seconds,
                "duration_s": seconds,
                "sample_rate": rate,
                "language": language,
                "text": text,
                "text_source": "given",
                "words": [
                    {"word": word, "start": i * each, "end": (i + 1) * each, "p": 1.0} for i, word in enumerate(words)
                ],
                "kept": True,
                "reasons": [],
                "audio": data,
            }
        )
        start += seconds
    return rows


def _unit(session: str, rows: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> UnitContent:
    seconds = sum(row["duration_s"] for row in rows)
    recording = {
        "source_id": rows[0]["source_id"],
        "path": f"{session}.wav",
        "session_id": rows[0]["session_id"],
        "duration_s": seconds,
        "sample_rate": rows[0]["sample_rate"],
        "channels": 1,
        "codec": "flac",
        "bytes": 1,
        "status": "ok",
        "silence_s": 0.0,
        "content_sha256": session,
    }
    return UnitContent(
        unit_id([(rows[0]["source_id"], 1, session)], FINGERPRINT),
        FINGERPRINT,
        [rows[0]["session_id"]],
        rows,
        [recording],
        pairs,
    )


def _description(identity: str, session: str) -> dict[str, Any]:
    return {
        "segment_id": identity,
        "annotator": "test",
        "language": "en",
        "brief": "A voice.",
        "full": f"The voice of {session}.",
        "verdict": "agree",
        "disagreements": [],
        "status": "ok",
    }


def _flac(samples: np.ndarray, rate: int) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, samples.astype(np.float32), rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
