"""Everything in this process, one session after the other: for tests and tiny machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.engine.worker import Moved, Outcome, StageGroup, Worker
from pipeline.records import Session


class InlineEngine:
    """The engine without processes. A stage that kills its process kills the run; time limits are not enforced."""

    def __init__(self, groups: list[StageGroup], marks: Path) -> None:
        self._workers = [(group.name, Worker(group.stages, str(marks))) for group in groups]

    def run(
        self,
        sessions: Iterable[Session],
        finish: Callable[[Session], None],
        watch: Callable[[str, Outcome], None],
        moved: Moved | None = None,
    ) -> None:
        """See `Engine.run`."""
        for _, worker in self._workers:
            worker.load()
        for session in sessions:
            for name, worker in self._workers:
                session, outcome = worker.run(session, marked=False, moved=moved)
                watch(name, outcome)
            session.windows = []
            finish(session)

    def close(self) -> None:
        """Nothing to let go of."""
