"""Manifests of NeMo: JSON lines with `audio_filepath`, `duration`, `text` (read: docs of NeMo 2 and of NeMo Curator 26.09)."""

from __future__ import annotations

from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import FileFormat, Job, Part, json_line, own_fields


class NeMo(FileFormat):
    """NeMo finds relative paths beside the manifest. `speaker` is an integer in its TTS recipes, so that it is not in the way."""

    name = "nemo"
    reader = "NeMo and NeMo Curator (JsonlReader)"
    prefix = ""

    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the line of a clip."""
        rate, samples = clip.about
        own = own_fields(job, clip)
        line = {"audio_filepath": path, "duration": round(samples / rate, 6), "text": job.text(clip)}
        line |= {"sample_rate": rate, "speaker_id": own.pop("speaker")}
        return {f"{part.split}.jsonl": json_line(line | own)}
