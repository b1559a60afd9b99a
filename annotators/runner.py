"""The pass that describes the segments of a corpus. It is resumable unit by unit and never changes the segments' files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from annotators.providers import provider as provider_named
from annotators.providers.base import Provider
from annotators.rows import described_rows, description_columns, description_path, stored_flac
from annotators.schema import Answer, Caption, Clip
from catalogs.corpus.commit import write_in_corpus
from catalogs.corpus.damage import check_writable
from catalogs.corpus.reader import Corpus, without
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.words import counted


@dataclass
class DescribeStats:
    """Counts of a pass: segments described now, failed (a later pass tries them again) and already described."""

    annotator: str
    described: int = 0
    failed: int = 0
    already: int = 0
    cost_usd: float = 0.0

    @property
    def line(self) -> str:
        """The counts as one line for the log."""
        described = counted(self.described, "segment")
        return f"described {described} with {self.annotator} ({self.failed} failed, {self.already} were done)"


def describe_corpus(root: str | Path, annotator: str | Provider = "acoustic", batch: int = 16) -> DescribeStats:
    """Describe the kept segments of a corpus that have no description by this annotator yet. Memory holds one unit.

    Writes annotations/<annotator>/<aa>/<unit>.parquet for each unit, atomically. After a kill, the next run continues with the
    next unit. If a changed threshold keeps more segments, the next pass describes them.
    Raises ValueError for an unknown annotator, CorpusError for a folder that is not a corpus.
    """
    describer = provider_named(annotator) if isinstance(annotator, str) else annotator
    check_writable(root, "annotations")
    corpus = Corpus(root)
    stats = DescribeStats(describer.name)
    prepared = False
    for unit, rows in _units(corpus.kept_parts()):
        path = description_path(corpus.path, describer.name, unit)
        done = described_rows(path)
        todo = without(rows, "segment_id", done)
        stats.already += rows.num_rows - todo.num_rows
        if not todo.num_rows:
            continue
        if not prepared:
            describer.prepare(corpus.kept_parts)
            prepared = True
        describer.begin_unit(rows)
        for row in done.values():
            describer.remember(row["segment_id"], [Caption(**caption) for caption in row.get("captions") or ()])
        tables = [pa.Table.from_pylist(list(done.values()), schema=DESCRIPTIONS)]
        for start in range(0, todo.num_rows, batch):
            clips = [
                Clip(row, stored_flac(corpus, row) if describer.listens else None)
                for row in todo.slice(start, batch).to_pylist()
            ]
            answers = describer.describe(clips)
            stats.described += sum(answer.description is not None for answer in answers)
            stats.failed += sum(answer.description is None for answer in answers)
            fresh = [_row(answer, describer) for answer in answers]
            tables.append(pa.Table.from_pylist(fresh, schema=DESCRIPTIONS))
        write_in_corpus(corpus.path, path, parquet_bytes(pa.concat_tables(tables)))
    return stats


def _units(parts: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    """Yield (unit, its rows) from tables of whole units."""
    for part in parts:
        start = 0
        for shard, rows in groupby(part.column("shard").to_pylist()):
            count = sum(1 for _ in rows)
            yield Path(shard).name.split(".")[0], part.slice(start, count)
            start += count


def _row(answer: Answer, describer: Provider) -> dict[str, Any]:
    description = answer.description
    return {
        "segment_id": answer.segment_id,
        "annotator": describer.name,
        "model": describer.model,
        "prompt_version": describer.prompt_version,
        # A description made from measured scores cannot disagree with them. Descriptions made from audio are not compared yet.
        "verdict": "agree" if description and not describer.listens else None,
        "disagreements": [],
        # An annotator of this pass is asked for nothing that is billed: `annotators.providers.remote` has those that are.
        "tokens_in": 0,
        "tokens_out": 0,
        "cost_usd": 0.0,
        "status": "ok" if description else f"failed: {answer.error}",
        **(description_columns(description) if description else {}),
    }
