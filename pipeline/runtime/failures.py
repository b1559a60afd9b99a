"""The cause that an exception stands for, and the count of consecutive failures of one kind."""

from __future__ import annotations

import functools
import hashlib
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalogs.corpus.attempts import Cause
from catalogs.files import one_line
from pipeline.runtime.batches import is_out_of_memory

MOST_ALIKE = 20
"""Number of consecutive failures of one kind, in one stage and without a success between, that stops the run."""
LOST_WORKER = "lost worker"
"""The kind of failure of an item whose worker died or hung."""
_LONGEST_TRACE = 20_000

#: The extra of voxmill that installs a library.
_EXTRAS = {
    "s3fs": "s3",
    "botocore": "s3",
    "aiobotocore": "s3",
    "gcsfs": "gs",
    "demucs": "separate",
    "speechbrain": "studio",
    "torchaudio": "studio",
    "datasets": "hf",
}


class StopRunError(RuntimeError):
    """An error that is not the fault of a single recording: the whole run stops with this one line."""


class BrokenStageError(StopRunError):
    """A stage fails on everything. `trace` is the traceback of the last failure."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message, trace)
        self.trace = trace

    def __str__(self) -> str:
        return str(self.args[0])


def cause_of(error: BaseException) -> Cause:
    """Return what is at fault for an item's exception: the recording (`data`), the machine or its stores (`machine`), or
    the code (`bug`)."""
    known: Cause | None = getattr(error, "cause", None)
    if known in ("data", "machine", "bug"):
        return known
    if is_out_of_memory(error) or isinstance(error, OSError | EOFError):
        return "machine"
    return "bug"


def missing_library(error: ImportError) -> StopRunError:
    """Return an error with one line that names the library and how to install it."""
    words = one_line(error)
    named = error.name or next(iter(re.findall(r"(?i)install (?:the )?['\"`]?([a-z0-9_.-]+)", words)), "")
    library = named.split(".")[0]
    if not library:
        return StopRunError(
            f"a Python library cannot be loaded ({words}); pip install 'voxmill[all]' brings everything"
        )
    extra = _EXTRAS.get(library, "pipeline")
    return StopRunError(f"the Python package {library} cannot be loaded ({words}); pip install 'voxmill[{extra}]'")


def trace_of(error: BaseException) -> str:
    """Return the traceback as text, without the secrets in URLs: user names, passwords, signed queries."""
    text = "".join(traceback.format_exception(error))[-_LONGEST_TRACE:]
    text = re.sub(r"(\w://)[^/\s@'\"]+@", r"\1***@", text)
    return re.sub(r"(\w://[^\s?'\"]+)\?[^\s'\")]+", r"\1?***", text)


@functools.cache
def code_version() -> str:
    """Return voxmill's version and a digest of the pipeline's source, which changes after a fix in a checkout."""
    from importlib.metadata import PackageNotFoundError, version

    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    try:
        return f"{version('voxmill')}+{digest.hexdigest()[:8]}"
    except PackageNotFoundError:
        return digest.hexdigest()[:8]


@dataclass
class Tally:
    """Outcomes of the items of one stage, in order: runs of (kind of failure, count), with kind "" for successes.

    A broken file (`data`) is not evidence against the stage: it counts as a success.
    """

    runs: list[tuple[str, int]] = field(default_factory=list)
    error: str = ""
    """The last failure in one line, and `trace` its traceback."""
    trace: str = ""

    def add(self, kind: str, count: int = 1) -> None:
        """Add the next items. Runs between the first and the last are merged: they are short and over, and carry no
        information."""
        if self.runs and self.runs[-1][0] == kind:
            self.runs[-1] = (kind, self.runs[-1][1] + count)
        else:
            self.runs.append((kind, count))
        if len(self.runs) > 3:
            self.runs[1:-1] = [("", 1)]

    def fail(self, error: BaseException, line: str) -> None:
        """Add a failure."""
        cause = cause_of(error)
        self.add("" if cause == "data" else type(error).__name__)
        if cause != "data":
            self.error, self.trace = line, trace_of(error)

    def follow(self, other: Tally) -> None:
        """Add the items of another tally, which came later."""
        for kind, count in other.runs:
            self.add(kind, count)
        if other.error:
            self.error, self.trace = other.error, other.trace

    @property
    def alike(self) -> tuple[str, int]:
        """The kind of the latest consecutive failures and their number; ("", 0) after a success."""
        return self.runs[-1] if self.runs and self.runs[-1][0] else ("", 0)

    def check(self, stage: str) -> None:
        """Raise BrokenStageError if there were too many consecutive failures of one kind."""
        kind, count = self.alike
        if count >= MOST_ALIKE:
            raise BrokenStageError(
                f"{stage} failed on {count} items in a row with {self.error or kind}; none of these is committed. "
                "Fix it and run the same command again",
                self.trace,
            )


class Breaker:
    """Counts failures over all workers of a run, by stage; sessions as a whole and their items are counted separately."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def add(self, tallies: dict[str, Tally]) -> None:
        """Add a worker's tallies of its stages. Raises BrokenStageError if a stage fails on everything."""
        for name, tally in tallies.items():
            mine = self._tallies.setdefault(name, Tally())
            for kind, count in tally.runs:
                mine.follow(Tally([(kind, count)], tally.error, tally.trace))
                mine.check(name.partition("/")[0])

    def lost(self, stage: str, kind: str, error: str) -> None:
        """Add an item that killed its worker, which no worker can report."""
        self.add({stage: Tally([(kind, 1)], error)})

    def doubts(self, failures: Sequence[tuple[str, str]]) -> bool:
        """Return True if one of these (stage, kind) failures belongs to a series of failures that no success has ended yet."""
        open_rows = {
            (name.partition("/")[0], tally.alike[0]) for name, tally in self._tallies.items() if tally.alike[1]
        }
        return any(failure in open_rows for failure in failures)
