"""Which voice of a list the takes are most like: a table of the voices that were asked for and those that are heard."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.metrics.base import Metric
from evaluation.runs.folder import Run
from evaluation.runs.score import rows_of

MOST = 16
"""Voices in a table: those with the most takes."""


@dataclass(frozen=True)
class Row:
    """The takes of one voice. shares: by the voices of the table, then all others. own: its place among them."""

    name: str
    takes: int
    shares: tuple[float, ...]
    own: int


@dataclass(frozen=True)
class Confusions:
    """The table of one list of one run. left_out: voices that have no row."""

    run: str
    list: str
    voices: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: int = 0


def confusions(run: Run, label: str, metrics: Mapping[str, Metric]) -> list[Confusions]:
    """Return a table per list that has several voices and was scored with `voice_margin`."""
    metric = metrics.get("voice_margin")
    if metric is None:
        return []
    heard: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for row in rows_of(run, metric, metrics).values():
        if row["nearest_speaker"] is not None:
            item = run.by_id[row["item_id"]]
            heard[item.list_name][item.speaker][row["nearest_speaker"]] += 1
    return [_table(label, name, voices) for name, voices in heard.items() if len(voices) > 1]


def _table(run: str, name: str, heard: Mapping[str, Counter[str]]) -> Confusions:
    by_takes = sorted(heard, key=lambda voice: (-heard[voice].total(), voice))
    shown = sorted(by_takes[:MOST])
    rows = []
    for own, voice in enumerate(shown):
        counts, takes = heard[voice], heard[voice].total()
        shares = [counts[other] / takes for other in shown]
        rows.append(Row(_short(voice), takes, (*shares, max(0.0, 1 - sum(shares))), own))
    return Confusions(run, name, tuple(map(_short, shown)), tuple(rows), len(heard) - len(shown))


def _short(voice: str) -> str:
    """Return the name of a voice; of a reference clip, the name of its file."""
    return Path(voice).stem if "/" in voice else voice
