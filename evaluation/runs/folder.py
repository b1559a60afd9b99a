"""The folder of a run.

run.json                       what the system is, seeds, versions, host
items.jsonl                    the items, with absolute paths
audio/<aa>/<item>-<seed>.flac  what was said
rows/generate/                 a row per take
rows/<metric>@<fingerprint>/   a row per take and metric
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.files import make_folder, write_atomically
from evaluation.errors import EvaluationError
from evaluation.items import Item, distinct, read_items, write_items
from evaluation.runs.rows import GENERATE, Key, Table, metric_schema

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A run folder that exists."""

    root: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        """run.json."""
        settings: dict[str, Any] = json.loads((self.root / "run.json").read_text(encoding="utf-8"))
        return settings

    @cached_property
    def items(self) -> list[Item]:
        """Every item, once."""
        return list(distinct(read_items(self.root / "items.jsonl")))

    @cached_property
    def by_id(self) -> dict[str, Item]:
        """Items by id."""
        return {item.id: item for item in self.items}

    @cached_property
    def wanted(self) -> list[Key]:
        """Item and seed of every take that the run is to have. A system without seeds is asked once."""
        seeds = self.settings["seeds"] if self.settings.get("seeded", True) else self.settings["seeds"][:1]
        return [(item.id, seed) for seed in seeds for item in self.items]

    @property
    def name(self) -> str:
        """Name of the run in tables."""
        return str(self.settings.get("name") or self.root.name)

    @property
    def generated(self) -> Table:
        """rows/generate."""
        return Table(self.root / "rows" / "generate", GENERATE)

    def scores(self, metric: str, mark: str, schema: pa.Schema) -> Table:
        """Return the table of a metric with a fingerprint."""
        return Table(self.root / "rows" / f"{metric}@{mark}", metric_schema(schema))

    def audio_name(self, item_id: str, seed: int) -> str:
        """Return the path of a take's audio, relative to the folder."""
        return f"audio/{item_id[:2]}/{item_id}-{seed}.flac"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second writer. Raises EvaluationError if another process has it."""
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise EvaluationError(f"{self.root}: another process is writing to this run; wait for it") from None
            yield


def open_run(root: Path) -> Run:
    """Return an existing run. Raises EvaluationError if the folder is not one."""
    marker = root / "run.json"
    if not marker.is_file():
        raise EvaluationError(f"{root} is not an evaluation run (no run.json); make one with: voxmill evaluate run")
    run = Run(root)
    try:
        found = run.settings.get("format")
    except (json.JSONDecodeError, AttributeError):
        raise EvaluationError(f"{marker} is not valid JSON; the run cannot be read") from None
    if found != FORMAT:
        raise EvaluationError(f"{root} has format {found}; this version reads {FORMAT}")
    return run


def create_run(root: Path, settings: dict[str, Any], items: Sequence[Item], seeds: Sequence[int]) -> Run:
    """Make a run folder, or open it again with the same system; items and seeds may have been added since.

    Raises EvaluationError if the folder is a run of another system or with other settings, or holds other files.
    """
    if root.exists() and not (root / "run.json").is_file() and any(_foreign(path) for path in root.iterdir()):
        raise EvaluationError(f"{root} exists and is not an evaluation run; give another folder")
    make_folder(root)
    if (root / "run.json").is_file():
        run = open_run(root)
        before = run.settings["system"]
        # Older versions did not say which files a folder has.
        added = (
            {"files": settings["system"].get("files")}
            if before.get("kind") == "folder" and "files" not in before
            else {}
        )
        if {**before, **added} != settings["system"]:
            changed = _changed(before, settings["system"])
            raise EvaluationError(f"{root} was made by another system or settings ({changed}); give another folder")
        # An item that is given again may have another name, recording or groups.
        items = list({**run.by_id, **{item.id: item for item in items}}.values())
        seeds = [*run.settings["seeds"], *seeds]
        if "metrics" in run.settings:
            settings = {"metrics": run.settings["metrics"], **settings}
    write_items(root / "items.jsonl", distinct(items))
    whole = {"format": FORMAT, **settings, "seeds": sorted(set(seeds))}
    write_atomically(root / "run.json", json.dumps(whole, indent=1, ensure_ascii=False).encode())
    return Run(root)


def _foreign(path: Path) -> bool:
    """Return True for a file that is not of a run that was killed before its run.json was written."""
    return path.name != "items.jsonl" and not path.name.startswith(".")


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    names = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {before.get(key)!r}, now {now.get(key)!r}" for key in names[:3])


def set_metric_options(run: Run, options: Mapping[str, Mapping[str, Any]]) -> Run:
    """Store options of metrics in run.json, beside those of other metrics, and return the run."""
    known = run.settings.get("metrics", {})
    chosen = {**known, **{name: dict(given) for name, given in options.items()}}
    if chosen == known:
        return run
    whole = {**run.settings, "metrics": chosen}
    write_atomically(run.root / "run.json", json.dumps(whole, indent=1, ensure_ascii=False).encode())
    return Run(run.root)


def host() -> dict[str, Any]:
    """Return what is known of this machine for run.json."""
    import platform

    import torch

    found: dict[str, Any] = {"cpus": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
