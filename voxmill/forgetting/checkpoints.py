"""Which checkpoints were trained on what is forgotten, from the lineage beside them.

Recordings are recognized by their ids and by the hashes of their content, which a tombstone keeps: it works after erasing, too.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from catalogs.lineage.files import LINEAGE, find_recordings, read_lineage
from catalogs.lineage.record import Lineage, LineageError
from catalogs.weights.checkpoint_files import checkpoint_digest

Verdict = Literal["affected", "not affected", "unknown"]


@dataclass(frozen=True)
class Checked:
    """One checkpoint or adapter. `draws`, `as_reference`, `through_decoupled`: samples with anything of it, as targets, reference
    clips, and by way of synthetic speech, those of ancestors included."""

    path: str
    run: str
    """The folder of the run: that of the checkpoints."""
    verdict: Verdict
    step: int | None = None
    draws: int = 0
    as_reference: int = 0
    through_decoupled: int = 0
    first_step: int | None = None
    """Step of this run that used it first."""
    why: str | None = None
    """Why nothing is known. Of one that is not affected: uses that lineage does not count by recording, e.g. by the tokenizer."""


def check_checkpoints(models: Path, sources: Collection[str], contents: Collection[str]) -> list[Checked]:
    """Return what is known of each checkpoint below a folder, by run and step. Raises FileNotFoundError without it."""
    if not models.is_dir():
        raise FileNotFoundError(f"no folder {models}: give the folder of the training runs, or a checkpoint")
    found = [_checked(folder, frozenset(sources), frozenset(contents)) for folder in _checkpoints(models)]
    return sorted(found, key=lambda one: (one.run, -1 if one.step is None else one.step, one.path))


def newest_unaffected(checked: Iterable[Checked]) -> dict[str, Checked | None]:
    """Return the newest checkpoint of each run that was not trained on it; None for a run without one."""
    newest: dict[str, Checked | None] = {}
    for one in checked:
        best = newest.setdefault(one.run, None)
        if one.verdict == "not affected" and (best is None or (one.step or 0) >= (best.step or 0)):
            newest[one.run] = one
    return newest


def _checkpoints(models: Path) -> Iterator[Path]:
    """Yield the folders that hold weights or a lineage, each once, also behind links. Raises OSError for an unreadable one."""
    seen: set[Path] = set()
    for folder, folders, names in os.walk(models, onerror=_raise, followlinks=True):
        # Folders before links to them, so that `latest` does not stand for its step.
        folders.sort(key=lambda name: (Path(folder, name).is_symlink(), name))
        real = Path(folder).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        has_weights = any(name.endswith((".safetensors", ".bin", ".pth", ".pt", ".ckpt")) for name in names)
        if LINEAGE in names or (has_weights and any(name.endswith("config.json") for name in names)):
            yield Path(folder)


def _raise(error: OSError) -> None:
    raise error


def _checked(folder: Path, sources: frozenset[str], contents: frozenset[str]) -> Checked:
    path, run = str(folder), str(folder.parent)
    try:
        lineage = read_lineage(folder)
        if lineage is None:
            return Checked(path, run, "unknown", why="no lineage")
        return _from_lineage(path, run, lineage, sources, contents)
    except LineageError as error:
        return Checked(path, run, "unknown", why=str(error))


def _from_lineage(path: str, run: str, lineage: Lineage, sources: frozenset[str], contents: frozenset[str]) -> Checked:
    found = [*find_recordings(lineage, source_id=sources), *find_recordings(lineage, content_sha256=contents)]
    # A recording is found by both. Rows of other corpora with the same content are further uses of it.
    rows = list(dict.fromkeys(row for row in found if row.used))
    if not rows:
        gaps = [*lineage.unknown]
        # Only here: weights have gigabytes, and one that is affected stays so.
        if lineage.digest is not None and lineage.digest != checkpoint_digest(Path(path)):
            gaps.append("its files are not those that its lineage describes")
        verdict: Verdict = "unknown" if gaps else "not affected"
        return Checked(path, run, verdict, lineage.step, why="; ".join(gaps or lineage.notes) or None)
    first = [row.first_step for row in rows if row.generation == 0 and row.first_step is not None]
    return Checked(
        path,
        run,
        "affected",
        lineage.step,
        sum(row.draws for row in rows),
        sum(row.as_reference for row in rows),
        sum(row.through_decoupled for row in rows),
        min(first, default=None),
    )
