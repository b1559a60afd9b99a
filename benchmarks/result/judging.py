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
from evaluation.runs.score import table_of

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
    words, margins = (table_of(run, by_name[name], by_name).by_key() for name in ("words_clean", "voice_margin"))
    return by_language(items, run.generated.by_key(), words, margins)


def by_language(
    items: Sequence[Item],
    takes: Mapping[Key, Mapping[str, Any]],
    words: Mapping[Key, Mapping[str, Any]],
    margins: Mapping[Key, Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
    """Return figures of takes by language. A take that failed, or of which nothing was heard, counts with all words wrong.

    `wer` is errors per word over all sentences. `own` and `others` are the mean likeness to the reference and to the references
    of the other voices.
    """
    languages = {item.id: item.language for item in items}
    lengths = {item.id: len(item.text.split()) for item in items}
    groups: dict[str, list[Key]] = defaultdict(list)
    for key in sorted(key for key in takes if key[0] in languages):
        groups[languages[key[0]]].append(key)
    found = {}
    for language, keys in groups.items():
        counted = [
            words[key] if key in words else {"word_errors": lengths[key[0]], "words": lengths[key[0]]} for key in keys
        ]
        total = sum(row["words"] for row in counted)
        found[language] = {
            "items": len(keys),
            "failed": sum(takes[key]["status"] != "ok" for key in keys),
            "words": total,
            "wer": sum(row["word_errors"] for row in counted) / max(total, 1),
        }
        voices = [margins[key] for key in keys if key in margins]
        if voices:
            found[language] |= {
                column: sum(row[column] for row in voices) / len(voices) for column in ("own", "others", "margin")
            }
    return found
