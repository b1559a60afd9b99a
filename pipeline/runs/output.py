"""What workers make of finished sessions: the rows of the corpus, which stay where they are made, and the files of a unit."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import UnitContent, UnitPart, write_unit_files
from catalogs.corpus.thresholds import Thresholds
from pipeline.duplicates.forgotten import reject_forgotten
from pipeline.engine.api import Output, SessionCounts, SessionDone
from pipeline.records import Session
from pipeline.runs.to_rows import recording_rows, reference_rows, segment_rows


@dataclass(frozen=True)
class SessionContent:
    """The rows of a finished session, with audio, and its spool, which is removed when the rows are written."""

    part: UnitPart
    spool: str


@dataclass(frozen=True)
class CorpusOutput(Output):
    """Writes units into the corpus `root` (absolute, on a file system that all workers share)."""

    root: Path
    thresholds: Thresholds

    def split(self, session: Session) -> tuple[SessionDone, SessionContent]:
        """See `Output.split`."""
        reject_forgotten(session, self.root)
        rows = segment_rows(session, self.thresholds)
        part = UnitPart(rows, recording_rows(session), reference_rows(session))
        session.windows, session.speech, session.segments, session.references = [], [], [], []
        for recording in session.recordings:
            # The driver has them in the plan, and transcripts are long.
            recording.source = replace(recording.source, text=None, spans=())
        return SessionDone(session, _counts(rows)), SessionContent(part, session.spool)

    def write(self, unit: UnitContent, contents: Iterable[SessionContent]) -> dict[str, Any]:
        """See `Output.write`."""
        spools: list[str] = []

        def parts() -> Iterator[UnitPart]:
            for content in contents:
                spools.append(content.spool)
                yield content.part

        record = write_unit_files(self.root, unit, parts())
        for spool in spools:
            shutil.rmtree(spool, ignore_errors=True)
        return record


def _counts(rows: list[dict[str, Any]]) -> SessionCounts:
    return SessionCounts(
        segments=len(rows),
        speech_s=sum(row["duration_s"] for row in rows),
        kept=sum(row["kept"] for row in rows),
        kept_s=sum(row["duration_s"] for row in rows if row["kept"]),
        reasons=dict(Counter(reason for row in rows for reason in row["reasons"])),
    )
