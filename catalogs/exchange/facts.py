"""What is true of an export as a whole: hours by split, language and license, the funnel, and how the corpus was made."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.thresholds import load_thresholds
from catalogs.exchange.request import Request
from catalogs.query.views import query
from catalogs.settings import read_yaml
from catalogs.vocabulary.licenses import summary

_ROUNDED = "round({}, 3)"
"""Threads of DuckDB add in any order: the last digits of a sum differ from run to run."""
_TOP = 50
"""Rows of each table of the card."""


def corpus_facts(root: Path) -> dict[str, Any]:
    """Return what describes the corpus at the start of an export: stored with the selection, so that a resume says the same."""
    info = corpus_info(root)
    columns, rows = query(
        root, f"SELECT outcome, reason, segments, {_ROUNDED.format('seconds')} AS seconds FROM funnel"
    )
    prepared = root / "prepare.yaml"
    settings = read_yaml(prepared) if prepared.is_file() else {}
    return {
        "name": info.get("name") or root.resolve().name,
        "fingerprint": info.get("fingerprint"),
        "created_at": info.get("created_at"),
        "voxmill": importlib.metadata.version("voxmill"),
        "thresholds": load_thresholds(root).model_dump(mode="json"),
        "funnel": [dict(zip(columns, row, strict=True)) for row in rows],
        "settings": {name: settings[name] for name in sorted(settings) if name != "thresholds"},
    }


def clip_facts(files: dict[str, Path], names: Sequence[str]) -> dict[str, Any]:
    """Return clips, hours and voices by split, and hours by language and license, of a stored selection."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET memory_limit = '1GB'")
        seconds = _ROUNDED.format("coalesce(sum(duration_s), 0)")
        splits = {}
        for split, file in files.items():
            connection.read_parquet(str(file)).create_view("own", replace=True)
            (row,) = connection.execute(
                f"SELECT count(*), {seconds}, count(DISTINCT speaker), count(DISTINCT session_id) FROM own"
            ).fetchall()
            splits[split] = {"clips": row[0], "seconds": row[1], "speakers": row[2], "sessions": row[3]}
        connection.read_parquet([str(file) for file in files.values()]).create_view("every")

        def seconds_by(expression: str) -> dict[str, float]:
            rows = connection.execute(
                f'SELECT {expression} AS key, {seconds} FROM "every" GROUP BY 1 ORDER BY 2 DESC, 1'
            ).fetchall()
            return {key if key is not None else "": seconds for key, seconds in rows}

        rights = [name for name in ("attribution", "source_url") if name in names]
        return {
            "splits": splits,
            "languages": seconds_by("language"),
            "licenses": seconds_by("license"),
            "credits": {name: list(filter(None, seconds_by(name)))[:_TOP] for name in rights},
        }


def hours(seconds: float) -> str:
    """Return seconds as hours for a table: three digits that count."""
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def card(
    facts: dict[str, Any], request: Request, reader: str, patterns: dict[str, str | None], notes: Sequence[str]
) -> str:
    """Return README.md: the head that the Hub reads, then what is in the export and where it comes from."""
    licenses = [license for license in facts["licenses"] if license]
    languages = [language for language in facts["languages"] if language]
    head: dict[str, Any] = {"pretty_name": facts["name"], "language": languages[:_TOP]}
    # The Hub knows its own names of licenses; its name for all others is `other`.
    single = licenses[0].lower() if len(licenses) == 1 and "" not in facts["licenses"] else None
    head |= {"license": single if single and not single.startswith("licenseref") else "other"}
    if head["license"] == "other":
        head["license_name"] = " AND ".join(licenses) or "unknown"
    head |= {"task_categories": ["text-to-speech"], "tags": ["voxmill", "speech"]}
    head["size_categories"] = [_size(sum(split["clips"] for split in facts["splits"].values()))]
    found = [{"split": split, "path": pattern} for split, pattern in patterns.items() if pattern]
    if found:
        head["configs"] = [{"config_name": "default", "data_files": found}]
    # JSON is YAML: each value keeps its quotes, whatever a name holds.
    front = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items())
    sections = [f"---\n{front}\n---\n\n# {facts['name']}", facts["description"], _splits(facts)]
    sections += [_table("Languages", "language", facts["languages"]), _table("Licenses", "license", facts["licenses"])]
    obligations = summary({key or None: seconds / 3600 for key, seconds in facts["licenses"].items()})
    sections += ["\n".join(f"* {_cell(line)}" for line in obligations)]
    sections += [_credits(facts), _funnel(facts), _origin(facts, request, reader), *notes]
    return "\n\n".join(section for section in sections if section) + "\n"


def _size(clips: int) -> str:
    for limit, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M")):
        if clips < limit:
            return name
    return "n>10M"


def _splits(facts: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {own['clips']:,} | {hours(own['seconds'])} | {own['speakers']:,} | {own['sessions']:,} |"
        for name, own in facts["splits"].items()
    ]
    return "\n".join(["| split | clips | hours | voices | sessions |", "|---|---|---|---|---|", *rows])


def _table(title: str, column: str, seconds: dict[str, float]) -> str:
    rows = [f"| {_cell(key) or 'not stated'} | {hours(value)} |" for key, value in list(seconds.items())[:_TOP]]
    rest = len(seconds) - _TOP
    more = [f"| {rest} others | {hours(sum(list(seconds.values())[_TOP:]))} |"] if rest > 0 else []
    return "\n".join([f"## {title}", "", f"| {column} | hours |", "|---|---|", *rows, *more])


def _cell(text: str) -> str:
    """Return text that stays in its cell: names come from the corpus."""
    return " ".join(text.replace("|", "/").replace("<", "&lt;").split())[:300]


def _credits(facts: dict[str, Any]) -> str:
    lines = [f"* {_cell(value)}" for values in facts["credits"].values() for value in values]
    return "\n".join(["## Attribution", "", *lines]) if lines else ""


def _funnel(facts: dict[str, Any]) -> str:
    rows = [
        f"| {_cell(row['outcome'])} | {_cell(row['reason'])} | {row['segments']:,} | {hours(row['seconds'] or 0)} |"
        for row in facts["funnel"]
    ]
    title = ["## What became of the recordings", "", "| outcome | reason | segments | hours |", "|---|---|---|---|"]
    return "\n".join([*title, *rows]) if rows else ""


def _origin(facts: dict[str, Any], request: Request, reader: str) -> str:
    condition = " ".join(request.where.split())
    lines = [
        "## Where it comes from",
        "",
        f"Made by voxmill {facts['voxmill']} from the corpus `{_cell(facts['name'])}`, "
        f"fingerprint `{facts['fingerprint']}`. For: {reader}.",
        "",
        f"* Condition: `{condition}`"
        + (f"; licenses: {', '.join(request.license_allow)}" if request.license_allow else ""),
        f"* Audio: {_audio(request)}",
        "* Splits share no session, voice, copy or text." if len(request.splits) > 1 else "",
        "* Thresholds, settings and counts: `export.json`.",
    ]
    return "\n".join(line for line in lines if line or line == "")


def _audio(request: Request) -> str:
    if request.audio == "none":
        return "none"
    if request.sample_rate:
        return f"{request.audio.upper()}, resampled to {request.sample_rate} Hz"
    return "FLAC as stored in the corpus" if request.audio == "flac" else "WAV with the samples of the corpus"
