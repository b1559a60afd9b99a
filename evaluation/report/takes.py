"""Takes in a page: players, with what was to be said and what was heard."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catalogs.report.charts import waveform_path
from catalogs.report.clips import Clip, encode_small, shape
from catalogs.report.spectrogram import spectrogram_png
from evaluation.items import Item
from evaluation.metrics.base import Take
from evaluation.report.worst import differences
from evaluation.runs.folder import Run
from evaluation.runs.rows import Key

LONGEST_S = 15.0


@dataclass
class Budget:
    """Bytes of audio that a page may still take, so that it is small enough for an e-mail."""

    left: int


@dataclass(frozen=True)
class Shown:
    """One take of an item in a run. `clip` is None for a take without audio, or if the page is full."""

    run: str
    clip: Clip | None
    status: str
    error: str
    figure: str
    words: list[tuple[str, str]] = field(default_factory=list)
    """Words that were to be said and that were heard, as (kind, words); empty without a transcript."""


def shown(
    run: Run,
    label: str,
    key: Key,
    figure: str,
    words: Mapping[str, Any] | None,
    generated: Mapping[Key, Mapping[str, Any]],
    budget: Budget,
) -> Shown | None:
    """Return a take for the page; None if the run does not have it.

    `label`: the run's name in the page. `words`: the take's row of `words_clean`.
    """
    row = generated.get(key)
    if row is None or key[0] not in run.by_id:
        return None
    compared = differences(words["wanted"].split(), words["heard"].split()) if words and words.get("wanted") else []
    there = row["audio"] and (run.root / row["audio"]).is_file()
    clip = _clip(run, run.by_id[key[0]], row, budget) if there else None
    return Shown(label, clip, row["status"], row["error"] or "", figure, compared)


def _clip(run: Run, item: Item, row: Mapping[str, Any], budget: Budget) -> Clip | None:
    take = Take(item, row["seed"], row["status"], run.root / row["audio"])
    audio = take.audio()[: round(LONGEST_S * take.rate)]
    kind, encoded = encode_small(audio, take.rate)
    picture = spectrogram_png(audio, take.rate)
    if len(encoded) + len(picture) > budget.left:
        return None
    budget.left -= len(encoded) + len(picture)
    return Clip(
        segment_id=item.name or item.id,
        source=f"data:{kind};base64,{base64.b64encode(encoded).decode()}",
        path=waveform_path(shape(audio)),
        picture=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        duration_s=row["seconds"] or 0.0,
        cut=(row["seconds"] or 0.0) > LONGEST_S + 0.01,
        text=item.text,
        language=item.language,
        speaker=item.groups.get("speaker", ""),
        facts="",
        reasons=[],
    )
