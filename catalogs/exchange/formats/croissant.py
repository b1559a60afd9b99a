"""Croissant 1.0: a JSON-LD description of a data set that search engines and mlcroissant read (read: the 1.0 specification)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from catalogs.corpus.columns import SEGMENT
from catalogs.exchange.clips import Clip
from catalogs.exchange.formats.base import Format, Job, Part
from catalogs.files import open_atomically

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


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
        table = _table_schema(job)
        return {"croissant.json": croissant(job, table, "segments/*.parquet", "application/x-parquet")}


def _table_schema(job: Job) -> pa.Schema:
    names = ["segment_id", "text", *(name for name in job.columns if name not in ("segment_id", "text"))]
    return pa.schema([pa.field(name, job.schema.field(name).type) for name in names])


def croissant(job: Job, schema: pa.Schema, pattern: str, media: str) -> str:
    """Return the JSON-LD of Parquet files: one record set with a field per column. Nested columns have no type there."""
    words = {column.name: column.meaning for column in SEGMENT}
    name = job.facts["name"]
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"segments/{field.name}",
            "name": field.name,
            "description": words.get(field.name, field.name),
            "dataType": _type(field.type),
            "source": {"fileSet": {"@id": "parquet-files"}, "extract": {"column": field.name}},
        }
        for field in schema
        if _type(field.type) is not None
    ]
    # Without `containedIn`, the pattern is one of files beside this description.
    file_set = {"@type": "cr:FileSet", "@id": "parquet-files", "name": "parquet-files"}
    file_set |= {"description": "The clips, in Parquet files.", "encodingFormat": media, "includes": pattern}
    licenses = [license for license in job.facts["licenses"] if license]
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": job.facts["description"],
        "license": licenses[0] if len(licenses) == 1 else licenses,
        "version": "1.0.0",
        "inLanguage": [language for language in job.facts["languages"] if language],
        "distribution": [file_set],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "segments", "name": "segments", "field": fields}],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _type(kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:AudioObject" if pa.types.is_struct(kind) and "bytes" in {child.name for child in kind} else None
