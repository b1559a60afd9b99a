"""The actor that runs a group of stages and writes units, and how it may die."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from catalogs.corpus.commit import UnitContent
from catalogs.files import is_full_disk, one_line
from pipeline.engine.api import DiskFullError, Outcome, Output, SessionDone
from pipeline.engine.heartbeat import mark_path
from pipeline.engine.worker import Worker
from pipeline.records import Session

DEATHS = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ActorUnschedulableError)
"""What Ray raises for a call whose actor died."""


@ray.remote(max_restarts=0, max_task_retries=0)
class StageActor:
    """A `Worker` in a separate process. `output` is None if other groups follow."""

    def __init__(self, stages: tuple[Any, ...], marks: str, output: Output | None) -> None:
        if not ray.get_gpu_ids():
            # Ray shows an actor without a GPU share all GPUs, and `device: auto` would use one.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._worker = Worker(stages, marks)
        self._output = output

    def where(self) -> str:
        """Return the id of the actor's node."""
        return str(ray.get_runtime_context().get_node_id())

    def load(self) -> None:
        self._worker.load()

    @ray.method(num_returns=2)
    def run(self, session: Session, one_by_one: bool) -> tuple[Any, tuple[Outcome, SessionDone | None]]:
        """Return what stays in the object store (the session, or the content of a finished one) and what the driver gets."""
        session, outcome = self._worker.run(session, marked=True, one_by_one=one_by_one)
        # Here and not in the driver, for which it would be a call of the file system per session and group.
        mark_path(self._worker.marks, session.session_id).unlink(missing_ok=True)
        if self._output is None:
            return session, (outcome, None)
        done, content = self._output.split(session)
        return content, (outcome, done)

    def write(self, unit: UnitContent, contents: Sequence[Any]) -> dict[str, Any]:
        """Write a unit's files from references to its sessions' contents, one in memory at a time; return its record."""
        assert self._output is not None
        return self._output.write(unit, (ray.get(content) for content in contents))


def raised(error: RayTaskError) -> Exception:
    """Return the exception that a worker raised; DiskFullError if it had no space left on a disk."""
    cause = error.cause if isinstance(error.cause, Exception) else error
    return DiskFullError(errno.ENOSPC, "no space left on the disk") if is_full_disk(cause) else cause


def why(error: BaseException) -> str:
    """Return the cause of a worker's death in one line, without Ray's stack of explanations."""
    if isinstance(error, OutOfMemoryError):
        return "out of memory"
    text = one_line(error)
    for phrase in ("connection error code", "worker process has died", "SIGSEGV", "SIGKILL", "unexpected system error"):
        if phrase in text:
            return "the process ended without a message (killed, out of memory or a crash in native code)"
    return text[:200]
