"""The card of a corpus as it lies in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import INDEX
from catalogs.exchange.cards import attribution, croissant
from catalogs.exchange.cards.attribution import attribution_lines
from catalogs.exchange.cards.croissant import Files
from catalogs.exchange.cards.data_card import data_body, data_head, description
from catalogs.exchange.cards.facts import clip_facts, corpus_facts, credits_of, credits_sql
from catalogs.exchange.cards.markdown import section
from catalogs.exchange.cards.rai import StageUse, rai
from catalogs.exchange.cards.write import Card, Lines
from catalogs.query.streaming import streamed
from catalogs.query.views import query

_KEPT = "(SELECT * FROM segments WHERE kept)"
_FEW = 50
"""Files of a kind that are named one by one, if a pattern would also take files that no record names."""


def corpus_card(
    root: Path,
    stages: Sequence[StageUse] | None = None,
    contact: str | None = None,
    url: str | None = None,
    name: str | None = None,
) -> Card:
    """Return the card of a corpus: its kept clips, and its files as other tools read them. Raises CorpusError.

    stages: what made it, if the caller knows it. contact: where people ask to be removed. url: where it is published.
    """
    facts = kept_facts(root) | ({"name": name} if name else {})
    facts["description"] = description(facts)
    names = _columns(root)
    sql = credits_sql([_KEPT], names)

    def credit_lines() -> Iterator[str]:
        with streamed(root, sql, {}, None) as (_, batches):
            yield from attribution_lines(facts["name"], credits_of(batches))

    corpus = Corpus(root)
    shards, index = (_pattern(corpus, kind) for kind in ("segments", "index"))
    configs = [{"config_name": "default", "data_files": shards}] if shards else []
    files: dict[str, Lines] = {attribution.FILE: credit_lines}
    if index:
        text = croissant.croissant(facts, _index_files(corpus, index), rai(facts, stages, contact), url)
        files[croissant.FILE] = lambda: text.removesuffix("\n").split("\n")
    return Card(data_head(facts, configs), data_body(facts, _origin(facts, bool(shards)), stages, contact), files)


def kept_facts(root: Path) -> dict[str, Any]:
    """Return what is true of the kept clips of a corpus."""
    return corpus_facts(root) | clip_facts(lambda sql: query(root, sql)[1], {"kept": _KEPT}, _columns(root))


def _columns(root: Path) -> list[str]:
    return [str(row[0]) for row in query(root, "SELECT column_name FROM (DESCRIBE segments)")[1]]


def _index_files(corpus: Corpus, pattern: str | list[str]) -> Files:
    """Return the index as `Files`. Columns that its older files lack are left out."""
    import pyarrow.parquet as pq

    there = set.intersection(*(set(pq.read_schema(path).names) for path in corpus.files("index")[:_FEW]))
    words = "Every segment, kept and rejected, without audio. `kept` and `reasons` are those of the day of its commit."
    return Files(pattern, pa.schema([field for field in INDEX if field.name in there]), words)


def _pattern(corpus: Corpus, kind: str) -> str | list[str] | None:
    """Return what names exactly the committed files of a kind: a pattern, or a few paths; None if neither does."""
    named = {path.relative_to(corpus.path).as_posix() for path in corpus.files(kind)}
    if not named:
        return None
    suffix = Path(next(iter(named))).suffix
    there = {path.relative_to(corpus.path).as_posix() for path in (corpus.path / kind).glob(f"*/*{suffix}")}
    if there == named:
        return f"{kind}/*/*{suffix}"
    return sorted(named) if len(named) <= _FEW else None


def _origin(facts: dict[str, Any], loads: bool) -> str:
    lines = [
        f"A corpus of voxmill {facts['voxmill']}, fingerprint `{facts['fingerprint']}`, digest of its committed files "
        f"`{facts['digest']}`."
    ]
    if loads:
        lines.append(
            "`datasets.load_dataset` reads the shards with their audio. They hold every segment that has audio: `kept` in them "
            "is the verdict of the day of its commit."
        )
    lines.append(
        "To publish clips, use `voxmill export`: the folder of a corpus also holds the paths that its recordings were read from."
    )
    return section("Where it comes from", *lines)
