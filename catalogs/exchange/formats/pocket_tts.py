"""JSON lines of pocket-tts: `path`, `duration`, `transcript`, `words` (read: kyutai-labs/pocket-tts 109ac2e, training/)."""

from __future__ import annotations

from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import FileFormat, Job, Part, json_line, own_fields


class PocketTTS(FileFormat):
    """The word times spare its aligner. The loader seeks in WAV files and resamples by itself; files are named train_aligned and
    valid_aligned as `prepare_data.py` names them."""

    name = "pocket-tts"
    reader = "training/train.py of pocket-tts"
    audio = ("wav", "flac", "none")

    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the line of a clip."""
        rate, samples = clip.about
        own = own_fields(job, clip)
        words = own.pop("words")
        line = {"path": path, "start": 0.0, "duration": round(samples / rate, 6), "transcript": job.text(clip)}
        line["words"] = words or None
        name = {"train": "train_aligned", "validation": "valid_aligned"}.get(part.split, part.split)
        return {f"{name}.jsonl": json_line(line | own)}
