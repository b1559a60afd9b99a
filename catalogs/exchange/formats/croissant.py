"""Metadata alone: rows in Parquet, and the Croissant description of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from catalogs.exchange.cards.croissant import FILE, Files
from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import Format, Job, Part
from catalogs.files import open_atomically


class Croissant(Format):
    """Metadata alone: a table of the clips in Parquet without audio, and the description of it."""

    name = "croissant"
    reader = "mlcroissant, Google Dataset Search, Kaggle, OpenML"
    audio = ("none",)
    needs_text = False
    needs_words = False
    columns = ("*",)
    part_rows = 50_000

    def write_part(self, job: Job, part: Part, clips: Iterator[Clip]) -> dict[str, list[str]]:
        """Write one Parquet file of rows."""
        import pyarrow.parquet as pq

        schema = _table_schema(job)
        rows = (
            {name: clip.row.get(name) for name in schema.names} | {"text": job.text(clip) or None} for clip in clips
        )
        final = job.out / "segments" / f"{part.split}-{part.number:05d}-of-{part.of:05d}.parquet"
        with open_atomically(final) as file:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file, compression="zstd")
        return {}

    def data_files(self, split: str) -> str | None:
        """Return the pattern of a split's files."""
        return f"segments/{split}-*.parquet"

    def finish(self, job: Job, parts: Any) -> dict[str, str]:
        """Return the description."""
        return {FILE: job.croissant(Files("segments/*.parquet", _table_schema(job)))}


def _table_schema(job: Job) -> pa.Schema:
    names = ["segment_id", "text", *(name for name in job.columns if name not in ("segment_id", "text"))]
    return pa.schema([pa.field(name, job.schema.field(name).type) for name in names])
