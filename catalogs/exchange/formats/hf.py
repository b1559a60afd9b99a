"""Parquet shards with an Audio feature, as `datasets` and the Hugging Face Hub read them (read: datasets 5.2, docs of the Hub)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from catalogs.corpus.columns import AUDIO, CAPTIONS, WORD
from catalogs.corpus.schema import feature_of
from catalogs.exchange.cards.croissant import FILE, Files
from catalogs.exchange.clips import Clip, file_stem
from catalogs.exchange.formats.base import Format, Job, Part
from catalogs.files import open_atomically

_BATCH_ROWS = 64
_BATCH_BYTES = 64_000_000
"""Clips, or bytes of audio, in memory at a time; also the size of a row group, which a reader holds."""


class HuggingFace(Format):
    """`datasets.load_dataset(FOLDER)` opens it, with its splits; the head of README.md names the files of each."""

    name = "hf"
    reader = "datasets.load_dataset, the viewer of the Hub, pandas, polars, DuckDB"
    needs_text = False
    columns = ("*",)

    def write_part(self, job: Job, part: Part, clips: Iterator[Clip]) -> dict[str, list[str]]:
        """Write one Parquet file, with small row groups so that a reader need not hold much audio."""
        import pyarrow.parquet as pq

        schema = _schema(job)
        final = job.out / "data" / f"{part.split}-{part.number:05d}-of-{part.of:05d}.parquet"
        with open_atomically(final) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            waiting: list[dict[str, Any]] = []
            held = 0
            for clip in clips:
                waiting.append(_row(job, clip, schema.names))
                held += len(clip.data) if clip.audio != "none" else 0
                if len(waiting) == _BATCH_ROWS or held >= _BATCH_BYTES:
                    writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                    waiting, held = [], 0
            if waiting:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
        return {}

    def data_files(self, split: str) -> str | None:
        """Return the pattern of a split's files."""
        return f"data/{split}-*.parquet"

    def finish(self, job: Job, parts: Sequence[Part]) -> dict[str, str]:
        """Return the Croissant description, which the Hub makes by itself but other readers need."""
        return {FILE: job.croissant(Files("data/*.parquet", _schema(job)))}


def _schema(job: Job) -> pa.Schema:
    """Return the schema of all files, with the features of `datasets`."""
    fields = [] if job.request.audio == "none" else [pa.field("audio", AUDIO)]
    names = ["segment_id", "text", *(name for name in job.columns if name not in ("segment_id", "text"))]
    fields += [pa.field(name, job.schema.field(name).type) for name in names]
    fields += [pa.field("words", pa.list_(WORD)), pa.field("captions", CAPTIONS)]
    fields += [pa.field("reference_id", pa.string())]
    features: dict[str, object] = {field.name: feature_of(field.type) for field in fields}
    if job.request.audio != "none":
        features["audio"] = {"_type": "Audio"}
    return pa.schema(fields).with_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})


def _row(job: Job, clip: Clip, names: Sequence[str]) -> dict[str, Any]:
    row = {name: clip.row.get(name) for name in names}
    row |= {"text": job.text(clip) or None, "words": clip.words, "captions": (clip.row["voice"] or {}).get("captions")}
    if "sample_rate" in row:
        row["sample_rate"] = clip.about[0]
    if "audio" in row:
        row["audio"] = {"bytes": clip.data, "path": f"{file_stem(clip.id)}.{clip.suffix}"}
    return row
