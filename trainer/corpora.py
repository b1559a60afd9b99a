"""The corpora of a run as one: rows for the mixture, audio of any segment at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from catalogs.corpus import Corpus
from catalogs.damage import one_line, repair_command
from catalogs.duplicates import read_duplicates
from catalogs.views import QueryError, query
from trainer.config import TrainError

RATE = 16_000
# What Arrow raises for a file that is no Arrow file, or half of one, are ValueErrors.
_DAMAGED = (OSError, ValueError, IndexError)
_LOOKS_AT_ONCE = 16
"""Shards that are looked at side by side."""
_USED = ["segment_id", "language", "text", "duration_s"]


class SegmentError(TrainError):
    """One segment's audio, words or latents are damaged; all others may be whole."""

    def __init__(self, segment_id: str, message: str) -> None:
        super().__init__(message)
        self.segment_id = segment_id


class Decoupled(NamedTuple):
    """Speech that a model made of a text, one segment's description and another's timbre: what is said and how it is said have
    nothing to do with each other (the paper's content-decoupled data)."""

    described_id: str
    timbre_id: str
    text: str
    accepted: bool
    """Whether what is heard is the text in that voice."""


class Corpora:
    """One or more corpora; a segment that several hold is taken from the first. Raises CorpusError for a folder that is none."""

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self.parts = [Corpus(path) for path in paths]

    @property
    def title(self) -> str:
        """The folders, for messages."""
        return ", ".join(str(part.path) for part in self.parts)

    def kept(self) -> dict[str, dict[str, Any]]:
        """segment_id, language, text, duration_s of every kept segment that has audio, by id."""
        found: dict[str, dict[str, Any]] = {}
        for part in reversed(self.parts):
            table = part.kept()
            has_audio = table.column("row").is_valid()
            found |= {row["segment_id"]: row for row in table.filter(has_audio).select(_USED).to_pylist()}
        return found

    def chosen(self, where: str, name: str) -> set[str]:
        """Ids of the kept segments for which the SQL condition is true; TrainError names the phase whose SQL is wrong."""
        ids: set[str] = set()
        for part in self.parts:
            try:
                rows = query(
                    part.path, f"select segment_id from segments where kept and row is not null and ({where})"
                )[1]
            except QueryError as error:
                raise TrainError(f"phase {name}: where: {error}") from None
            ids |= {row[0] for row in rows}
        return ids

    def descriptions(self, form: Literal["full", "brief"] = "full") -> dict[str, str]:
        """The description of every described segment whose verdict did not drop it, by id: in a sentence or two, or in a few
        words."""
        found: dict[str, str] = {}
        for part in reversed(self.parts):
            table = part.annotations("descriptions").select(["segment_id", form, "status", "verdict"])
            found |= {
                row["segment_id"]: row[form]
                for row in table.to_pylist()
                if row["status"] == "ok" and row["verdict"] != "dropped" and (row[form] or "").strip()
            }
        return found

    def decoupled(self) -> dict[str, Decoupled]:
        """The content-decoupled samples of all corpora, accepted or not, by the id of the segment that holds their audio."""
        found: dict[str, Decoupled] = {}
        for part in reversed(self.parts):
            for row in part.annotations("decoupled").to_pylist():
                found[row["segment_id"]] = Decoupled(
                    row["described_id"], row["timbre_id"], row["text"] or "", bool(row["accepted"])
                )
        return found

    def references(self) -> list[tuple[str, str]]:
        """(segment, reference) ids of all mined pairs."""
        pairs = [
            (row["segment_id"], row["reference_id"])
            for part in self.parts
            for row in part.table("references").select(["segment_id", "reference_id"]).to_pylist()
        ]
        return list(dict.fromkeys(pairs))

    def duplicate_groups(self) -> dict[str, str]:
        """Of every segment that is linked to others (copies, excerpts, the same words of the same voice): its group's name."""
        found: dict[str, str] = {}
        for part in reversed(self.parts):
            table = read_duplicates(part.path)
            found |= zip(*(table.column(name).to_pylist() for name in ("segment_id", "duplicate_group")), strict=True)
        return found

    def missing_shards(self, segment_ids: Iterable[str]) -> list[tuple[Path, str]]:
        """(corpus, shard) of every file that segments need and that is not there, or is empty."""
        return [
            (folder, name)
            for folder, name in self._shards(segment_ids)
            if not (folder / name).is_file() or not (folder / name).stat().st_size
        ]

    def damaged_shards(self, segment_ids: Iterable[str]) -> list[tuple[Path, str, str]]:
        """(corpus, shard, reason) of every file that segments need and that is cut off, or no Arrow file any more. Sizes and the
        files' ends alone are looked at: damage within a clip shows when it is read."""
        written = {
            (part.path, file["path"]): file["bytes"]
            for part in self.parts
            for record in part.records
            for file in record["files"]
        }

        def reason(place: tuple[Path, str]) -> str | None:
            path = place[0] / place[1]
            try:
                size, wanted = path.stat().st_size, written.get(place)
                if wanted is not None and size != wanted:
                    return f"has {size} bytes of {wanted}"
                # A map of its own: thousands of files must not stay open.
                with pa.memory_map(str(path)) as mapped:
                    pa.ipc.open_file(mapped)
            except _DAMAGED as error:
                return f"cannot be read ({' '.join(str(error).split())})"
            return None

        places = self._shards(segment_ids)
        # On a network's file system each look is a wait.
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            return [(*place, why) for place, why in zip(places, pool.map(reason, places), strict=True) if why]

    def _shards(self, segment_ids: Iterable[str]) -> list[tuple[Path, str]]:
        """(corpus, shard) of the files that segments are in, in order."""
        return sorted({(self._home(i).path, self._home(i).place(i)[0]) for i in segment_ids})

    def segment(self, segment_id: str) -> dict[str, Any]:
        """One segment with its words; SegmentError where its shard is not there."""
        part = self._home(segment_id)
        try:
            return part.segment(segment_id)
        except _DAMAGED as error:
            raise _unreadable(segment_id, part, error) from None

    def clip(self, segment_id: str) -> np.ndarray:
        """float32 [S] at 16 kHz of one segment; SegmentError where its shard is not there or its audio is damaged."""
        import soxr

        samples, rate = self.native_clip(segment_id)
        return samples if rate == RATE else np.asarray(soxr.resample(samples, rate, RATE), dtype=np.float32)

    def native_clip(self, segment_id: str) -> tuple[np.ndarray, int]:
        """(float32 [S], rate in Hz) of one segment as it was recorded; SegmentError as `clip`."""
        import soundfile

        part = self._home(segment_id)
        try:
            return part.read_audio(segment_id)
        except (*_DAMAGED, soundfile.LibsndfileError) as error:
            raise _unreadable(segment_id, part, error) from None

    def _home(self, segment_id: str) -> Corpus:
        for part in self.parts:
            try:
                part.place(segment_id)
            except KeyError:
                continue
            return part
        raise TrainError(f"segment {segment_id} has no audio in {self.title}")


def _unreadable(segment_id: str, part: Corpus, error: Exception) -> SegmentError:
    return SegmentError(
        segment_id,
        f"the shard of segment {segment_id} cannot be read ({one_line(error)}); run: {repair_command(part.path)}",
    )
