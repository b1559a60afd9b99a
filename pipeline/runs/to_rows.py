"""Convert a finished session to rows of the corpus: `kept` and the soft reasons are decided here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from catalogs.corpus.schema import QUARANTINE, SEGMENTS
from catalogs.corpus.thresholds import Thresholds
from catalogs.urls import public
from pipeline.records import Quarantined, Recording, Segment, Session


def segment_rows(session: Session, thresholds: Thresholds) -> list[dict[str, Any]]:
    """Return one dict per segment with every column of `catalogs.corpus.schema.SEGMENTS`, without audio if a hard rule
    rejected it.

    A segment that a stage failed on keeps its audio; its reason is `failed_<stage>`, whatever the thresholds.
    """
    recordings = {recording.source.source_id: recording for recording in session.recordings}
    return [_segment_row(session, recordings[s.source_id], s, thresholds) for s in session.segments]


def recording_rows(session: Session) -> list[dict[str, Any]]:
    """Return one dict per recording with every column of `catalogs.corpus.schema.RECORDINGS`."""
    return [
        {
            "source_id": recording.source.source_id,
            "path": public(recording.source.path),
            "session_id": session.session_id,
            "duration_s": recording.duration_s,
            "sample_rate": recording.sample_rate,
            "channels": recording.channels,
            "codec": recording.codec,
            "bytes": recording.source.bytes,
            "status": recording.status,
            # The seconds that are in no segment. A quarantined recording has no segments.
            "silence_s": recording.silence_s if recording.status != "quarantined" else recording.duration_s,
            "content_sha256": recording.source.content_sha256,
            "marks": recording.flags_of(0.0, recording.duration_s),
            **recording.source.rights.row(),
        }
        for recording in session.recordings
    ]


def reference_rows(session: Session) -> list[dict[str, Any]]:
    """Return one dict per mined pair."""
    return [asdict(reference) for reference in session.references]


def quarantine_rows(session: Session) -> list[dict[str, Any]]:
    """Return one dict per item that could not be processed."""
    return [quarantine_row(row) for row in session.quarantine]


def quarantine_row(row: Quarantined) -> dict[str, Any]:
    """Return the columns of `catalogs.corpus.schema.QUARANTINE`."""
    return {name: value for name, value in asdict(row).items() if name in QUARANTINE.names}


def _segment_row(session: Session, recording: Recording, segment: Segment, thresholds: Thresholds) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(segment, name, None) for name in SEGMENTS.names}
    row |= {
        "session_id": session.session_id,
        "duration_s": segment.duration_s,
        "flags": [*segment.flags, *recording.flags_of(segment.start_s, segment.end_s)],
        "sample_rate": segment.flac_rate or recording.sample_rate,
        "license": recording.source.rights.license,
        "words": [asdict(word) for word in segment.words],
        "embedding": None if segment.embedding is None else segment.embedding.tolist(),
        "extra": [{"name": name, "value": float(value)} for name, value in segment.extra.items()] or None,
        "audio_print": None if segment.audio_print is None else segment.audio_print.astype("<u2").tobytes(),
        "audio": None,
    }
    hard = list(dict.fromkeys(segment.hard_reasons))
    failures = list(dict.fromkeys(segment.failures))
    if not hard and not failures and segment.flac is None:
        hard = ["no_audio"]
    if not hard and segment.flac is not None:
        row["audio"] = {"bytes": segment.flac, "path": f"{segment.segment_id}.flac"}
    row["reasons"] = [*hard, *failures] or thresholds.reasons(row)
    row["kept"] = not row["reasons"]
    return row
