"""Cuts of lhotse: JSON lines with a recording and one supervision each, with word alignments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from catalogs.exchange.sources.manifests import json_rows
from catalogs.exchange.sources.row import BadRow, Roots, Row, RowError, facts_of, number, words_of


def files(path: Path) -> list[Path] | None:
    """Return the manifests of cuts of a file or folder."""
    if path.is_dir():
        found = sorted(path.glob("*cuts*.jsonl.gz")) + sorted(path.glob("*cuts*.jsonl"))
        return [file for file in found if _holds_cuts(file)] or None
    is_lines = path.name.lower().endswith((".jsonl", ".jsonl.gz"))
    return [path] if is_lines and _holds_cuts(path) else None


def _holds_cuts(file: Path) -> bool:
    _, first = next(json_rows(file), (0, ""))
    return isinstance(first, dict) and str(first.get("type", "")).endswith("Cut") and "start" in first


def rows(file: Path, roots: Roots) -> Iterator[Row | BadRow]:
    """Yield the cuts of a manifest."""
    for place, cut in json_rows(file):
        name = f"{file.name}#{place}"
        try:
            if isinstance(cut, str):
                raise RowError(cut)
            yield _row(name, cut, file.parent, roots)
        except RowError as error:
            yield BadRow(name, str(error))


def _row(name: str, cut: Mapping[str, Any], folder: Path, roots: Roots) -> Row:
    recording, supervisions = cut.get("recording"), cut.get("supervisions") or []
    if cut.get("type") != "MonoCut" or not isinstance(recording, dict):
        raise RowError(f"a cut of type {str(cut.get('type'))[:50]!r} is not a clip of one recording")
    if len(supervisions) != 1 or not isinstance(supervisions[0], dict):
        raise RowError(f"it has {len(supervisions)} supervisions; make cuts of one each (CutSet.trim_to_supervisions)")
    if recording.get("transforms"):
        raise RowError("its recording has transforms, which only lhotse computes; save the audio first")
    sources = recording.get("sources") or [{}]
    source = sources[0] if isinstance(sources[0], dict) else {}
    if len(sources) != 1 or source.get("type") != "file" or not isinstance(source.get("source"), str):
        raise RowError(f"its audio is not one file but {json.dumps(source.get('type'))[:50]}")
    said = supervisions[0]
    start, seconds = number(cut.get("start"), "start"), number(cut.get("duration"), "duration")
    custom = said.get("custom")
    known = custom if isinstance(custom, dict) else {}
    facts = facts_of(
        {**known, **{key: said.get(key) for key in ("text", "language", "speaker", "gender")}, "id": cut.get("id")}
    )
    alignment = said.get("alignment")
    if isinstance(alignment, dict) and alignment.get("word") and "words" not in facts:
        facts["words"] = words_of([_word(item) for item in alignment["word"]])
    stop = None if start is None or seconds is None else start + seconds
    return Row(name, facts, partial(roots.read, source["source"], folder), start, stop)


def _word(item: Any) -> dict[str, Any]:
    try:
        values = (
            [item["symbol"], item["start"], item["duration"], item.get("score")]
            if isinstance(item, dict)
            else [*item, None]
        )
        return {"word": values[0], "start": values[1], "end": values[1] + values[2], "p": values[3]}
    except (TypeError, KeyError, IndexError):
        raise RowError("its alignment is not a list of [symbol, start, duration]") from None
