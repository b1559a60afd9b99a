"""Held-out segments as items for a judge: a JSONL list with its clips, in the columns of `evaluation.items`."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catalogs.files import write_atomically
from trainer.config import Phase
from trainer.data.candidates import Candidate, Candidates
from trainer.data.corpora import Corpora, SegmentError
from trainer.data.holdout import stratified
from trainer.runtime.seeds import hash_number
from trainer.sample_kinds import BY_LAYOUT

LIST = "items.jsonl"
NO_LANGUAGE = "und"
"""ISO 639's code for a language that is not known."""


def write_held(
    folder: Path, corpora: Corpora, held: Sequence[Candidate], phases: Mapping[str, Phase], count: int
) -> dict[str, str]:
    """Write at most `count` held-out segments, shared among the languages; return damaged segments with the reasons.

    An item has the text and the recording as `human_audio`. If the phases train with references and at least half of the segments
    have one, only these are taken, with a reference clip and its words. The list is written last: if it exists, so do its clips.
    """
    view = Candidates.of(held)
    weights = [phase.layouts for phase in phases.values()]
    trained = any(getattr(one, name) > 0 for one in weights for name, kind in BY_LAYOUT.items() if kind.reference)
    referenced = view.where(view.pairs.counts(view.rows) > 0)
    with_reference = trained and 2 * len(referenced) >= min(count, len(view))
    rows: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    for candidate, _ in stratified(referenced if with_reference else view, count, ()):
        reference = None
        if with_reference:
            # Always the same clip of a segment.
            draw = hash_number("panel", candidate.segment_id)
            reference = candidate.references[draw % len(candidate.references)][0]
        try:
            rows.append(_row(folder, corpora, candidate, reference))
        except SegmentError as error:
            damaged[error.segment_id] = str(error)
    if rows:
        write_atomically(folder / LIST, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return damaged


def _row(folder: Path, corpora: Corpora, candidate: Candidate, reference: str | None) -> dict[str, Any]:
    row = {
        "id": candidate.segment_id,
        "text": candidate.text,
        "language_id": candidate.language or NO_LANGUAGE,
        "human_audio": _clip(folder, corpora, candidate.segment_id),
    }
    if reference is not None:
        row |= {
            "ref_audio": _clip(folder, corpora, reference),
            "ref_text": corpora.segment(reference)["text"] or "",
        }
    return row


def _clip(folder: Path, corpora: Corpora, segment: str) -> str:
    """Write a segment's audio, if it is not there; return its path relative to the folder."""
    import soundfile

    # A hash: an id of a table is not used as a path.
    name = f"clips/{hashlib.sha256(segment.encode()).hexdigest()[:16]}.flac"
    if not (folder / name).is_file():
        samples, rate = corpora.native_clip(segment)
        sink = io.BytesIO()
        soundfile.write(sink, samples, rate, format="FLAC", subtype="PCM_16")
        write_atomically(folder / name, sink.getvalue())
    return name
