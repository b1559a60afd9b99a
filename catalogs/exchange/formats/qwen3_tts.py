"""JSON lines of Qwen3-TTS fine-tuning: `audio`, `text`, `ref_audio`, `language` (read: QwenLM/Qwen3-TTS 0c10f25, finetuning/)."""

from __future__ import annotations

from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import FileFormat, Job, Part, json_line, own_fields
from catalogs.vocabulary.languages import language_name


class Qwen3TTS(FileFormat):
    """The trainer asserts 24 kHz. Each line needs `ref_audio`: a clip of the same voice, or the clip itself if it has none.

    The trainer itself is for one speaker: give --where "speaker = '...'".
    """

    name = "qwen3-tts"
    reader = "finetuning/prepare_data.py and sft_12hz.py of Qwen3-TTS"
    audio = ("wav", "flac", "none")
    sample_rate = 24_000

    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the line of a clip."""
        own = own_fields(job, clip)
        code = own.pop("language")
        line = {"audio": path, "text": job.text(clip), "ref_audio": self.reference(job, clip) or path}
        line["language"] = language_name(code) if code else "Auto"
        return {f"{part.split}_raw.jsonl": json_line(line | {"language_code": code} | own)}
