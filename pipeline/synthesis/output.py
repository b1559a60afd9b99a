"""What workers make of finished sessions of pairs: rows of the corpus that are marked as synthetic, and the rows of `decoupled`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.commit import UnitContent, UnitPart, write_in_corpus
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.schema import DECOUPLED
from pipeline.engine.api import SessionDone
from pipeline.records import Session
from pipeline.runs.output import CorpusOutput, SessionContent
from pipeline.synthesis.pairs import DecoupleSession

PASS = "decoupled"
"""Folder of the rows below annotations/."""


@dataclass(frozen=True)
class DecoupledContent(SessionContent):
    """The rows of a finished session, and its rows of `decoupled`."""

    found: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class DecoupledOutput(CorpusOutput):
    """Writes units of made clips into the corpus `root`. The rows of `decoupled` are written before the unit's files, so that
    no made clip is ever without the row that marks it."""

    def split(self, session: Session) -> tuple[SessionDone, SessionContent]:
        """See `Output.split`. The driver gets the rows of `decoupled`, too: they are small."""
        assert isinstance(session, DecoupleSession)
        licenses = {source_id: pair.license for source_id, pair in session.pairs.items()}
        # What failed because of the machine or the code is not committed: the next run tries this attempt again.
        retried = {row.source_id for row in session.quarantine if row.cause != "data"}
        done, content = super().split(session)
        part = UnitPart(
            [
                {**row, "synthetic": True, "license": licenses[row["source_id"]]}
                for row in content.part.rows
                if row["source_id"] not in retried
            ],
            [
                {**row, **_rights(session, row["source_id"]), "license": licenses[row["source_id"]]}
                for row in content.part.recordings
                if row["source_id"] not in retried
            ],
        )
        by_source = {row["source_id"]: row for row in part.rows}
        session.found = {
            source_id: _stored(row, by_source.get(source_id))
            for source_id, row in sorted(session.found.items())
            if source_id not in retried
        }
        return done, DecoupledContent(part, content.spool, list(session.found.values()))

    def write(self, unit: UnitContent, contents: Iterable[SessionContent]) -> dict[str, Any]:
        """See `Output.write`."""

        def parts() -> Iterator[SessionContent]:
            for content in contents:
                assert isinstance(content, DecoupledContent)
                write_in_corpus(self.root, decoupled_path(self.root, unit.unit_id), decoupled_bytes(content.found))
                yield content

        return super().write(unit, parts())


def _stored(row: dict[str, Any], segment: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a row of `decoupled` that is only accepted if its clip is stored and kept."""
    if not row["accepted"]:
        return row
    if segment is None or segment["audio"] is None:
        return row | {"accepted": False, "reasons": ["failed_generation"], "cer": None}
    return row if segment["kept"] else row | {"accepted": False, "reasons": ["below_thresholds"]}


def _rights(session: DecoupleSession, source_id: str) -> dict[str, Any]:
    """Return what is stated of the rights to the recording of an utterance's source: its voice is that person's."""
    found: dict[str, Any] = json.loads(session.pairs[source_id].rights or "{}")
    return found


def decoupled_path(root: Path, unit: str) -> Path:
    """Return the path of a unit's rows of `decoupled`."""
    return root / "annotations" / PASS / unit[:2] / f"{unit}.parquet"


def decoupled_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows of `decoupled` as a Parquet file."""
    return parquet_bytes(pa.Table.from_pylist(list(rows), schema=DECOUPLED))
