"""Removal of a new corpus folder if the run that made it fails before it has found anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OF_A_START = frozenset({"corpus.json", "prepare.yaml", "decouple.yaml", ".lock", ".gate"})
"""Files that every run writes at its start. Other files in a corpus are work: hashes, verdicts, logs, units."""


class Fresh:
    """What a corpus' folder lacked before the run. Create it before `create_corpus` is called."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._new = not (root / "corpus.json").is_file()
        self._missing = [folder for folder in (root, *root.parents) if not folder.exists()]
        self._before = frozenset(root.iterdir()) if root.is_dir() else frozenset()

    @contextmanager
    def removed_on_failure(self) -> Iterator[None]:
        """Remove what was made since if anything is raised, unless there was a corpus before or it holds work by now.

        The caller must hold the run lock.
        """
        try:
            yield
        except BaseException:
            if self._new:
                with suppress(OSError):
                    self._remove()
            raise

    def _remove(self) -> None:
        made = [path for top in self._root.iterdir() if top not in self._before for path in (top, *top.rglob("*"))]
        files = [path for path in made if path.is_symlink() or not path.is_dir()]
        if any(path.parent != self._root or path.name not in _OF_A_START for path in files):
            return
        for path in files:
            path.unlink()
        for folder in sorted(set(made) - set(files), reverse=True):
            folder.rmdir()
        for folder in self._missing:
            folder.rmdir()
