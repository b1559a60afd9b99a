"""The questions that a reader of a speech evaluation asks (after arXiv:2510.06927), answered from the run itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from catalogs.words import counted
from evaluation.metrics.base import Metric
from evaluation.runs.folder import Run

_QUALITY = (
    "no: distillmos and dnsmos predict quality, not naturalness; ratings of people come from voxmill evaluate listen"
)
_INTERVALS = (
    "95 % intervals by bootstrap over items, clustered by voice, 10,000 draws; differences are paired by item, with a sign-flip "
    "test and Holm's correction"
)
_TAILS = (
    "the summary has the median and the share of items with more than half of the words wrong; "
    "the worst takes are on this page"
)
_SEEN = (
    "the harness does not know it; of a list `corpus`, held-out texts that also occur in the training part are left out"
)


def answers(run: Run, metrics: Mapping[str, Metric], measured: set[str]) -> list[tuple[str, str]]:
    """Return pairs of a question and its answer. `metrics`: by name; `measured`: those with rows in this run."""
    statuses = Counter(row["status"] for row in run.generated.rows())
    lists = Counter(item.list_name or "(no name)" for item in run.items)
    seeds = ", ".join(map(str, run.settings["seeds"]))
    floor = "measured on recordings of the same texts (recognizer's floor)" if "floor" in measured else "not measured"
    return [
        ("What was said?", "; ".join(f"{name}: {counted(count, 'item')}" for name, count in sorted(lists.items()))),
        ("By which system, with which settings?", _pairs(run.settings["system"])),
        ("How many takes of each text?", f"seeds {seeds}; an item's figure is the mean over its seeds"),
        ("Were takes dropped or made again?", _retries(run, statuses)),
        ("Who recognized the words?", _settings(metrics, measured, "transcript")),
        ("How was text compared?", _dialects(metrics, measured)),
        ("How good is the recognizer itself?", floor),
        ("Which model compared the voices?", _settings(metrics, measured, "voice_ge2e")),
        ("Is quality a rating by people?", _QUALITY),
        ("How certain are the figures?", _INTERVALS),
        ("What do the means hide?", _TAILS),
        ("Is the speed comparable?", f"only on this machine: {_pairs(run.settings.get('host', {})) or 'unknown'}"),
        ("Were the voices or texts seen in training?", _SEEN),
    ]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value}"
        for key, value in values.items()
        if value not in (None, "") and not isinstance(value, dict | list)
    )


def _retries(run: Run, statuses: Counter[str]) -> str:
    takes, failed = sum(statuses.values()), sum(count for status, count in statuses.items() if status != "ok")
    again = sum((row["attempts"] or 1) > 1 for row in run.generated.rows())
    return (
        f"none is dropped: {failed} of {counted(takes, 'take')} failed and count; {again} needed more than one attempt"
    )


def _settings(metrics: Mapping[str, Metric], measured: set[str], name: str) -> str:
    if name not in measured:
        return f"not measured ({name})"
    metric = metrics[name]
    return "; ".join(
        filter(None, (f"{name} version {metric.version}", " ".join(metric.weights), _pairs(metric.settings())))
    )


def _dialects(metrics: Mapping[str, Metric], measured: set[str]) -> str:
    names = [name for name in ("words_official", "words_clean") if name in measured]
    return ", ".join(f"{name} version {metrics[name].version}" for name in names) or "not measured"
