"""The state of a corpus on one page: what it holds, whether a run is at work, what was done last and what comes next."""

from __future__ import annotations

import datetime
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.locks import run_at_work, shares_at_work
from catalogs.corpus.thresholds import Thresholds, changes, load_thresholds
from catalogs.query.views import connect, result_rows

_SUMS = """
SELECT (SELECT count(*) FROM recordings) AS recordings,
    (SELECT coalesce(sum(duration_s), 0) / 3600 FROM recordings) AS hours_found,
    (SELECT coalesce(sum(sessions), 0) FROM units) AS sessions, (SELECT count(*) FROM units) AS units,
    (SELECT max("at") FROM units) AS last_commit, (SELECT count(*) FROM quarantine) AS quarantined,
    (SELECT count(DISTINCT segment_id) FROM marks WHERE counts) AS marked,
    (SELECT count(DISTINCT "by") FROM marks WHERE counts) AS people,
    count(*) AS segments, count(*) FILTER (kept) AS kept, coalesce(sum(duration_s) FILTER (kept), 0) / 3600 AS hours_kept
FROM segments
"""


@dataclass(frozen=True)
class Status:
    """The state of a corpus; hours are of audio. `next_step` is a command, ready to be pasted."""

    corpus: str
    recordings: int
    hours_found: float
    hours_kept: float
    segments: int
    kept: int
    sessions: int
    units: int
    quarantined: int
    marked: int
    """Segments that people have marked."""
    people: int
    """People whose marks count."""
    last_commit: str | None
    """Time of the last commit, ISO 8601."""
    at_work: bool
    shares_at_work: list[str]
    last_run: dict[str, Any] | None
    """`at` (ISO 8601), `wall_s`, `sessions`, `segments`, `kept` and `quarantined` of the last run; null if none has ended."""
    thresholds: list[dict[str, str]]
    """Thresholds that differ from the defaults: `threshold`, `default`, `now`."""
    passes: list[dict[str, Any]]
    """The rows of the macro `coverage()`."""
    next_step: str
    why: str


def status(root: str | Path) -> Status:
    """Return the state of a corpus. Raises CorpusError if `root` is none, QueryError if its rows cannot be read."""
    root = Path(root)
    corpus_info(root)
    with connect(root) as connection:
        [sums] = result_rows(connection, _SUMS)
        passes = result_rows(connection, "FROM coverage()")
        made = bool(result_rows(connection, "SELECT 1 FROM segments WHERE synthetic LIMIT 1"))
    at_work = run_at_work(root)
    last_commit = sums.pop("last_commit")
    sums = {name: float(value) if name.startswith("hours") else int(value) for name, value in sums.items()}
    differ = changes(Thresholds(), load_thresholds(root))
    why, command = _next(root, sums, passes, at_work, made)
    return Status(
        corpus=str(root),
        **sums,
        last_commit=None if last_commit is None else last_commit.isoformat(),
        at_work=at_work,
        shares_at_work=sorted(shares_at_work(root)),
        last_run=_last_run(root),
        thresholds=[{"threshold": name, "default": old, "now": new} for name, old, new in differ],
        passes=passes,
        next_step=command,
        why=why,
    )


def _next(
    root: Path, sums: dict[str, Any], passes: list[dict[str, Any]], at_work: bool, made: bool = False
) -> tuple[str, str]:
    """Return why, and the command, of the next step. made: whether the corpus holds synthetic speech."""
    folder = shlex.quote(str(root))
    if at_work:
        return "a run is at work", f"voxmill status {folder}"
    if not sums["recordings"]:
        return "nothing is committed yet", f"voxmill prepare RECORDINGS --out {folder}"
    if not sums["kept"]:
        return "nothing is kept: see why", f'voxmill query {folder} "from funnel"'
    if made:
        return (
            "a model spoke it: see what is accepted",
            f"voxmill query {folder} 'select accepted, count(*) from decoupled group by 1'",
        )
    if not any(one["described"] for one in passes):
        return "no voice is described yet", f"voxmill describe {folder}"
    if any(one["verified"] < one["described"] for one in passes):
        return "descriptions are not verified yet", f"voxmill verify {folder}"
    return "look at it before training", f"voxmill report {folder}"


def _last_run(root: Path) -> dict[str, Any] | None:
    """Return what the newest of the files run*.json says; damaged ones say nothing."""
    found = []
    for path in root.glob("run*.json"):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if not isinstance(run, dict):
            continue
        # Runs of earlier versions do not say when they ended.
        at = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")
        found.append((run.get("ended_at") or at, run))
    if not found:
        return None
    at, run = max(found, key=lambda pair: pair[0])
    counts = {name: run.get(name) for name in ("wall_s", "sessions", "segments", "kept")}
    return {"at": at, **counts, "quarantined": len(run.get("quarantined") or ())}
