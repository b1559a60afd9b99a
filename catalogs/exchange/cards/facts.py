"""What is true of a corpus or an export as a whole: hours by split, language and license, the funnel, and how it was made."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.thresholds import load_thresholds
from catalogs.exchange.cards.attribution import Credit
from catalogs.lineage.digest import corpus_digest
from catalogs.query.views import query
from catalogs.settings import read_yaml

Ask = Callable[[str], list[tuple[Any, ...]]]
"""Returns the rows of an SQL query."""

_ROUNDED = "round({}, 3)"
"""Threads of DuckDB add in any order: the last digits of a sum differ from run to run."""
_SECONDS = _ROUNDED.format("coalesce(sum(duration_s), 0)")
_SUMMED = ("language", "license", "gender", "text_source", "consent", "synthetic")


def corpus_facts(root: Path) -> dict[str, Any]:
    """Return what describes the corpus at the start of an export: stored with the selection, so that a resume says the same."""
    info = corpus_info(root)
    columns, rows = query(
        root, f"SELECT outcome, reason, segments, {_ROUNDED.format('seconds')} AS seconds FROM funnel"
    )
    prepared = root / "prepare.yaml"
    return {
        "name": info.get("name") or root.resolve().name,
        "fingerprint": info.get("fingerprint"),
        "digest": corpus_digest(root),
        "created_at": info.get("created_at"),
        "voxmill": importlib.metadata.version("voxmill"),
        "thresholds": load_thresholds(root).model_dump(mode="json"),
        "funnel": [dict(zip(columns, row, strict=True)) for row in rows],
        "settings": _public(read_yaml(prepared)) if prepared.is_file() else {},
        "recordings": _recordings(root),
        "descriptions": _descriptions(root),
    }


def _public(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a corpus without what is stated of recordings by their paths, which may tell who the user is."""
    sources = settings.get("sources")
    shown = settings | ({"sources": {**sources, "rights": len(sources.get("rights") or ())}} if sources else {})
    return {name: shown[name] for name in sorted(shown) if name != "thresholds"}


def _recordings(root: Path) -> dict[str, Any]:
    """Return count, seconds, sessions, sample rates and codecs of the recordings."""
    ((count, seconds, sessions, lowest, highest),) = query(
        root,
        f"SELECT count(*), {_SECONDS}, count(DISTINCT session_id), min(sample_rate), max(sample_rate) FROM recordings",
    )[1]
    codecs = query(root, f"SELECT coalesce(codec, ''), {_SECONDS} FROM recordings GROUP BY 1 ORDER BY 2 DESC, 1")[1]
    return {
        "count": count,
        "seconds": seconds,
        "sessions": sessions,
        "sample_rates": [lowest, highest],
        "codecs": dict(codecs),
    }


def _descriptions(root: Path) -> list[dict[str, Any]]:
    """Return who described the clips, and how many."""
    sql = "SELECT annotator, model, count(*) AS clips FROM descriptions WHERE status = 'ok' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
    names, rows = query(root, sql)
    return [dict(zip(names, row, strict=True)) for row in rows]


def clip_facts(ask: Ask, sources: Mapping[str, str], names: Iterable[str]) -> dict[str, Any]:
    """Return clips, hours and voices by split, and hours by language, license and other columns.

    sources: what stands after FROM, by split. names: columns that they have.
    """
    there = set(names)
    every = " UNION ALL ".join(f"SELECT * FROM {source}" for source in sources.values())
    splits = {}
    for split, source in sources.items():
        (row,) = ask(f"SELECT count(*), {_SECONDS}, count(DISTINCT speaker), count(DISTINCT session_id) FROM {source}")
        splits[split] = {"clips": row[0], "seconds": row[1], "speakers": row[2], "sessions": row[3]}

    columns = ", ".join(f"CAST({name if name in there else 'NULL'} AS VARCHAR) AS {name}_" for name in _SUMMED)
    rows = ask(f"SELECT {columns}, {_SECONDS} FROM ({every}) GROUP BY ALL")
    sums = {name: _by(rows, number) for number, name in enumerate(_SUMMED)}
    owners, purposes = _owners(ask, every, there)
    return {
        "splits": splits,
        "languages": sums["language"],
        "licenses": sums["license"],
        "genders": sums["gender"],
        "text_sources": sums["text_source"],
        "consents": sums["consent"],
        "synthetic_seconds": sums["synthetic"].get("true", 0.0),
        "owner_speakers": owners,
        "purposes": purposes,
        "credits": _top_credits(ask, every, there),
    }


def _by(rows: Sequence[tuple[Any, ...]], number: int) -> dict[str, float]:
    """Return seconds by a column, the most first; "" is null."""
    found: dict[str, float] = {}
    for row in rows:
        found[row[number] or ""] = found.get(row[number] or "", 0.0) + row[-1]
    return {key: round(found[key], 3) for key in sorted(found, key=lambda key: (-round(found[key], 3), key))}


def _owners(ask: Ask, every: str, there: set[str]) -> tuple[int, dict[str, float]]:
    """Return how many pseudonyms of speakers there are, and hours by the purposes that owners name."""
    count = ask(f"SELECT count(DISTINCT owner_speaker) FROM ({every})")[0][0] if "owner_speaker" in there else 0
    if "purposes" not in there:
        return count, {}
    sql = f"SELECT purpose, {_SECONDS} FROM (SELECT unnest(purposes) AS purpose, duration_s FROM ({every})) GROUP BY 1"
    return count, dict(ask(f"{sql} ORDER BY 2 DESC, 1"))


def _top_credits(ask: Ask, every: str, there: set[str]) -> list[str]:
    """Return the credits with the most time, for the card; ATTRIBUTION.md has all."""
    if "attribution" not in there:
        return []
    sql = f"SELECT attribution FROM ({every}) WHERE attribution IS NOT NULL GROUP BY 1"
    return [row[0] for row in ask(f"{sql} ORDER BY sum(duration_s) DESC, 1 LIMIT 50")]


def credits_sql(sources: Iterable[str], names: Iterable[str]) -> str:
    """Return a query for the rows of `credits_of`, sorted by license."""
    there = set(names)
    rights = ("license", "attribution", "source_url")
    columns = ", ".join(f"CAST({name if name in there else 'NULL'} AS VARCHAR) AS {name}" for name in rights)
    every = " UNION ALL ".join(f"SELECT {columns}, source_id, duration_s FROM {source}" for source in sources)
    return (
        f"SELECT license, attribution, source_url, count(DISTINCT source_id) AS recordings, {_SECONDS} AS seconds "
        f"FROM ({every}) GROUP BY 1, 2, 3 ORDER BY 1 NULLS LAST, 2 NULLS LAST, 3 NULLS LAST"
    )


def credits_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Credit]:
    """Yield credits from the rows of a query, batch by batch."""
    for batch in batches:
        for row in batch.to_pylist():
            yield Credit(**row)
