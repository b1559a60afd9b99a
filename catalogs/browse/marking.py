"""Marks as the page sees them: read as they grow, and written by one person in one session."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalogs.corpus.marks import MarkFile, last_marks, mark_files, new_marks


class Marking:
    """All marks of a corpus, those of other servers too, and the file of this one. Safe for threads."""

    def __init__(self, root: Path, by: str) -> None:
        self._root, self._file = root, MarkFile(root, by)
        self._lock = threading.Lock()
        self._read: dict[Path, int] = {}
        self._of: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._by_id: dict[str, dict[str, Any]] = {}
        self.made = 0
        """Marks of this session that stand."""

    @property
    def by(self) -> str:
        """Who marks."""
        return self._file.by

    def _refresh(self) -> None:
        for path in mark_files(self._root):
            if path.stat().st_size > self._read.get(path, 0):
                rows, self._read[path] = new_marks(path, self._read.get(path, 0))
                for row in rows:
                    self._of[row["segment_id"]].append(row)
                    self._by_id[row["mark_id"]] = row

    def of(self, segment: str) -> dict[str, Mapping[str, Any]]:
        """Return the mark that counts of each person on a segment."""
        with self._lock:
            self._refresh()
            rows = sorted(self._of.get(segment, ()), key=lambda row: (row["at"], row["mark_id"]))
        return last_marks(rows).get(segment, {})

    def verdict(self, segment: str) -> str | None:
        """Return what this person said of a segment."""
        own = self.of(segment).get(self.by)
        return None if own is None else own["verdict"]

    def mark(self, segment: str, unit: str | None, **said: Any) -> dict[str, Any]:
        """Add a mark of this person: see `MarkFile.add`."""
        row = self._file.add(segment, unit, **said)
        with self._lock:
            self.made += 1
        return row

    def undo(self, mark: str) -> str:
        """Take back a mark of this person; return its segment. Raises ValueError if it is not one, or was undone before."""
        with self._lock:
            self._refresh()
            row = self._by_id.get(mark)
            if row is None or row["by"] != self.by or row["undoes"] is not None:
                raise ValueError("this is not a mark of yours")
            if any(other["undoes"] == mark for other in self._of[row["segment_id"]]):
                raise ValueError("this mark was undone before")
            self._file.add(row["segment_id"], row["unit"], undoes=mark)
            self.made -= 1
        return str(row["segment_id"])
