"""The findings of `fsck`, for its report and for the repair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.unit_checks import Problem
from catalogs.corpus.unnamed import Unnamed


class Records:
    """The commit records of a corpus as they were when this was made. They are read again each time, one by one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = sorted(path.relative_to(root / "units").as_posix() for path in (root / "units").glob("*/*.json"))
        self.broken: dict[Path, Problem] = {}
        """Records that are not readable, known after the first reading."""

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the records in order of unit. Records that are gone meanwhile or cannot be read are left out."""
        for name in self._names:
            record = self._read(f"{self._root}/units/{name}")
            if record is not None:
                yield record

    def get(self, unit: str) -> dict[str, Any] | None:
        """Return the record of a unit; None if there is none."""
        return self._read(f"{self._root}/units/{unit[:2]}/{unit}.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with open(name, "rb") as source:  # noqa: PTH123 - a Path takes longer than the file
                record: dict[str, Any] = json.loads(source.read())
        except FileNotFoundError:
            return None
        except ValueError:
            what, path = "this commit record is damaged", Path(name)
            self.broken[path] = Problem("error", path.relative_to(self._root).as_posix(), what)
            return None
        return record


@dataclass
class Findings:
    """What an examination of a corpus found, and what a repair needs."""

    records: Records
    problems: list[Problem] = field(default_factory=list)
    """Errors and notices that a repair cannot fix."""
    damaged: dict[str, list[Problem]] = field(default_factory=dict)
    """Faulty files by unit; `path` of a problem is the file's."""
    companions: list[Problem] = field(default_factory=list)
    """Annotations and latents that cannot be read: a later pass makes them again."""
    unnamed: Unnamed = field(default_factory=Unnamed)

    def add(self, problems: Iterable[Problem]) -> None:
        """Add problems with annotations or latents: errors are for the repair."""
        for problem in problems:
            (self.companions if problem.severity == "error" else self.problems).append(problem)
