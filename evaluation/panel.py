"""The quick panel: which checkpoint of a training run is the best, by held-out sentences that it speaks.

The trainer names `evaluation.panel:judge` in its setting `validation.best.judge`, writes the held-out items, and calls it for a
checkpoint in another process; `judge_run` judges all checkpoints of a run afterwards.

OUTPUT/panel/held/items.jsonl          the held-out items
OUTPUT/panel/step_0000500/             an evaluation run: what the checkpoint said, and its rows
OUTPUT/panel/step_0000500/panel.json   the cost of each item and the figures
OUTPUT/best                            link to the checkpoint with the lowest cost

The cost of an item is a weighted sum (PARTS). It is 0 for a perfect take; a take that failed has every part in full. If more than
half of the takes have an error or a time-out, nothing is written: the machine failed and not the checkpoint.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from catalogs.files import write_atomically
from evaluation.errors import EvaluationError
from evaluation.items import Item, read_items
from evaluation.metrics import load_metrics
from evaluation.metrics.base import fingerprint
from evaluation.run import RETRIED
from evaluation.runs.folder import Run, create_run, host
from evaluation.runs.generate import generate
from evaluation.runs.rows import Key
from evaluation.runs.score import rows_of, score
from evaluation.statistics.bootstrap import mean_interval
from evaluation.systems import open_system
from evaluation.systems.base import System

_LOG = logging.getLogger(__name__)

SEEDS = (1,)
MARGIN = 0.02
USED = ("transcript", "words_clean", "voice_ge2e", "tempo")
"""Metrics of the panel."""
PARTS = {"words": 1.0, "voice": 1.0, "stop": 0.5, "start": 0.25}
"""Parts of the cost and their weights. `words`: character error rate, at most 1. `voice`: 1 minus the cosine to the reference, if
the item has one. `stop`: the speech was cut by the length limit, or has one of STOP_FAULTS. `start`: a sound before the first
word."""
STOP_FAULTS = ("early_stop", "tail", "loop")


@dataclass(frozen=True)
class Judged:
    """The panel of one checkpoint. `costs`: by item id. `figures`: means by name; `cost` is the mean cost."""

    step: int
    checkpoint: str
    figures: dict[str, float]
    costs: dict[str, float]
    measured_by: dict[str, str]
    """Fingerprints of the metrics."""
    not_measured: dict[str, str] = field(default_factory=dict)
    """Metrics that could not be loaded, and why. Their parts are missing from the cost."""


def check(settings: Mapping[str, Any]) -> None:
    """Raise EvaluationError if a part of the cost is unknown, or weights of the metrics are not on this machine."""
    from catalogs.weights.registry import available, pull_command

    _weights(settings)
    missing = [name for metric in load_metrics(USED) for name in metric.weights if not available(name)]
    if missing:
        raise EvaluationError(f"the panel needs {', '.join(missing)}; run: {pull_command(missing)}")


def judge(output: Path, checkpoint: Path, step: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Judge a checkpoint of a training run and link OUTPUT/best; return `figures`, the `best` step, and `stop`.

    What was said and scored before is not done again. Raises EvaluationError if nothing can be judged.
    """
    judged = _judge(output, checkpoint, step, settings, read_items(output / "panel" / "held" / "items.jsonl"))
    history = comparable(read_panels(output, until=step), judged)
    best = link_best(output, history)
    return {"figures": judged.figures, "best": best.step, "stop": reason_to_stop(history, settings)}


def judge_run(
    output: Path, items: Path | None = None, settings: Mapping[str, Any] | None = None, device: str = "auto"
) -> list[Judged]:
    """Judge every exported checkpoint of a training run and link the best one; return the panels, the earliest first.

    items: a JSONL list (default: the held-out items that the trainer wrote). settings: those of `validation.best` (default: the
    run's own). A checkpoint that cannot be judged is logged and left out. Raises EvaluationError without a checkpoint or a list, or
    if none can be judged.
    """
    settings = {**(_own_settings(output) if settings is None else settings), "device": device}
    path = items or output / "panel" / "held" / "items.jsonl"
    if not path.is_file():
        raise EvaluationError(f"no list of items at {path}; train with validation.best, or pass `items`")
    folders = sorted((output / "checkpoints").glob("step_*"))
    if not folders:
        raise EvaluationError(f"{output} has no checkpoint in {output / 'checkpoints'}; give the output of a training")
    found = read_items(path)
    judged: list[Judged] = []
    for folder in folders:
        try:
            judged.append(_judge(output, folder, int(folder.name.removeprefix("step_")), settings, found))
        except EvaluationError as error:
            if folder == folders[-1] and not judged:
                raise
            _LOG.warning("%s is not judged: %s", folder.name, error)
    link_best(output, comparable(read_panels(output), judged[-1]))
    return judged


def read_panels(output: Path, until: int | None = None) -> list[Judged]:
    """Return the panels of a run, of steps up to `until`, the earliest first."""
    found = []
    for path in sorted((output / "panel").glob("step_*/panel.json")):
        judged = Judged(**json.loads(path.read_text(encoding="utf-8")))
        if until is None or judged.step <= until:
            found.append(judged)
    return found


def comparable(panels: Sequence[Judged], like: Judged) -> list[Judged]:
    """Return the panels with the same items and metrics as `like`."""
    return [one for one in panels if one.costs.keys() == like.costs.keys() and one.measured_by == like.measured_by]


def link_best(output: Path, panels: Sequence[Judged]) -> Judged:
    """Point OUTPUT/best at the checkpoint with the lowest cost that still exists, in one rename; of equals, the earliest.

    Raises EvaluationError if no checkpoint exists.
    """
    there = [one for one in panels if (output / "checkpoints" / one.checkpoint).is_dir()]
    if not there:
        raise EvaluationError(f"{output}: no judged checkpoint exists any more; run the panel again")
    best = min(there, key=lambda one: (one.figures["cost"], one.step))
    link, draft = output / "best", output / ".best.tmp"
    with suppress(FileNotFoundError):
        draft.unlink()
    draft.symlink_to(Path("checkpoints") / best.checkpoint)
    draft.replace(link)
    return best


def reason_to_stop(panels: Sequence[Judged], settings: Mapping[str, Any]) -> str:
    """Return why a run may end, in one line; empty if it should continue.

    It may end if `patience` panels since the best one have not beaten it, and if the best one is not inferior to the last: the
    95 % interval of the paired difference excludes that the last is better by more than `margin`.
    """
    patience = settings.get("patience")
    if patience is None or not panels:
        return ""
    best = min(panels, key=lambda one: (one.figures["cost"], one.step))
    last, since = panels[-1], sum(one.step > best.step for one in panels)
    if since < patience:
        return ""
    change = mean_interval([last.costs[name] - best.costs[name] for name in sorted(best.costs)])
    margin = settings.get("margin", MARGIN)
    # Equal differences have no interval. Neither has a single item, of which nothing can be said: the run continues.
    low = change.value if change.low is None else change.low
    if change.items < 2 or low < -margin:
        return ""
    return (
        f"step {best.step} is the best by the panel (cost {best.figures['cost']:.4f}); {since} panels have not beaten it, and step"
        f" {last.step} is not better by more than {margin:g} (95 % confidence)"
    )


def _judge(output: Path, checkpoint: Path, step: int, settings: Mapping[str, Any], items: Sequence[Item]) -> Judged:
    weights = _weights(settings)
    with_reference = all(item.reference is not None for item in items)
    system = _open(checkpoint, "reference" if with_reference else "plain", str(settings.get("device", "auto")))
    folder = output / "panel" / f"step_{step:07d}"
    # The trainer has put its log beside the run.
    run_folder = folder / "run"
    try:
        # Without the path: a run that is moved is judged further. The digests tell one checkpoint from another.
        described = {name: value for name, value in system.describe().items() if name not in ("folder", "lora")}
        run = create_run(run_folder, {"system": described, "host": host()}, items, SEEDS)
        # A failure may have been the machine's: a checkpoint that is judged again is asked again.
        generate(run, system, again=RETRIED)
    finally:
        system.close()
    _check_spoken(run, items, checkpoint, folder)
    metrics = load_metrics(USED)
    scored = score(run, metrics)
    by_name = {metric.name: metric for metric in metrics}
    rows = {name: rows_of(run, by_name[name], by_name) for name in by_name if name not in scored.not_measured}
    if not rows.keys() & {"words_clean", "voice_ge2e"}:
        raise EvaluationError("; ".join(f"{name}: {why}" for name, why in scored.not_measured.items()))
    generated = run.generated.by_key()
    parts = {
        key: _parts(run.by_id[key[0]], row["status"], {name: found.get(key) for name, found in rows.items()})
        for key, row in generated.items()
        if key[0] in {item.id for item in items}
    }
    judged = Judged(
        step,
        checkpoint.name,
        _figures(parts, weights),
        {item_id: sum(weights[name] * value for name, value in found.items()) for (item_id, _), found in parts.items()},
        {name: fingerprint(by_name[name], by_name) for name in rows} | {"weights": json.dumps(weights, sort_keys=True)},
        scored.not_measured,
    )
    write_atomically(folder / "panel.json", json.dumps(asdict(judged), indent=1, ensure_ascii=False).encode())
    return judged


def _check_spoken(run: Run, items: Sequence[Item], checkpoint: Path, folder: Path) -> None:
    """Raise EvaluationError if more than half of the takes have an error or a time-out: that says more of the machine than of the
    checkpoint, and such a panel could end the training. A panel that was written of such takes before is removed."""
    ids = {item.id for item in items}
    takes = [row for (item_id, _), row in run.generated.by_key().items() if item_id in ids]
    failed = [row for row in takes if row["status"] in RETRIED]
    if 2 * len(failed) > len(takes):
        (folder / "panel.json").unlink(missing_ok=True)
        reason, count = Counter(str(row["error"]) for row in failed).most_common(1)[0]
        raise EvaluationError(
            f"{checkpoint.name}: {len(failed)} of {len(takes)} sentences could not be spoken ({reason}: {count}); free the device "
            "and judge it again: evaluation.panel.judge_run"
        )


def _parts(item: Item, status: str, rows: Mapping[str, Mapping[str, Any] | None]) -> dict[str, float]:
    """Return the parts of the cost of one take. A part is missing if it cannot be measured for this item in any checkpoint."""
    failed = status != "ok"
    found: dict[str, float] = {}
    words, voice, tempo = (rows.get(name) for name in ("words_clean", "voice_ge2e", "tempo"))
    if "words_clean" in rows and (failed or (words and words["cer"] is not None)):
        found["words"] = 1.0 if failed or not words else min(1.0, words["cer"])
    if "voice_ge2e" in rows and item.reference is not None:
        found["voice"] = 1.0 if failed or not voice or voice["cosine"] is None else 1.0 - voice["cosine"]
    found["stop"] = float(failed or any(tempo and tempo.get(fault) for fault in STOP_FAULTS))
    if "tempo" in rows:
        found["start"] = float(failed or bool(tempo and tempo.get("start_artifact")))
    return found


def _figures(parts: Mapping[Key, Mapping[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """Return means over the takes: the cost, and its parts without weights."""
    totals = [sum(weights[name] * value for name, value in found.items()) for found in parts.values()]
    figures = {"cost": sum(totals) / len(totals)}
    for name in PARTS:
        values = [found[name] for found in parts.values() if name in found]
        if values:
            figures[name] = sum(values) / len(values)
    return figures


def _weights(settings: Mapping[str, Any]) -> dict[str, float]:
    given = settings.get("weights") or {}
    for name in given:
        if name not in PARTS:
            raise EvaluationError(f"weights: no part {name!r} of the panel's cost; known: {', '.join(PARTS)}")
    return {**PARTS, **given}


def _open(checkpoint: Path, recipe: str, device: str) -> System:
    """Return the system of a checkpoint; of adapters, with the model that they were trained over."""
    options = {"recipe": recipe, "device": device, "retry": False}
    adapter = checkpoint / "lora_config.json"
    if adapter.is_file() and not (checkpoint / "config.json").is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model", "")
        return open_system(f"checkpoint:{base}", {**options, "lora": str(checkpoint)})
    return open_system(f"checkpoint:{checkpoint}", options)


def _own_settings(output: Path) -> dict[str, Any]:
    """Return `validation.best` of a run's train.yaml; {} if the run has none."""
    from catalogs.settings import read_yaml

    path = output / "train.yaml"
    validation = read_yaml(path).get("validation") if path.is_file() else None
    best = validation.get("best") if isinstance(validation, dict) else None
    return dict(best) if isinstance(best, dict) else {}
