"""What stops a run, as a one-line message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalogs.corpus.commit import CorpusError
from catalogs.corpus.locks import CorpusBusyError
from catalogs.files import is_full_disk
from pipeline.engine.api import DiskFullError, EngineError
from pipeline.runs.journal import write_log
from pipeline.runs.summary import Summary
from pipeline.runs.work import Work
from pipeline.runtime.failures import BrokenStageError, StopRunError


class PrepareError(RuntimeError):
    """A run that cannot start or continue; the message is one line that states what to do."""


@contextmanager
def stopping_in_one_line(root: Path, summary: Summary | None = None, work: Work | None = None) -> Iterator[None]:
    """Raise PrepareError for errors that stop a run into the corpus `root` and are not the fault of a recording.

    `summary` and `work`: what is committed, and what there is, for the message about a full disk.
    """
    try:
        yield
    except BrokenStageError as error:
        log = write_log(root, "stopped", error.trace or str(error))
        raise PrepareError(f"{error} (the traceback is in {root / log})") from None
    except (CorpusBusyError, CorpusError, StopRunError, EngineError) as error:
        raise PrepareError(str(error)) from None
    except OSError as error:
        if not is_full_disk(error):
            raise
        full = error.strerror if isinstance(error, DiskFullError) else None
        committed = "" if summary is None or work is None else f"; {_committed(summary.units, work)} committed"
        raise PrepareError(
            f"{full or f'no space left on the disk of {root}'}: free some and run the same command again{committed}; "
            "nothing is lost"
        ) from None


def _committed(done: int, work: Work) -> str:
    if not work.complete:
        return f"{done} units are"
    return "all units are" if done == work.units else f"{done} of {work.units} units are"


def no_cluster(address: str | None, error: ConnectionError) -> PrepareError:
    """Return the error for a Ray cluster that cannot be joined."""
    return PrepareError(f"no Ray cluster at {address}: {' '.join(str(error).split())}")
