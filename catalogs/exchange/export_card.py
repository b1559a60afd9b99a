"""The card of an export: what its clips are, and how they were chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.exchange.cards import attribution
from catalogs.exchange.cards.attribution import attribution_lines
from catalogs.exchange.cards.data_card import data_body, data_head
from catalogs.exchange.cards.facts import clip_facts, credits_of, credits_sql
from catalogs.exchange.cards.markdown import bullets, cell, section
from catalogs.exchange.cards.write import Card
from catalogs.exchange.request import Request

if TYPE_CHECKING:
    import duckdb


def selection_facts(files: Mapping[str, Path], names: Sequence[str]) -> dict[str, Any]:
    """Return what is true of the clips of a stored selection. files: by split. names: the columns of the selection."""
    with _opened() as connection:

        def ask(sql: str) -> list[tuple[Any, ...]]:
            return connection.execute(sql).fetchall()

        return clip_facts(ask, _sources(connection, files), names)


def export_card(
    facts: Mapping[str, Any],
    request: Request,
    reader: str,
    files: Mapping[str, Path],
    patterns: Mapping[str, str | None],
    notes: Sequence[str],
    texts: Mapping[str, str],
) -> Card:
    """Return the card. files: of the selection, by split. patterns: of the data files, by split. texts: files beside it."""
    found = [{"split": split, "path": pattern} for split, pattern in patterns.items() if pattern]
    configs = [{"config_name": "default", "data_files": found}] if found else []

    def credit_lines() -> Iterator[str]:
        with _opened() as connection:
            rows = connection.sql(credits_sql(_sources(connection, files).values(), _names(connection)))
            yield from attribution_lines(facts["name"], credits_of(rows.to_arrow_reader()))

    beside: dict[str, Callable[[], Any]] = {attribution.FILE: credit_lines}
    beside |= {name: _lines_of(text) for name, text in texts.items()}
    return Card(data_head(facts, configs), data_body(facts, _origin(facts, request, reader), notes=notes), beside)


def _lines_of(text: str) -> Callable[[], list[str]]:
    return lambda: text.removesuffix("\n").split("\n")


@contextmanager
def _opened() -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET memory_limit = '1GB'")
        yield connection


def _sources(connection: duckdb.DuckDBPyConnection, files: Mapping[str, Path]) -> dict[str, str]:
    """Make a view per split; return their names by split."""
    for number, file in enumerate(files.values()):
        connection.read_parquet(str(file)).create_view(f"split_{number}")
    return {split: f"split_{number}" for number, split in enumerate(files)}


def _names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT column_name FROM (DESCRIBE split_0)").fetchall()]


def _origin(facts: Mapping[str, Any], request: Request, reader: str) -> str:
    allowed = f"; licenses: {', '.join(request.license_allow)}" if request.license_allow else ""
    made = (
        f"Made by voxmill {facts['voxmill']} from the corpus `{cell(facts['name'])}`, fingerprint `{facts['fingerprint']}`, "
        f"digest `{facts['digest']}`. For: {reader}."
    )
    lines = [f"Condition: `{' '.join(request.where.split())}`{allowed}", f"Audio: {_audio(request)}"]
    if len(request.splits) > 1:
        lines.append("Splits share no session, voice, copy or text.")
    return section("Where it comes from", made, bullets([*lines, "Thresholds, settings and counts: `export.json`."]))


def _audio(request: Request) -> str:
    if request.audio == "none":
        return "none"
    if request.sample_rate:
        return f"{request.audio.upper()}, resampled to {request.sample_rate} Hz"
    return "FLAC as stored in the corpus" if request.audio == "flac" else "WAV with the samples of the corpus"
