"""JSON lines of dots.tts: `fid`, `audio`, `text` (read: rednote-hilab/dots.tts 02d7146, README, "Fine-tuning")."""

from __future__ import annotations

from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import FileFormat, Job, Part, json_line, own_fields


class Dots(FileFormat):
    """Paths are absolute, as in its README. Other fields are passed through by its reader."""

    name = "dots"
    reader = "scripts/train_dots_tts.py of dots.tts"
    audio = ("wav", "flac", "none")

    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the line of a clip."""
        own = own_fields(job, clip)
        own.pop("id")
        line = {"fid": clip.id, "audio": path, "text": job.text(clip)}
        return {f"{part.split}.jsonl": json_line(line | own)}
