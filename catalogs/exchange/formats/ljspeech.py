"""The layout of LJ Speech: wavs/ and metadata.csv with `id|text|normalized text` (read: LJSpeech-1.1/README)."""

from __future__ import annotations

from catalogs.exchange.clips import Clip, file_stem
from catalogs.exchange.formats.base import FileFormat, Job, Part, json_line, own_fields


class LJSpeech(FileFormat):
    """metadata.csv has no place for words and licenses: segments.jsonl beside it holds them. A split has its own csv."""

    name = "ljspeech"
    reader = "the many trainers that take LJ Speech"
    audio = ("wav",)
    prefix = ""

    def place_audio(self, clip: Clip) -> str:
        """Return wavs/ID.wav: readers know no folders below."""
        return f"wavs/{file_stem(clip.id)}.wav"

    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the line of a clip. The separator within a text becomes a space: the format has no quotes."""
        text = " ".join(job.text(clip).replace("|", " ").split())
        stem = file_stem(clip.id)
        own = own_fields(job, clip)
        table = "metadata.csv" if len(job.request.splits) == 1 else f"metadata_{part.split}.csv"
        line = {"file": f"{stem}.wav", "text": job.text(clip), "split": part.split}
        return {table: f"{stem}|{text}|{text}", "segments.jsonl": json_line(line | own)}
