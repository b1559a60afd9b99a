"""Croissant 1.0: a JSON-LD description of a data set that search engines and mlcroissant read (read: the 1.0 specification).

With the RAI extension, it also says how the data was collected and made, and what its limits are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from catalogs.corpus.columns import SEGMENT
from catalogs.exchange.cards.hub import license_url
from catalogs.vocabulary.licenses import canonical

FILE = "croissant.json"
PARQUET = "application/x-parquet"
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


@dataclass(frozen=True)
class Files:
    """Parquet files beside the description, and the columns that their rows have. pattern: relative to the description."""

    pattern: str | list[str]
    schema: pa.Schema
    words: str = "The clips, in Parquet files."


def croissant(
    facts: Mapping[str, Any], files: Files, rai: Mapping[str, str | Sequence[str]], url: str | None = None
) -> str:
    """Return the JSON-LD of Parquet files: one record set with a field per column. Nested columns have no type there.

    facts: `name`, `description`, `licenses` and `languages`. rai: values of the RAI extension, by key without its prefix.
    """
    words = {column.name: column.meaning for column in SEGMENT}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"segments/{field.name}",
            "name": field.name,
            "description": words.get(field.name, field.name),
            "dataType": _type(field.type),
            "source": {"fileSet": {"@id": "parquet-files"}, "extract": {"column": field.name}},
        }
        for field in files.schema
        if _type(field.type) is not None
    ]
    # Without `containedIn`, the pattern is one of files beside this description.
    file_set: dict[str, Any] = {"@type": "cr:FileSet", "@id": "parquet-files", "name": "parquet-files"}
    file_set |= {"description": files.words, "encodingFormat": PARQUET, "includes": files.pattern}
    licenses = sorted({license_url(canonical(license)) for license in facts["licenses"] if license})
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": facts["name"],
        "description": facts["description"],
        **({"url": url} if url else {}),
        **({"license": licenses[0] if len(licenses) == 1 else licenses} if licenses else {}),
        "version": "1.0.0",
        "inLanguage": [language for language in facts["languages"] if language],
        **{f"rai:{key}": value for key, value in rai.items() if value},
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
