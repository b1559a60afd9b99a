"""What a run records in the corpus for later runs, in addition to the units: its arguments, refused files, tracebacks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalogs.corpus.attempts import cause_of_row
from catalogs.corpus.commit import write_in_corpus
from catalogs.corpus.history import History, quarantine_now, refused_files
from catalogs.corpus.ids import other_channel_id
from catalogs.corpus.reader import Corpus
from catalogs.urls import is_location, public
from pipeline.config import PrepareConfig
from pipeline.inputs.find import FoundSources
from pipeline.records import Quarantined, Session
from pipeline.runs.to_rows import quarantine_row
from pipeline.runtime.failures import code_version
from pipeline.runtime.paths import container_path, local_path
from pipeline.stages import stage_class


def absolute_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the sources that the user gave, as absolute paths, so that they are valid in another folder. Credentials are
    removed from URLs."""
    plain = [local_path(argument) for argument in arguments]
    return [public(text) if is_location(text) else str(Path(text).expanduser().absolute()) for text in plain]


def remember_arguments(root: Path, arguments: Sequence[str]) -> None:
    """Add the sources of a run to `sources.json`, which `voxmill retry` reads."""
    known, own = known_arguments(root), absolute_arguments(arguments)
    if own not in known:
        text = json.dumps({"runs": [*known, own]}, indent=1, ensure_ascii=False)
        write_in_corpus(root, root / "sources.json", text.encode())


def known_arguments(root: Path) -> list[list[str]]:
    """Return the sources of each run into a corpus, without repeats; empty if an older voxmill made it."""
    try:
        return [list(run) for run in json.loads((root / "sources.json").read_text(encoding="utf-8"))["runs"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def gone_line(
    root: Path,
    here: Collection[str],
    found: FoundSources,
    known: Sequence[Sequence[str]],
    arguments: Sequence[str],
    history: History,
) -> str | None:
    """Return one line that counts the recordings of the corpus that are not found any more; None if there are none.

    This is done only if everything that any run was given (`known`, before this one) is given again: recordings of other
    runs are not searched now. `here`: the ids of the sources that are found.
    """
    if not known or not set().union(*known) <= set(absolute_arguments(arguments)):
        return None
    gone = set(history.committed) - set(here)
    if gone:
        gone -= {other_channel_id(source) for source in here}
    if gone and found.refused:
        refused = {verdict.path for verdict in found.refused}
        rows = Corpus(root).table("recordings").select(["source_id", "path"]).to_pylist()
        gone -= {row["source_id"] for row in rows if row["path"] in refused}
    if not gone:
        return None
    words = "recording of the corpus is" if len(gone) == 1 else "recordings of the corpus are"
    return f"{len(gone)} {words} not among the sources any more; {'it stays' if len(gone) == 1 else 'they stay'}"


def note_refused(
    root: Path,
    found: FoundSources,
    sources: Collection[str],
    arguments: Sequence[str],
    chosen: Collection[str] | None = None,
) -> None:
    """Record the files that this run refuses. Remove the records of earlier runs for files that it has examined and does
    not refuse any more.

    sources: the paths of its sources, at least those that earlier runs have refused. chosen: the refused paths that this
    run processes once they can be read (default: all). The records of the others stay.
    """
    own = absolute_arguments(arguments)
    write_refused(root, found, arguments)
    refused = {(verdict.path, verdict.error) for verdict in found.refused}
    waiting = places(sources) - set(chosen) if chosen is not None else set()
    for file, row, asked in refused_files(root):
        path = row["path"] or ""
        looked = path in sources or (bool(asked) and asked <= set(own)) or any(_is_within(path, one) for one in own)
        if looked and path not in waiting and (path, row["error"]) not in refused:
            file.unlink(missing_ok=True)


def write_refused(root: Path, found: FoundSources, arguments: Sequence[str]) -> None:
    """Record the files that this run refuses."""
    own = absolute_arguments(arguments)
    for verdict in found.refused:
        quarantine_now(root, quarantine_row(verdict), own)


def places(paths: Iterable[str]) -> set[str]:
    """Return the paths of recordings, of the containers that hold them, and of the folders that hold these."""
    found: set[str] = set()
    waiting = {place for path in paths for place in (path, container_path(path))}
    while waiting:
        found |= waiting
        waiting = {place.rpartition("/")[0] for place in waiting} - found - {""}
    return found


def _is_within(path: str, argument: str) -> bool:
    return path == argument or path.startswith(argument.rstrip("/") + "/")


def retry_rule(config: PrepareConfig) -> Callable[[Mapping[str, Any]], bool]:
    """Return the predicate for quarantine rows that the next run tries again: `machine` up to `engine.attempts` runs, and
    bugs of other code versions."""
    versions = failing_versions(config)

    def again(row: Mapping[str, Any]) -> bool:
        cause = cause_of_row(row)
        if cause == "machine":
            return int(row.get("runs") or 1) < config.engine.attempts
        return cause == "bug" and row.get("version") != versions.get(row["stage"], row.get("version"))

    return again


def failing_versions(config: PrepareConfig) -> dict[str, str]:
    """Return, per stage, the version that its failures are recorded with: that of the stage and that of voxmill."""
    kinds = [stage_class(spec.name) for group in config.groups() for spec in group.stages]
    return {kind.name: f"{kind.name} {kind.version}, voxmill {code_version()}" for kind in kinds}


def complete_verdicts(
    root: Path, session: Session, file_of: Mapping[str, str], history: History, versions: Mapping[str, str]
) -> None:
    """Fill in what a worker cannot know about its failures: the number of runs that ended this way, the code's version, the
    traceback's file.

    `file_of`: for a recording that is a file's second channel, the file's id.
    """
    traces = [row for row in session.quarantine if row.trace]
    log = _write_log(root, session.session_id, traces, versions) if traces else None
    for row in session.quarantine:
        row.runs = history.runs(file_of.get(row.source_id, row.source_id), row.cause) + 1
        row.version = versions.get(row.stage)
        row.log = log if row.trace else None


def _write_log(root: Path, session_id: str, rows: Iterable[Quarantined], versions: Mapping[str, str]) -> str:
    """Write the tracebacks of a session, each once, to a file of CORPUS/logs/. Return its path within the corpus."""
    texts: dict[str, str] = {}
    for row in rows:
        head = f"{row.path}\n{versions.get(row.stage, row.stage)}\n{row.error}\n\n"
        texts.setdefault(re.sub(r"0x[0-9a-f]+", "", row.trace), head + row.trace)
    return write_log(root, session_id, "\n\n".join(texts.values()))


def write_log(root: Path, name: str, text: str) -> str:
    """Write a text to CORPUS/logs/ under a safe name. Return its path within the corpus."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[-60:] or "session"
    digest = hashlib.sha256(f"{name}\0{text}".encode()).hexdigest()[:8]
    relative = f"logs/{safe}-{stamp}-{digest}.txt"
    write_in_corpus(root, root / relative, text.encode("utf-8", "replace"))
    return relative


def start_redo(root: Path, fingerprint: str) -> str:
    """Return when the redo began that this run starts, or resumes after a kill (the clock of commit records)."""
    path = root / "redo.json"
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        if noted["fingerprint"] == fingerprint:
            return str(noted["since"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    text = json.dumps({"fingerprint": fingerprint, "since": since})
    write_in_corpus(root, path, text.encode())
    return since


def end_redo(root: Path) -> None:
    """Remove the record of a redo: it is finished, or a run without `--redo` came after it."""
    (root / "redo.json").unlink(missing_ok=True)
