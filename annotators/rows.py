"""The files of descriptions: their paths, their bytes, and a description as columns of `catalogs.corpus.columns.DESCRIPTIONS`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotators.schema import Attributes, VoiceDescription
from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.vocabulary.voices import REGISTERS, THREE, UNSURE


def description_path(root: Path, annotator: str, unit: str) -> Path:
    """Return the path of a unit's descriptions."""
    return root / "annotations" / annotator / unit[:2] / f"{unit}.parquet"


def described_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a unit's file that hold a description, by segment id; none without a file.

    Raises DamagedFileError for a file that cannot be read.
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        return {}
    with reading(path):
        rows = pq.ParquetFile(path).read().to_pylist()
    return {row["segment_id"]: row for row in rows if row["status"] == "ok"}


def stored_flac(corpus: Corpus, row: Mapping[str, Any]) -> bytes:
    """Return the FLAC bytes of a segment, given its `shard` and `row`. Raises DamagedFileError for a shard that cannot be read."""
    with reading(corpus.path / row["shard"]):
        return bytes(corpus.shard(row["shard"]).audio_buffer(row["row"]).to_pybytes())


def description_columns(description: VoiceDescription) -> dict[str, Any]:
    """Return the columns that hold a description: the English captions by register, all captions, and its attributes."""
    attributes = description.attributes
    return {
        "language": "en",
        **{register: description.caption(register) for register in REGISTERS},
        "captions": [vars(caption) for caption in description.captions],
        "attributes": _three_levels(attributes),
        "labels": attributes.model_dump(exclude={"evidence"}),
        "evidence": attributes.evidence or None,
    }


def _three_levels(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes as older readers know them: three levels, null if unsure. `intensity` was a number and stays null."""

    def known(name: str) -> str | None:
        value = getattr(attributes, name)
        if name in THREE:
            return THREE[name].get(value)
        return None if value in (UNSURE, "") else value

    single = {
        name: known(name) for name in ("gender", "age", "accent", "emotion", "rate", "pitch", "energy", "scenario")
    }
    return {**single, "texture": list(attributes.texture) or None, "intensity": None}
