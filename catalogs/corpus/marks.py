"""Marks: what people said of segments, as the annotation pass `human`. Nothing that is there is ever changed.

`annotations/human/<person>-<start>-<random>.jsonl` holds the marks of one person in one session of marking, one a line, appended
and forced to the disk before the mark is acknowledged. Every session has its own file, so two servers never write to the
same one. A kill may leave half a line at the end of a file: a mark that was not acknowledged. Readers skip it.

Of one person's marks of a segment, the last one counts that was not undone. Of several people, the latest verdict counts, the
latest text and the latest words, each by itself: who keeps a clip does not take back a text that someone else corrected.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.ids import short_hash
from catalogs.corpus.schema import MARKS
from catalogs.corpus.tombstones import hidden
from catalogs.files import fsync_path, make_folder

HUMAN = "human"
"""The reason against a segment that a person dropped, the source of a text that one corrected, and the name of the pass."""
KEEP, DROP = "keep", "drop"
_TICK = timedelta(milliseconds=1)


def marks_folder(root: str | Path) -> Path:
    """Return the folder of the pass."""
    return Path(root) / "annotations" / HUMAN


def mark_files(root: str | Path) -> list[Path]:
    """Return the files of the pass, sorted."""
    return sorted(marks_folder(root).glob("*.jsonl"))


def marks_state(root: str | Path) -> list[str]:
    """Return names and sizes of the files: if they are equal, so are the marks, since lines are only added."""
    return [f"{path.name} {path.stat().st_size}" for path in mark_files(root)]


def read_marks(root: str | Path) -> list[dict[str, Any]]:
    """Return all marks, undone ones too, by time. Lines that are not marks are left out: `mark_faults` names them. So are marks of
    segments that are to be forgotten."""
    rows = [row for path in mark_files(root) for _, row in _lines(path) if row is not None]
    gone = hidden(root).segments if rows else ()
    return sorted((row for row in rows if row["segment_id"] not in gone), key=_when)


def new_marks(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Return (marks, position after them) of the complete lines of a file from a position on."""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    end = data.rfind(b"\n") + 1
    found = (_mark(line) for line in data[:end].split(b"\n") if line)
    return [row for row in found if row is not None], start + end


def mark_faults(path: Path) -> tuple[list[int], bool]:
    """Return (numbers of the lines that are not marks, whether the last line is incomplete) of a file."""
    bad = [number for number, row in _lines(path) if row is None]
    data = path.read_bytes()
    return bad, bool(data) and not data.endswith(b"\n")


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield (number from 1, mark) of each complete line; None for a line that is not a mark."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, _mark(line)


def _mark(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
        row = {name: found.get(name) for name in MARKS.names}
        row["at"] = datetime.fromisoformat(row["at"]).astimezone(UTC)
        pa.Table.from_pylist([row], schema=MARKS)
    except (ValueError, TypeError, AttributeError, KeyError, pa.ArrowException):
        return None
    said = all(isinstance(row[name], str) for name in ("mark_id", "segment_id", "by"))
    return row if said and row["verdict"] in (KEEP, DROP, None) else None


def _when(row: Mapping[str, Any]) -> tuple[datetime, str, str]:
    return row["at"], row["by"], row["mark_id"]


def last_marks(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the mark that counts of each segment and person. rows: by time."""
    rows = list(rows)
    undone = {row["undoes"] for row in rows if row["undoes"] is not None}
    found: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["undoes"] is None and row["mark_id"] not in undone:
            found[row["segment_id"]][row["by"]] = row
    return found


@dataclass(frozen=True)
class Said:
    """What people say of one segment together."""

    verdict: str | None = None
    text: str | None = None
    words: list[dict[str, Any]] | None = None


def together(marks: Iterable[Mapping[str, Any]]) -> Said:
    """Return what the last marks of all people say of a segment: of each field, the latest value that is not null."""
    found = Said()
    for row in sorted(marks, key=_when):
        own = {name: row[name] for name in ("verdict", "text", "words") if row[name] is not None}
        found = Said(**(vars(found) | own))
    return found


@dataclass(frozen=True)
class Marks:
    """What people say of the segments of a corpus at one moment, by segment id."""

    said: Mapping[str, Said] = field(default_factory=dict)

    @classmethod
    def of(cls, root: str | Path) -> Marks:
        """Read those of a corpus."""
        return cls({segment: together(own.values()) for segment, own in last_marks(read_marks(root)).items()})

    def ids(self, verdict: str) -> list[str]:
        """Return the segments with this verdict."""
        return [segment for segment, said in self.said.items() if said.verdict == verdict]

    def over(self, table: pa.Table) -> pa.Table:
        """Return rows of INDEX columns, among them `segment_id`, with what people say of them: text, `kept` and `reasons`."""
        import pyarrow.compute as pc

        if not self.said or not table.num_rows:
            return table
        is_marked = pc.is_in(table.column("segment_id"), pa.array(list(self.said), pa.string()))
        places = pc.indices_nonzero(is_marked).to_pylist()
        if not places:
            return table
        marked = [self.over_row(row) for row in table.take(pa.array(places)).to_pylist()]
        order = list(range(table.num_rows))
        for number, place in enumerate(places):
            order[place] = table.num_rows + number
        both = pa.concat_tables([table, pa.Table.from_pylist(marked, schema=table.schema)])
        return both.take(pa.array(order, pa.int64()))

    def over_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return one row of a segment with what people say of it; columns that the row lacks are not added."""
        found = dict(row)
        said = self.said.get(found["segment_id"], Said())
        if said.text is not None:
            found |= {"text": said.text, "text_source": HUMAN}
        if said.words is not None:
            found["words"] = said.words
        # There is nothing to keep of a segment that has no audio.
        if said.verdict == KEEP and found.get("shard") is not None:
            found |= {"kept": True, "reasons": []}
        elif said.verdict == DROP:
            found |= {"kept": False, "reasons": [HUMAN, *(found.get("reasons") or ())]}
        return {name: found[name] for name in row}


class MarkFile:
    """Writes the marks of one person in one session of marking. Safe for threads. The file is made with the first mark."""

    def __init__(self, root: str | Path, by: str) -> None:
        if not by.strip() or len(by) > 100 or not by.isprintable():
            raise ValueError("the name of who marks (--by) has 1 to 100 printable characters")
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", by)[:40].strip("-")
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{slug}-{short_hash(by)[:6]}-{start}-{secrets.token_hex(4)}.jsonl"
        self.by, self.path = by, marks_folder(root) / name
        self._lock, self._last = threading.Lock(), datetime.min.replace(tzinfo=UTC)

    def add(
        self,
        segment_id: str,
        unit: str | None = None,
        *,
        verdict: str | None = None,
        text: str | None = None,
        words: Sequence[Mapping[str, Any]] | None = None,
        note: str | None = None,
        undoes: str | None = None,
    ) -> dict[str, Any]:
        """Add a mark; it is on the disk when this returns it. Raises ValueError for a wrong one, OSError for a full disk."""
        with self._lock:
            # Two marks in one millisecond keep their order, and so do marks if the clock is set back.
            at = max(datetime.now(UTC), self._last + _TICK)
            at = at.replace(microsecond=at.microsecond // 1000 * 1000)
            row = {
                "mark_id": secrets.token_hex(8),
                "segment_id": segment_id,
                "unit": unit,
                "by": self.by,
                "at": at.isoformat(timespec="milliseconds"),
                "verdict": verdict,
                "text": text,
                "words": None if words is None else [dict(word) for word in words],
                "note": note,
                "undoes": undoes,
            }
            # A number that is not finite, or half of a surrogate pair, is a ValueError, too.
            line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            found = _mark(line)
            if found is None:
                raise ValueError("a mark has a verdict (keep, drop or null), and text, words and note of their types")
            self._append(line)
            self._last = at
            return found

    def _append(self, line: bytes) -> None:
        if not self.path.parent.is_dir():
            make_folder(self.path.parent)
        is_new = not self.path.exists()
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes of a mark were written to {self.path}")
                os.fsync(file.fileno())
            except OSError:
                # A mark that is refused leaves nothing behind; the next one would continue its half line.
                file.truncate(end)
                raise
        if is_new:
            fsync_path(self.path.parent)
