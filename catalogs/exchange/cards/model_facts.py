"""What is true of a checkpoint or an adapter: its files, its size, and what it was trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.exchange.cards.attribution import Credit
from catalogs.exchange.cards.facts import credits_of
from catalogs.exchange.cards.write import CardError
from catalogs.lineage.files import read_lineage, read_table
from catalogs.lineage.record import Lineage
from catalogs.query.views import query_table
from catalogs.weights.checkpoint_files import checkpoint_digest

_HEADER_BYTES = 100_000_000
"""A longer header of a safetensors file is not read."""


@dataclass(frozen=True)
class ModelFacts:
    """A model folder. parameters: None if the weights are not in safetensors. rates: sample rates in and out, in Hz."""

    folder: Path
    kind: str
    name: str
    digest: str
    parameters: int | None
    rates: tuple[int, ...]
    lineage: Lineage | None


def is_model(folder: Path) -> bool:
    """Return True for the folder of a checkpoint or an adapter."""
    return (folder / "config.json").is_file() or (folder / "lora_config.json").is_file()


def model_facts(folder: Path, name: str | None = None) -> ModelFacts:
    """Return the facts of a model folder. Raises CardError or LineageError, in one line, for damaged files."""
    is_adapter = not (folder / "config.json").is_file()
    config = _json(folder / ("lora_config.json" if is_adapter else "config.json"))
    codec = config.get("audio_vae_config")
    rates = [codec.get(key) for key in ("sample_rate", "out_sample_rate")] if isinstance(codec, dict) else []
    return ModelFacts(
        folder,
        "adapter (LoRA)" if is_adapter else str(config.get("architecture") or "voxcpm"),
        name or folder.resolve().name,
        checkpoint_digest(folder),
        _parameters(folder),
        tuple(rate for rate in rates if isinstance(rate, int)),
        read_lineage(folder),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CardError(f"{path} is damaged: copy the checkpoint's folder again from where it was made")
    return found


def _parameters(folder: Path) -> int | None:
    """Return the number of weights of the model in its safetensors files, without the codec."""
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("audiovae"))
    return sum(_weights_in(path) for path in files) if files else None


def _weights_in(path: Path) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: Any = json.loads(file.read(length)) if length <= _HEADER_BYTES else None
            return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CardError(f"{path} is not a safetensors file: copy the model again from where it was made") from None


@dataclass(frozen=True)
class Drawn:
    """What the recordings of a lineage are, each once: hours by stated consent, and hours that a model spoke."""

    recordings: int
    consents: dict[str, float]
    synthetic_seconds: float


def drawn(lineage: Lineage) -> Drawn:
    """Return what was used, over all known generations. Raises LineageError if the table is damaged."""
    import duckdb

    with duckdb.connect() as connection:
        connection.register("used", _used(lineage))
        rows = connection.sql(
            "SELECT coalesce(consent, ''), synthetic, count(*), coalesce(sum(seconds), 0) FROM used GROUP BY 1, 2"
        ).fetchall()
    consents: dict[str, float] = {}
    for consent, _, _, seconds in rows:
        consents[consent] = consents.get(consent, 0.0) + seconds
    return Drawn(
        sum(row[2] for row in rows),
        {key: consents[key] for key in sorted(consents, key=lambda key: (-consents[key], key))},
        sum(row[3] for row in rows if row[1]),
    )


def _used(lineage: Lineage) -> pa.Table:
    """Return one row per recording that was used: corpus, source_id, license, consent, synthetic, seconds."""
    import duckdb

    with duckdb.connect() as connection:
        connection.register("rows", read_table(lineage))
        return connection.sql(
            "SELECT corpus, source_id, any_value(license) AS license, any_value(consent) AS consent, "
            "bool_or(synthetic) AS synthetic, any_value(seconds) AS seconds FROM rows "
            "WHERE draws > 0 OR as_reference > 0 OR through_decoupled > 0 GROUP BY 1, 2"
        ).to_arrow_table()


def model_credits(lineage: Lineage, corpora: Sequence[Path]) -> tuple[list[Credit], int]:
    """Return the credits of the recordings that were used, as their corpora state them, and how many are in none of them."""
    import duckdb

    columns = "SELECT source_id, attribution, source_url FROM recordings"
    known = pa.concat_tables([query_table(root, columns).cast(_KNOWN) for root in corpora])
    with duckdb.connect() as connection:
        connection.register("used", _used(lineage))
        connection.register("known", known)
        ((missing,),) = connection.sql(
            "SELECT count(*) FROM used WHERE source_id NOT IN (SELECT source_id FROM known)"
        ).fetchall()
        rows = connection.sql(
            "SELECT license, attribution, source_url, count(*) AS recordings, coalesce(sum(seconds), 0) AS seconds "
            "FROM used LEFT JOIN (SELECT source_id, any_value(attribution) AS attribution, any_value(source_url) AS source_url "
            "FROM known GROUP BY 1) USING (source_id) GROUP BY 1, 2, 3 "
            "ORDER BY 1 NULLS LAST, 2 NULLS LAST, 3 NULLS LAST"
        )
        return list(credits_of(_batches(rows.to_arrow_table()))), missing


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from table.to_batches()


_KNOWN = pa.schema([("source_id", pa.string()), ("attribution", pa.string()), ("source_url", pa.string())])
