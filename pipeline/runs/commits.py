"""Commit finished sessions as units. A unit with failures that a broken stage may have caused waits until that is ruled
out."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import UnitContent, commit_unit
from catalogs.corpus.history import History
from catalogs.corpus.ids import other_channel_id
from pipeline.engine.strikes import Strikes
from pipeline.records import Session
from pipeline.runs.journal import complete_verdicts
from pipeline.runs.plan import PlannedUnit
from pipeline.runs.summary import Summary, added, refusal
from pipeline.runs.to_rows import quarantine_rows, recording_rows, reference_rows
from pipeline.runtime.failures import LOST_WORKER, Breaker

Finished = tuple[Session, list[dict[str, Any]]]
"""A session that came out of the last stage, and its segments' rows."""


class Commits:
    """Gathers the sessions of each unit and commits it; `breaker` counts the failures.

    `versions`: see `journal.failing_versions`.
    """

    def __init__(
        self,
        root: Path,
        versions: Mapping[str, str],
        summary: Summary,
        history: History,
        breaker: Breaker,
    ) -> None:
        self._root, self._versions, self._summary = root, versions, summary
        self._history, self._breaker = history, breaker
        self._unit_of: dict[str, PlannedUnit] = {}
        self._done: dict[str, list[Finished]] = {}
        self._held: list[tuple[PlannedUnit, list[Finished]]] = []

    def expect(self, unit: PlannedUnit) -> None:
        """Take a unit whose sessions are about to start."""
        self._unit_of |= {session.session_id: unit for session in unit.sessions}
        self._done[unit.unit_id] = []

    def add(self, session: Session, rows: list[dict[str, Any]]) -> None:
        """Take a finished session and its segments' rows. Raises BrokenStageError if too many items have killed their
        workers."""
        for row in session.quarantine:
            if row.kind == LOST_WORKER:
                self._breaker.lost(row.stage, row.kind, row.error)
        unit = self._unit_of.pop(session.session_id)
        # Only the rows of the segments are needed from here on: a unit of hours must not hold both.
        session.segments = []
        finished = self._done[unit.unit_id]
        finished.append((session, rows))
        if len(finished) == len(unit.sessions):
            self._held.append((unit, self._done.pop(unit.unit_id)))
        self.release()

    def release(self, everything: bool = False) -> None:
        """Commit the complete units, except those with failures of a series that no success has ended yet."""
        held, self._held = self._held, []
        for number, (unit, finished) in enumerate(held):
            failures = [
                (row.stage, row.kind) for session, _ in finished for row in session.quarantine if row.cause != "data"
            ]
            if not everything and failures and self._breaker.doubts(failures):
                self._held.append((unit, finished))
                continue
            try:
                self._commit(unit, finished)
            except BaseException:
                self._held += held[number:]
                raise

    def _commit(self, unit: PlannedUnit, finished: list[Finished]) -> None:
        finished.sort(key=lambda pair: pair[0].session_id)
        sessions = [session for session, _ in finished]
        rows = [row for _, part in finished for row in part]
        sources = [source.source_id for session in unit.sessions for source in session.sources]
        file_of = {other_channel_id(source): source for source in sources}
        for session in sessions:
            complete_verdicts(self._root, session, file_of, self._history, self._versions)
        summary = self._summary
        content = UnitContent(
            unit_id=unit.unit_id,
            fingerprint=summary.fingerprint,
            sessions=[session.session_id for session in sessions],
            rows=rows,
            recordings=[row for session in sessions for row in recording_rows(session)],
            references=[row for session in sessions for row in reference_rows(session)],
            quarantine=[row for session in sessions for row in quarantine_rows(session)],
            stats={"busy_s": added(session.busy_s for session in sessions)},
            generation=unit.generation,
        )
        commit_unit(self._root, content)
        strikes = Strikes(self._root / "strikes")
        for session in sessions:
            strikes.clear(session.session_id)
            shutil.rmtree(session.spool, ignore_errors=True)
            summary.audio_s += sum(recording.duration_s for recording in session.recordings)
            summary.quarantined += [refusal(row) for row in session.quarantine]
        reasons = Counter(reason for row in rows for reason in row["reasons"])
        summary.rejected = dict((Counter(summary.rejected) + reasons).most_common())
        summary.units += 1
        summary.sessions += len(sessions)
        summary.segments += len(rows)
        summary.kept += sum(row["kept"] for row in rows)
        summary.kept_s += sum(row["duration_s"] for row in rows if row["kept"])
