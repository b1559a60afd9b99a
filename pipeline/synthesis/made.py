"""The rows of `decoupled` of a corpus: which pairs are done, and a new decision by other bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.commit import committed_units, write_in_corpus
from catalogs.corpus.reader import read_rows
from catalogs.corpus.schema import DECOUPLED
from pipeline.synthesis.bounds import Bounds, reasons_against
from pipeline.synthesis.output import decoupled_bytes, decoupled_path
from pipeline.synthesis.pairs import Pair


@dataclass
class Made:
    """What has been made so far. attempts: by pair; accepted: pairs with an accepted clip; reasons: of the last attempts."""

    attempts: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Count rows of `decoupled`."""
        for row in rows:
            pair = row["pair_id"]
            if row["attempt"] >= self.attempts[pair]:
                self.attempts[pair] = row["attempt"]
                self.reasons[pair] = row["reasons"] or []
            if row["accepted"]:
                self.accepted.add(pair)

    def left(self, pairs: Iterable[Pair], attempts: int) -> dict[int, list[Pair]]:
        """Return the pairs to be made by the number of their next attempt: paired, not accepted, with attempts left."""
        found: dict[int, list[Pair]] = {}
        for pair in pairs:
            following = self.attempts[pair.pair_id] + 1
            if pair.reason is None and pair.pair_id not in self.accepted and following <= attempts:
                found.setdefault(following, []).append(pair)
        return found


def unit_rows(out: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (unit, its rows of `decoupled`) of all committed units. Raises DamagedFileError."""
    for unit in sorted(committed_units(out)):
        path = decoupled_path(out, unit)
        if path.is_file():
            yield unit, read_rows(path, DECOUPLED).to_pylist()


def made_so_far(out: Path) -> Made:
    """Return what the committed units hold."""
    made = Made()
    for _, rows in unit_rows(out):
        made.add(rows)
    return made


def decide_again(out: Path, bounds: Bounds) -> int:
    """Decide on all made clips by other bounds, from their recorded scores; return how many decisions changed.

    Nothing is made or measured. Of a pair that several attempts satisfy now, the first attempt counts. A file is replaced as a
    whole, so a kill leaves each unit with the old decisions or with the new ones.
    """
    changed = 0
    taken: set[str] = set()
    units = list(unit_rows(out))
    first = {row["pair_id"]: row["attempt"] for row in _by_attempt(units, bounds)}
    for unit, rows in units:
        new = [_decided(row, bounds, first, taken) for row in rows]
        difference = sum(
            a["accepted"] != b["accepted"] or a["reasons"] != b["reasons"] for a, b in zip(rows, new, strict=True)
        )
        if difference:
            write_in_corpus(out, decoupled_path(out, unit), decoupled_bytes(new))
            changed += difference
    return changed


def _by_attempt(units: list[tuple[str, list[dict[str, Any]]]], bounds: Bounds) -> list[dict[str, Any]]:
    """Return the rows that satisfy the bounds, the first attempt at a pair last."""
    rows = [row for _, rows in units for row in rows if _is_measured(row) and not reasons_against(row, bounds)]
    return sorted(rows, key=lambda row: -row["attempt"])


def _is_measured(row: dict[str, Any]) -> bool:
    """Return False for an utterance that has no clip, or that a stage failed on."""
    return row["cer"] is not None


def _decided(row: dict[str, Any], bounds: Bounds, first: dict[str, int], taken: set[str]) -> dict[str, Any]:
    if not _is_measured(row):
        return row
    reasons = reasons_against(row, bounds)
    if not reasons and (first[row["pair_id"]] != row["attempt"] or row["pair_id"] in taken):
        reasons = ["another_attempt"]
    if not reasons:
        taken.add(row["pair_id"])
    return row | {"reasons": reasons, "accepted": not reasons}


def as_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return rows of `decoupled` as a table."""
    return pa.Table.from_pylist(list(rows), schema=DECOUPLED)
