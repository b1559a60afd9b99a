"""The rows of `decoupled` of a corpus: which pairs are done, and the decisions by the present bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import committed_units, write_in_corpus
from catalogs.corpus.reader import Corpus, read_rows
from catalogs.corpus.schema import DECOUPLED
from pipeline.synthesis.bounds import Bounds, reasons_against
from pipeline.synthesis.output import PASS, decoupled_bytes, decoupled_path
from pipeline.synthesis.pairs import Pair


@dataclass
class Made:
    """What has been made so far. attempts: by pair; accepted: pairs with an accepted clip; reasons: of the last attempts.

    skipped: pairs that this run does not try again, because the machine failed.
    """

    attempts: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
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


def remove_uncommitted(out: Path) -> None:
    """Remove the rows of units that a killed run did not commit. The caller holds the run lock."""
    units = committed_units(out)
    for path in (out / "annotations" / PASS).glob("*/*.parquet"):
        if path.stem not in units:
            path.unlink()


def decide(out: Path, bounds: Bounds, pairs: Iterable[Pair] = ()) -> int:
    """Decide on all made clips by the bounds, from their recorded scores; return how many decisions changed.

    Nothing is made or measured. A clip is accepted if it meets the bounds, the thresholds of `out` keep it, and its pair is still
    valid (`pairs`: with a reason if not). Of several attempts at a pair the first counts. A file is replaced as a whole, so a kill
    leaves each unit with the old decisions or the new ones, and the next run decides again.
    """
    invalid = {pair.pair_id: pair.reason for pair in pairs if pair.reason is not None}
    kept = _kept(out)
    first: dict[str, int] = {}
    for _, rows in unit_rows(out):
        for row in rows:
            if not _reasons(row, bounds, kept, invalid):
                first[row["pair_id"]] = min(row["attempt"], first.get(row["pair_id"], row["attempt"]))
    changed = 0
    for unit, rows in unit_rows(out):
        new = [_decided(row, _reasons(row, bounds, kept, invalid), first) for row in rows]
        difference = sum(
            a["accepted"] != b["accepted"] or (a["reasons"] or []) != b["reasons"]
            for a, b in zip(rows, new, strict=True)
        )
        if difference:
            write_in_corpus(out, decoupled_path(out, unit), decoupled_bytes(new))
            changed += difference
    return changed


def _kept(out: Path) -> set[str]:
    return {
        name
        for part in Corpus(out).kept_parts(("segment_id", "shard"))
        for name, shard in zip(*(part.column(key).to_pylist() for key in ("segment_id", "shard")), strict=True)
        if shard is not None
    }


def _reasons(
    row: Mapping[str, Any], bounds: Bounds, kept: Collection[str], invalid: Mapping[str, str | None]
) -> list[str]:
    """Return the reasons against a clip, whatever the other attempts at its pair."""
    if row["cer"] is None:
        # The utterance has no clip, or a stage failed on it: what was said of it then stands.
        return list(row["reasons"] or ["failed_generation"])
    if reasons := reasons_against(row, bounds):
        return reasons
    if row["segment_id"] not in kept:
        return ["below_thresholds"]
    reason = invalid.get(row["pair_id"])
    return [reason] if reason else []


def _decided(row: dict[str, Any], reasons: list[str], first: Mapping[str, int]) -> dict[str, Any]:
    if not reasons and first[row["pair_id"]] != row["attempt"]:
        reasons = ["another_attempt"]
    return row | {"reasons": reasons, "accepted": not reasons}
