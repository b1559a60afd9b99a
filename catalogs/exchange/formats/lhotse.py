"""Manifests of lhotse: recordings, supervisions with word alignments, and cuts, as JSON lines (read: lhotse 1.33)."""

from __future__ import annotations

from typing import Any

from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import FileFormat, Job, Part, captions, json_line, own_fields


class Lhotse(FileFormat):
    """lhotse resolves relative paths by the working directory, so that paths are absolute."""

    name = "lhotse"
    reader = "lhotse (CutSet.from_file), NeMo's lhotse loader, icefall"
    needs_text = False

    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the recording, the supervision and the cut of a clip."""
        rate, samples = clip.about
        seconds = samples / rate
        source = {"type": "file", "channels": [0], "source": path}
        recording = {"id": clip.id, "sources": [source], "sampling_rate": rate, "num_samples": samples}
        recording |= {"duration": seconds, "channel_ids": [0]}
        supervision = _supervision(job, clip, seconds)
        cut = {"id": clip.id, "start": 0, "duration": seconds, "channel": 0, "supervisions": [supervision]}
        cut |= {"recording": recording, "type": "MonoCut"}
        return {
            f"{part.split}_recordings.jsonl.gz": json_line(recording),
            f"{part.split}_supervisions.jsonl.gz": json_line(supervision),
            f"{part.split}_cuts.jsonl.gz": json_line(cut),
        }


def _supervision(job: Job, clip: Clip, seconds: float) -> dict[str, Any]:
    own = own_fields(job, clip)
    for name in ("id", "language", "speaker", "gender", "words"):
        own.pop(name, None)
    row = clip.row
    found = {"id": clip.id, "recording_id": clip.id, "start": 0.0, "duration": seconds, "channel": 0}
    found |= {"text": job.text(clip) or None, "language": row["language"], "speaker": row["speaker"]}
    found |= {"gender": row.get("gender")}
    timed = [word for word in clip.words or () if word["start"] is not None and word["end"] is not None]
    if timed:
        found["alignment"] = {"word": [_item(word) for word in timed]}
    if clip.words and len(timed) < len(clip.words):
        own["words"] = clip.words
    custom = {key: value for key, value in own.items() if value is not None} | {"captions": captions(clip) or None}
    found["custom"] = {key: value for key, value in custom.items() if value is not None}
    return found


def _item(word: dict[str, Any]) -> list[Any]:
    """Return an AlignmentItem. Durations to the nanosecond: the start plus the duration must be the same float32 end again."""
    item = [word["word"], word["start"], round(word["end"] - word["start"], 9)]
    return item if word["p"] is None else [*item, word["p"]]
