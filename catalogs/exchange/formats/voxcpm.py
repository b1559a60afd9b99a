"""JSON lines of the official VoxCPM trainer: `audio`, `text`, `ref_audio`, `duration` (read: OpenBMB/VoxCPM 2.0.3)."""

from __future__ import annotations

from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import FileFormat, Job, Part, json_line, own_fields


class VoxCPM(FileFormat):
    """The trainer resolves relative paths by its working directory, so that paths are absolute. It resamples by itself."""

    name = "voxcpm"
    reader = "scripts/train_voxcpm_finetune.py of VoxCPM; `voxmill train` needs no export"

    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the line of a clip. `ref_audio` is another clip of its voice."""
        rate, samples = clip.about
        line = {"audio": path, "text": job.text(clip), "ref_audio": self.reference(job, clip)}
        return {f"{part.split}.jsonl": json_line(line | {"duration": round(samples / rate, 6)} | own_fields(job, clip))}
