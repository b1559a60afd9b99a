"""Commit finished sessions as units: a worker writes the files, this process links the record. A unit with failures that a
broken stage may have caused waits until that is ruled out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import UnitContent, link_unit
from catalogs.corpus.history import History
from catalogs.corpus.ids import other_channel_id
from pipeline.engine.api import ContentLost, SessionDone, UnitWritten
from pipeline.engine.strikes import Strikes
from pipeline.records import Session
from pipeline.runs.journal import complete_verdicts
from pipeline.runs.plan import PlannedUnit
from pipeline.runs.summary import Summary, add_session, added, refusal
from pipeline.runs.to_rows import quarantine_rows
from pipeline.runtime.failures import LOST_WORKER, Breaker

_LINKS = 8
"""Records that are linked at once. Each waits two or three times for the disk."""


class Commits:
    """Gathers the sessions of each unit, has it written and commits it; `breaker` counts the failures.

    `versions`: see `journal.failing_versions`. `write`: the engine's, which answers with UnitWritten or ContentLost.
    `drafts`: a folder of this run below the corpus' tmp/.
    """

    def __init__(
        self,
        root: Path,
        versions: Mapping[str, str],
        summary: Summary,
        history: History,
        breaker: Breaker,
        write: Callable[[UnitContent], None],
        drafts: Path,
    ) -> None:
        self._root, self._versions, self._summary = root, versions, summary
        self._history, self._breaker, self._write = history, breaker, write
        self._strikes = Strikes(root / "strikes")
        self._unit_of: dict[str, PlannedUnit] = {}
        """The unit of each session that is not committed yet."""
        self._done: dict[str, list[SessionDone]] = {}
        self._held: list[PlannedUnit] = []
        self._open: set[str] = set()
        """Units that are being written or linked."""
        self._drafts = drafts
        self._threads = ThreadPoolExecutor(_LINKS, "link")
        self._links: deque[Future[dict[str, Any]]] = deque()

    def expect(self, unit: PlannedUnit) -> None:
        """Take a unit whose sessions are about to start."""
        self._unit_of |= {session.session_id: unit for session in unit.sessions}
        self._done[unit.unit_id] = []

    def add(self, done: SessionDone) -> None:
        """Take a finished session. Raises BrokenStageError if too many items have killed their workers."""
        for row in done.session.quarantine:
            if row.kind == LOST_WORKER:
                self._breaker.lost(row.stage, row.kind, row.error)
        unit = self._unit_of[done.session.session_id]
        finished = self._done[unit.unit_id]
        finished.append(done)
        if len(finished) == len(unit.sessions):
            self._held.append(unit)
        self.release()

    def release(self, everything: bool = False) -> bool:
        """Have the complete units written, except those with failures of a series that no success has ended yet. Return
        True if units are not committed yet."""
        held, self._held = self._held, []
        for unit in held:
            sessions = [done.session for done in self._done[unit.unit_id]]
            failures = [
                (row.stage, row.kind) for session in sessions for row in session.quarantine if row.cause != "data"
            ]
            if not everything and failures and self._breaker.doubts(failures):
                self._held.append(unit)
                continue
            self._open.add(unit.unit_id)
            self._write(self._content(unit, sessions))
        self._count_linked(everything)
        return bool(self._open)

    def lost(self, event: ContentLost) -> list[SessionDone]:
        """Forget the sessions of a unit that are processed again; return them."""
        unit = self._unit_of[event.session_ids[0]]
        self._open.remove(unit.unit_id)
        gone, self._done[unit.unit_id] = self._done[unit.unit_id], []
        return gone

    def link(self, event: UnitWritten) -> None:
        """Commit a unit whose files are written, in another thread: it waits for the disk. It is counted when it is done."""
        self._links.append(self._threads.submit(link_unit, self._root, event.record, self._drafts))
        self._count_linked()

    def close(self) -> None:
        """Wait for the units that are being linked."""
        self._threads.shutdown()
        for link in self._links:
            if link.exception() is None:
                self._count(link.result()["unit_id"])
        self._links.clear()

    def _count_linked(self, everything: bool = False) -> None:
        """Count the units that are linked; wait for all with `everything`, and for the oldest if many are not. Raises what
        linking has raised."""
        while self._links and (everything or len(self._links) > 2 * _LINKS or self._links[0].done()):
            unit_id = self._links[0].result()["unit_id"]
            self._links.popleft()
            self._count(unit_id)

    def _count(self, unit_id: str) -> None:
        self._open.remove(unit_id)
        summary = self._summary
        finished = sorted(self._done.pop(unit_id), key=lambda done: done.session.session_id)
        for session in (done.session for done in finished):
            self._unit_of.pop(session.session_id, None)
            self._strikes.clear(session.session_id)
            add_session(summary, session)
            summary.audio_s += sum(recording.duration_s for recording in session.recordings)
            summary.quarantined += [refusal(row) for row in session.quarantine]
        counts = [done.counts for done in finished]
        reasons = sum((Counter(count.reasons) for count in counts), Counter(summary.rejected))
        summary.rejected = dict(reasons.most_common())
        summary.units += 1
        summary.sessions += len(finished)
        summary.segments += sum(count.segments for count in counts)
        summary.kept += sum(count.kept for count in counts)
        summary.kept_s += sum(count.kept_s for count in counts)

    def _content(self, unit: PlannedUnit, sessions: list[Session]) -> UnitContent:
        """Return what this process knows of a unit; the worker adds the content of its sessions."""
        sessions = sorted(sessions, key=lambda session: session.session_id)
        sources = [source.source_id for session in unit.sessions for source in session.sources]
        file_of = {other_channel_id(source): source for source in sources}
        for session in sessions:
            complete_verdicts(self._root, session, file_of, self._history, self._versions)
        return UnitContent(
            unit_id=unit.unit_id,
            fingerprint=self._summary.fingerprint,
            sessions=[session.session_id for session in sessions],
            rows=(),
            recordings=(),
            quarantine=[row for session in sessions for row in quarantine_rows(session)],
            stats={"busy_s": added(session.busy_s for session in sessions)},
            generation=unit.generation,
        )
