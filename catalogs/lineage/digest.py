"""The digest of a corpus: one number for all committed files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import read_records


def corpus_digest(corpus: str | Path, records: Iterable[Mapping[str, Any]] | None = None) -> str:
    """Return 64 hex digits over the committed files of a corpus. They change if any clip, text or measure in a unit does.

    It is the SHA-256 of the sorted digests of the units that count. A unit's digest covers its id, the SHA-256 of its files, and
    its sources that were processed again elsewhere. No file but the records is read. Annotations, marks and thresholds are not
    part of it. records: what `read_records` returns, if it is known. Raises CorpusError.
    """
    found = read_records(corpus) if records is None else records
    return hashlib.sha256("\n".join(sorted(map(unit_digest, found))).encode()).hexdigest()


def unit_digest(record: Mapping[str, Any]) -> str:
    """Return 64 hex digits over the content of a unit, by its record."""
    files = sorted([file["kind"], file["sha256"]] for file in record["files"])
    content = [record["unit_id"], files, sorted(record.get("superseded") or ())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
