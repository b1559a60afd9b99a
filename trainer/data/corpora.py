"""The corpora of a run as one: rows for the mixture, and the audio of any segment at the codec's rate."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.candidates.build import id_hashes, license_hours
from catalogs.candidates.stored import CandidateTableError, candidate_table
from catalogs.candidates.table import Table
from catalogs.corpus.damage import finding, repair_command
from catalogs.corpus.reader import Corpus
from catalogs.query.licensed import ANY, licensed_sql
from catalogs.query.views import QueryError, query
from catalogs.vocabulary.licenses import NOT_STATED, allowed, canonical
from trainer.config import TrainError

RATE = 16_000
"""Hz that VoxCPM2's codec encodes."""
# Arrow raises a ValueError for a file that is not an Arrow file or is truncated.
_DAMAGED = (OSError, ValueError, IndexError)
_LOOKS_AT_ONCE = 16
"""Number of shards that are checked in parallel."""
_USED = ["segment_id", "language", "text", "duration_s"]


class SegmentError(TrainError):
    """One segment's audio, words or latents are damaged; other segments may be undamaged."""

    def __init__(self, segment_id: str, message: str) -> None:
        super().__init__(message)
        self.segment_id = segment_id


class Decoupled(NamedTuple):
    """Speech that a model made from a text, one segment's description and another's timbre. Content and voice are unrelated (the
    paper's content-decoupled data)."""

    described_id: str
    timbre_id: str
    text: str
    accepted: bool
    """True if the audio was found to be the text in that voice."""


class Corpora:
    """One or more corpora. A segment that several of them hold is taken from the first in which it is kept. Raises CorpusError for
    a folder that is not a corpus."""

    def __init__(self, paths: Iterable[str | Path], spare: Path | None = None, licenses: Sequence[str] = ANY) -> None:
        """spare: a folder for the candidate table of corpora that cannot be written to (default: a temporary one). licenses: those
        of the segments that count as kept here (`catalogs.vocabulary.licenses.allowed`)."""
        self.licenses = licenses
        self.parts = [Corpus(path) for path in paths]
        self._spare = spare

    @cached_property
    def table(self) -> Table:
        """The candidate table of all of them; built if there is none. Raises TrainError with one line if that fails."""
        try:
            return candidate_table(self.parts, self._spare or self._temporary, self.licenses)
        except CandidateTableError as error:
            raise TrainError(str(error)) from None

    @cached_property
    def _temporary(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="voxmill-")
        weakref.finalize(self, folder.cleanup)
        return Path(folder.name)

    @property
    def title(self) -> str:
        """The folders as shown in messages."""
        return ", ".join(str(part.path) for part in self.parts)

    def kept(self) -> dict[str, dict[str, Any]]:
        """Return segment_id, language, text, duration_s of every kept segment that has audio and an allowed license, by
        id."""
        found: dict[str, dict[str, Any]] = {}
        for part in reversed(self.parts):
            table = part.kept()
            has_audio = table.column("row").is_valid()
            names = pc.unique(table.column("license")).to_pylist()
            taken = pa.array([name for name in names if allowed(name, self.licenses)], pa.string())
            licensed = pc.is_in(table.column("license"), taken)
            usable = table.filter(pc.and_(has_audio, licensed))
            found |= {row["segment_id"]: row for row in usable.select(_USED).to_pylist()}
        return found

    def chosen(self, where: str, name: str) -> set[str]:
        """Return the ids of the kept segments for which the SQL condition is true. Raises TrainError with the phase `name` if the
        SQL is wrong."""
        ids: set[str] = set()
        for part in self.parts:
            try:
                rows = query(
                    part.path,
                    f"select segment_id from segments where kept and row is not null "
                    f"and {licensed_sql(part.path, self.licenses)} and ({where})",
                )[1]
            except QueryError as error:
                raise TrainError(f"phase {name}: where: {error}") from None
            ids |= {row[0] for row in rows}
        return ids

    def chosen_rows(self, where: str, name: str) -> np.ndarray:
        """Return bool [rows of the table]: True if the SQL condition holds in the corpus that the row is taken from. Raises
        TrainError with the phase `name` if the SQL is wrong."""
        rows = len(self.table)
        if where.strip().lower() == "true":
            return np.ones(rows, dtype=bool)
        parts = np.array([part for part, _ in self.table.shards], dtype=np.int64)[self.table.shard]
        found = np.zeros(rows, dtype=bool)
        for number, part in enumerate(self.parts):
            try:
                hashes = id_hashes(part.path, where)
            except QueryError as error:
                raise TrainError(f"phase {name}: where: {error}") from None
            mine = np.flatnonzero(parts == number)
            found[mine] = np.isin(self.table.id_hash[mine], hashes)
        return found

    def descriptions(self, form: Literal["full", "brief"] = "full") -> dict[str, str]:
        """Return the description of every described segment whose verdict did not drop it, by id. form: "full" is a sentence or
        two, "brief" a few words."""
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
        """Return the content-decoupled samples of all corpora, accepted or not, by the id of the segment with their audio."""
        found: dict[str, Decoupled] = {}
        for part in reversed(self.parts):
            for row in part.annotations("decoupled").to_pylist():
                found[row["segment_id"]] = Decoupled(
                    row["described_id"], row["timbre_id"], row["text"] or "", bool(row["accepted"])
                )
        return found

    def references(self) -> list[tuple[str, str]]:
        """Return (segment, reference) ids of all mined pairs."""
        pairs = [
            (row["segment_id"], row["reference_id"])
            for part in self.parts
            for row in part.table("references").select(["segment_id", "reference_id"]).to_pylist()
        ]
        return list(dict.fromkeys(pairs))

    def license_hours(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the hours of kept segments with audio by SPDX identifier, `NOASSERTION` without one: those that are taken, and
        those that `licenses` leaves out. A segment that several corpora hold counts in each."""
        taken: dict[str, float] = {}
        left: dict[str, float] = {}
        for part in self.parts:
            for name, hours in license_hours(part.path).items():
                spdx = canonical(name) if name and name.strip() else NOT_STATED
                found = taken if allowed(name, self.licenses) else left
                found[spdx] = found.get(spdx, 0.0) + hours
        return dict(sorted(taken.items())), dict(sorted(left.items()))

    def missing_shards(self, codes: Iterable[int]) -> list[tuple[Path, str]]:
        """Return (corpus, shard) of those shards of the table that are missing or empty."""
        return [
            (folder, name)
            for folder, name in self._shards(codes)
            if not (folder / name).is_file() or not (folder / name).stat().st_size
        ]

    def damaged_shards(self, codes: Iterable[int]) -> list[tuple[Path, str, str]]:
        """Return (corpus, shard, reason) of those shards of the table that are truncated or not Arrow files. Only the sizes and
        ends of the files are checked: damage within a clip is found when the clip is read."""
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
                # A separate map: thousands of files must not stay open.
                with pa.memory_map(str(path)) as mapped:
                    pa.ipc.open_file(mapped)
            except _DAMAGED as error:
                return f"cannot be read ({' '.join(str(error).split())})"
            return None

        places = self._shards(codes)
        # On a network file system each check has a long latency.
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            return [(*place, why) for place, why in zip(places, pool.map(reason, places), strict=True) if why]

    def _shards(self, codes: Iterable[int]) -> list[tuple[Path, str]]:
        """Return (corpus, shard) of shards of the table, in order."""
        places = (self.table.shards[code] for code in codes)
        return sorted((self.parts[part].path, name) for part, name in places)

    def segment(self, segment_id: str) -> dict[str, Any]:
        """Read one segment with its words. Raises SegmentError if its shard is missing or damaged."""
        part, shard, row = self.place(segment_id)
        try:
            return part.shard(shard).row(row) | {"shard": shard, "row": row}
        except _DAMAGED as error:
            raise _unreadable(segment_id, part, error) from None

    def clip(self, segment_id: str, place: tuple[Corpus, str, int] | None = None, rate: int = RATE) -> np.ndarray:
        """Read float32 [S] of one segment at `rate` Hz. Raises SegmentError if its shard is missing or its audio is damaged. place:
        what `place` returns for it, if it is known."""
        import soxr

        samples, native = self.native_clip(segment_id, place)
        return samples if native == rate else np.asarray(soxr.resample(samples, native, rate), dtype=np.float32)

    def native_clip(self, segment_id: str, place: tuple[Corpus, str, int] | None = None) -> tuple[np.ndarray, int]:
        """Read (float32 [S], rate in Hz) of one segment at its native rate. Raises SegmentError as `clip` does."""
        import soundfile

        part, shard, row = place or self.place(segment_id)
        try:
            return part.shard(shard).read_audio(row)
        except (*_DAMAGED, soundfile.LibsndfileError) as error:
            raise _unreadable(segment_id, part, error) from None

    def place(self, segment_id: str) -> tuple[Corpus, str, int]:
        """Return (corpus, shard, row) of a segment's audio. If the candidate table is open, it is used: it needs no index in
        memory. Raises TrainError if the segment has no audio."""
        if "table" in self.__dict__:
            with suppress(KeyError):
                number = self.table.find(segment_id)
                part, shard = self.table.shards[int(self.table.shard[number])]
                return self.parts[part], shard, int(self.table.row[number])
        for corpus in self.parts:
            with suppress(KeyError):
                return corpus, *corpus.place(segment_id)
        raise TrainError(f"segment {segment_id} has no audio in {self.title}")


def _unreadable(segment_id: str, part: Corpus, error: Exception) -> SegmentError:
    return SegmentError(
        segment_id,
        f"the shard of segment {segment_id} cannot be read ({finding(error)}); run: {repair_command(part.path)}",
    )
