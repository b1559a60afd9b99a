"""Small corpora for paid passes: every clip sounds different, unless two units are named alike."""

from __future__ import annotations

from pathlib import Path

from corpus_builders import FINGERPRINT, flac, make_unit, tone

from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.reader import Corpus


def paid_corpus(folder: Path, units: int = 2, clips: int = 6, seconds: float = 0.6, same: bool = False) -> Path:
    """A corpus of `units` x `clips` kept clips. same: whether all units have the same clips."""
    create_corpus(folder)
    bind_fingerprint(folder, FINGERPRINT)
    for number in range(units):
        # The last of three or more clips of a unit is rejected.
        unit = make_unit(f"unit{number}", clips + 1, seconds)
        for place, row in enumerate(unit.rows[:-1]):
            row["audio"] = flac(tone(seconds, 100.0 + place + (0 if same else clips * number)))
            row["speaker"] = f"{row['session_id']}-spk{place * 2 // clips}"
        commit_unit(folder, unit)
    return folder


def rows_of(root: Path, name: str = "local@1") -> dict[str, dict[str, object]]:
    """The rows that a pass left, by segment."""
    import pyarrow.parquet as pq

    files = sorted((root / "annotations" / name).rglob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    found = {row["segment_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def kept(root: Path) -> set[str]:
    """Ids of the kept segments."""
    return set(Corpus(root).kept().column("segment_id").to_pylist())
