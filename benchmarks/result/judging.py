"""What is heard of a list: `voxmill evaluate` on people, on the codec and on checkpoints, and its figures by language."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.items import Item, read_items
from evaluation.metrics import load_metrics
from evaluation.run import evaluate
from evaluation.runs.folder import Run
from evaluation.runs.rows import Key
from evaluation.runs.score import rows_of
from evaluation.statistics.bootstrap import Estimate, mean_interval, ratio_interval

METRICS = ("transcript", "words_clean", "voice_ge2e", "voice_margin")
LISTS = ("held_out", "seen")
"""Sentences that nothing has heard, and some of the training's."""
SEEN = 12
"""Training sentences of a language that are judged."""
ON_THE_WAY = 8
"""Sentences of a language and list that all checkpoints but the last are judged on."""
CHECKPOINT: Mapping[str, Any] = {"recipe": "plain", "cfg": 2.0, "steps": 10, "retry": False}


def judge(
    work: Path, name: str, system: str, options: Mapping[str, Any] | None = None, most: int | None = None
) -> dict[str, Any]:
    """Let a system speak both lists, and return its figures by list and language. `most`: sentences of a list and language."""
    found: dict[str, Any] = {}
    for listed in LISTS:
        items = first(read_items(work / f"{listed}.jsonl"), most)
        run = evaluate(system, items, work / "runs" / f"{name}-{listed}", options, metrics=METRICS).run
        found[listed] = figures(run, items)
    return found


def first(items: Sequence[Item], most: int | None) -> list[Item]:
    """Return the first `most` items of each language; None: all."""
    counts: Counter[str] = Counter()
    chosen = []
    for item in items:
        counts[item.language] += 1
        if most is None or counts[item.language] <= most:
            chosen.append(item)
    return chosen


def judge_all(work: Path, shares: Sequence[float], most: int | None = None) -> dict[str, Any]:
    """Return the figures of people, of the codec, of every checkpoint, and of the last one on each part of the data.

    `most`: sentences of a list and language; None: all. Checkpoints before the last are judged on fewer.
    """
    from benchmarks.result.learning import checkpoints, give_decoder, share_name
    from benchmarks.result.recordings import write_seen

    on_the_way = ON_THE_WAY if most is None else max(1, most // 2)
    write_seen(work, SEEN, min(shares, default=1.0))
    found = {"human": judge(work, "human", "human", most=most)}
    found["codec"] = judge(work, "codec", f"codec:{codec_folder(work)}", most=most)

    for run in ("model", *map(share_name, shares)):
        give_decoder(work, run)
        made = checkpoints(work / run)
        for checkpoint in made if run == "model" else made[-1:]:
            found[f"{run}/{checkpoint.name}"] = judge(
                work,
                f"{run}-{checkpoint.name}",
                f"checkpoint:{checkpoint}",
                CHECKPOINT,
                most if checkpoint == made[-1] else on_the_way,
            )
    return {"figures": found}


def codec_folder(work: Path) -> Path:
    """Return the codec with the decoder that was trained longest."""
    return work / ("decoder" if (work / "decoder" / "audiovae.safetensors").is_file() else "codec")


def figures(run: Run, items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Return the figures of a run by language, over these items of it."""
    metrics = load_metrics(METRICS)
    by_name = {metric.name: metric for metric in metrics}
    words, margins = (rows_of(run, by_name[name], by_name) for name in ("words_clean", "voice_margin"))
    return by_language(items, run.generated.by_key(), words, margins)


def by_language(
    items: Sequence[Item],
    takes: Mapping[Key, Mapping[str, Any]],
    words: Mapping[Key, Mapping[str, Any]],
    margins: Mapping[Key, Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
    """Return figures of takes by language. A take that failed, or of which nothing was heard, counts with all words wrong.

    `wer` is errors per word over all sentences. `own` and `others` are the mean likeness to the reference and to the references
    of the other voices; they are left out if there is one voice. `_low` and `_high` are the ends of the 95 % intervals over
    sentences, left out if there are too few.
    """
    languages = {item.id: item.language for item in items}
    lengths = {item.id: len(item.text.split()) for item in items}
    groups: dict[str, list[Key]] = defaultdict(list)
    for key in sorted(key for key in takes if key[0] in languages):
        groups[languages[key[0]]].append(key)
    found = {}
    for language, keys in groups.items():
        rows = [words.get(key) for key in keys]
        errors = [
            row["word_errors"] if row and row["words"] is not None else lengths[key[0]]
            for row, key in zip(rows, keys, strict=True)
        ]
        spoken = [
            row["words"] if row and row["words"] is not None else lengths[key[0]]
            for row, key in zip(rows, keys, strict=True)
        ]
        found[language] = {
            "items": len(keys),
            "failed": sum(takes[key]["status"] != "ok" for key in keys),
            "words": sum(spoken),
            "wer": sum(errors) / max(sum(spoken), 1),
        }
        if sum(spoken):
            found[language] |= _ends("wer", ratio_interval(errors, spoken))
        voices = [row for row in (margins.get(key) for key in keys) if row and row["margin"] is not None]
        if voices:
            for column in ("own", "others", "margin"):
                values = [row[column] for row in voices]
                found[language][column] = sum(values) / len(values)
            found[language] |= _ends("margin", mean_interval([row["margin"] for row in voices]))
    return found


def _ends(name: str, estimate: Estimate) -> dict[str, float]:
    if estimate.low is None or estimate.high is None:
        return {}
    return {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
