"""The engine in this process, one session after the other, for tests and small machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from catalogs.corpus.commit import UnitContent
from pipeline.engine.api import Event, GroupDone, ItemStarted, Output, UnitWritten
from pipeline.engine.worker import StageGroup, Worker
from pipeline.records import Session


class InlineEngine:
    """The engine without processes. A stage that kills its process kills the run; time limits are not enforced.

    The stages are loaded and run in one thread, so that events of a session can be yielded while it is processed.
    """

    def __init__(self, groups: list[StageGroup], marks: Path, output: Output | None = None) -> None:
        self._workers = [(group.name, Worker(group.stages, str(marks))) for group in groups]
        self._thread = ThreadPoolExecutor(1, "stages")
        self._items: SimpleQueue[ItemStarted | None] = SimpleQueue()
        self._closed = False
        self._loaded = False
        self._output = output or Output()
        self._contents: dict[str, Any] = {}
        self._written: list[UnitWritten] = []

    def run(self, sessions: Iterable[Session]) -> Iterator[Event]:
        """See `Engine.run`."""
        for _, worker in self._workers:
            if not self._loaded:
                self._thread.submit(worker.load).result()
        self._loaded = True
        yield from self._take_written()
        for session in sessions:
            for name, worker in self._workers:
                call = self._thread.submit(worker.run, session, marked=False, started=self._started)
                call.add_done_callback(lambda _: self._items.put(None))
                yield from iter(self._items.get, None)
                session, outcome = call.result()
                yield GroupDone(name, outcome)
            done, self._contents[session.session_id] = self._output.split(session)
            yield done
            yield from self._take_written()

    def write(self, unit: UnitContent) -> None:
        """Write the unit at once, in this thread."""
        contents = (self._contents.pop(session_id) for session_id in unit.sessions)
        self._written.append(UnitWritten(self._output.write(unit, contents)))

    def _take_written(self) -> list[UnitWritten]:
        written, self._written = self._written, []
        return written

    def close(self) -> None:
        """Wait for the current item if the run was interrupted."""
        self._closed = True
        self._thread.shutdown(cancel_futures=True)

    def _started(self, item: ItemStarted) -> None:
        """Pass on the item that a stage has started. Called in the thread of the stages."""
        if self._closed:
            # Not an Exception, so that no stage counts it as a failure of this item.
            raise SystemExit
        self._items.put(item)
