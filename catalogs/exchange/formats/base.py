"""What every format declares, and the two shapes that formats have: files with manifests, and containers."""

from __future__ import annotations

import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import pyarrow as pa

from catalogs.exchange.cards.croissant import Files, croissant
from catalogs.exchange.cards.rai import rai
from catalogs.exchange.clips import Clip, audio_path
from catalogs.exchange.request import Request
from catalogs.files import fsync_path, open_atomically


@dataclass(frozen=True)
class Part:
    """One part of an export: the clips that are written, and may be lost by a kill, together.

    number: within its split, from 0. of: the number of parts of the split.
    """

    split: str
    number: int
    of: int
    rows: int


@dataclass(frozen=True)
class Job:
    """An export that is being made: its folder, its request and the columns of the clips' rows."""

    out: Path
    request: Request
    columns: tuple[str, ...]
    """Columns beside those that every format has: those of the format and those that the user asked for."""
    schema: pa.Schema
    """Arrow schema of the clips' rows."""
    facts: dict[str, Any]
    """What the card says of the clips: `name`, `description`, `voxmill`, and hours by `licenses`, `languages`, ..."""

    def place(self, path: str) -> str:
        """Return a path within the export as manifests name it."""
        prefix = self.request.prefix
        folder = str(self.out.resolve()) if prefix is None else prefix
        return f"{folder.rstrip('/')}/{path}" if folder else path

    def croissant(self, files: Files) -> str:
        """Return the Croissant description of files of the export."""
        return croissant(self.facts, files, rai(self.facts))

    def text(self, clip: Clip) -> str:
        """Return the text of a clip as it is; empty if it has none."""
        return str(clip.row[self.request.text] or "")


class Format(ABC):
    """One format. Subclasses are stateless: all that they need is in the job."""

    name: ClassVar[str]
    reader: ClassVar[str]
    """Who reads it, for the card."""
    audio: ClassVar[tuple[str, ...]] = ("flac", "wav", "none")
    """Kinds of audio that its readers take, the default first."""
    sample_rate: ClassVar[int | None] = None
    """The only rate that its reader takes, in Hz; None for any."""
    prefix: ClassVar[str | None] = ""
    """What manifests name by default: "" for paths relative to the manifest, None for absolute paths."""
    needs_text: ClassVar[bool] = True
    needs_words: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ()
    """Columns beside `selection.ALWAYS`; `*` for all that are not private."""
    part_rows: ClassVar[int] = 1000

    @abstractmethod
    def write_part(self, job: Job, part: Part, clips: Iterator[Clip]) -> dict[str, list[str]]:
        """Write the files of one part, each whole or not at all. Return lines to be collected, by the file that collects them."""

    def finish(self, job: Job, parts: Sequence[Part]) -> dict[str, str]:
        """Return more text files, by name, that say what the export is."""
        return {}

    def data_files(self, split: str) -> str | None:
        """Return the pattern of a split's files that `datasets` loads, for the head of the card; None if it does not."""
        return None


class FileFormat(Format):
    """A format of one audio file per clip and of manifests with lines."""

    prefix: ClassVar[str | None] = None

    @abstractmethod
    def lines(self, job: Job, part: Part, clip: Clip, path: str) -> dict[str, str]:
        """Return the line of a clip in each manifest. path: that of its audio, as manifests name it."""

    def place_audio(self, clip: Clip) -> str:
        """Return the path of a clip's audio within the export."""
        return audio_path(clip.id, clip.suffix)

    def reference(self, job: Job, clip: Clip) -> str | None:
        """Return the path of the reference clip's audio as manifests name it; None if it has none that is exported."""
        name = clip.row.get("reference_id")
        return job.place(audio_path(name, clip.suffix)) if name else None

    def write_part(self, job: Job, part: Part, clips: Iterator[Clip]) -> dict[str, list[str]]:
        """Write the audio of the clips and return their lines."""
        found: dict[str, list[str]] = {}
        written: list[Path] = []
        for clip in clips:
            path = self.place_audio(clip)
            if clip.audio != "none":
                written.append(_write(job.out / path, clip.data))
            for name, line in self.lines(job, part, clip, job.place(path)).items():
                found.setdefault(name, []).append(line)
        # After all are written: the system has begun to write the first ones meanwhile.
        for file in written:
            fsync_path(file)
        for folder in {file.parent for file in written}:
            fsync_path(folder)
        return found


def _write(final: Path, data: bytes) -> Path:
    """Write a file under its name in one step, without forcing it to the disk."""
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.with_name(f".{final.name}.part")
    draft.write_bytes(data)
    return draft.replace(final)


def json_line(value: dict[str, Any]) -> str:
    """Return one line of JSON, without keys that are null."""
    return json.dumps({key: item for key, item in value.items() if item is not None}, ensure_ascii=False, default=str)


def own_fields(job: Job, clip: Clip) -> dict[str, Any]:
    """Return what readers of other formats ignore and `voxmill import` reads: identity, rights, words and asked columns."""
    row = clip.row
    found = {"id": clip.id, "session": row["session_id"], "language": row["language"], "speaker": row["speaker"]}
    found |= {"license": row["license"], "words": clip.words, "reference_id": row.get("reference_id")}
    return found | {name: row[name] for name in job.columns}


def captions(clip: Clip, register: str | None = None, language: str | None = None) -> list[dict[str, Any]]:
    """Return the captions of a clip's voice, of a register and a language if given."""
    said = (clip.row.get("voice") or {}).get("captions") or ()
    return [
        one
        for one in said
        if (register is None or one["register"] == register)
        and (language is None or one["language"] in (language, None))
    ]


def caption(clip: Clip) -> str | None:
    """Return one description of the voice: the English one in full if there is one."""
    for register in ("full", "style", "brief"):
        for language in ("en", None):
            found = captions(clip, register, language)
            if found:
                return str(found[0]["text"])
    return None


def write_lines(final: Path, lines: Iterable[str]) -> None:
    """Write a file of lines, whole or not at all; compressed if its name ends in .gz. Equal lines give equal bytes."""
    with open_atomically(final) as file:
        if final.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as packed:
                _write_all(packed, lines)
        else:
            _write_all(file, lines)


def _write_all(sink: IO[bytes] | gzip.GzipFile, lines: Iterable[str]) -> None:
    for line in lines:
        sink.write(line.encode() + b"\n")
