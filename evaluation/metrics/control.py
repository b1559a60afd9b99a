"""Control without a judge: whether an instruction moved what it asked for, measured against a neutral take.

The list `control` has the instructions. A take is compared with the neutral take of the same text, person and seed. Whether the
words are kept is measured by `words_clean`. Emotion and age are not scored: classifiers that run here are right in 13 to 37 % of
the cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from evaluation.metrics.base import Need, Plain, Take, Value
from evaluation.metrics.voice_measures import FIGURES, RATE, Measures, female_logit, measure, semitones

if TYPE_CHECKING:
    from pipeline.voice.encoders import SpeakerEncoder

MOVED = {"pitch": 1.0, "rate": 8.0, "energy": 1.5, "range": 1.0}
"""Change that counts as moved: pitch and its range in semitones, rate in percent, energy in dB."""
_CHANGES = ("pitch_change", "rate_change", "energy_change", "range_change")
_SHARES = ("right", "clear", "leak", "gender_right")


class Control(Plain):
    """Columns:

    The measures of the take (`evaluation.metrics.voice_measures`). `pitch_change` (semitones), `rate_change` (percent),
    `energy_change` (dB) and `range_change` (semitones): against the neutral take. `right`: 1 if the attribute that was asked for
    moved in the direction that was asked for; chance gives a half. `clear`: 1 if it moved so by more than MOVED. `leak`: share of
    the other attributes that moved by more than MOVED. `rank`: Spearman correlation of the asked levels with the measures, of all
    takes of an attribute, text and seed. `gender_right`: 1 if the voice is that of the person who was asked for (neutral takes).

    A take that failed has neither moved nor the right gender. A take whose neutral partner failed is not measurable.
    """

    name = "control"
    version = 1
    needs: frozenset[Need] = frozenset({"instruction"})
    weights: tuple[str, ...] = ("ge2e",)
    values: tuple[Value, ...] = (
        Value("right", "direction right", "%", "higher", None, None, 100.0, 1, 2.0),
        Value("clear", "clearly in the direction", "%", "higher", None, None, 100.0, 1, 2.0),
        Value("rank", "rank correlation of levels", "", "higher", None, None, 1.0, 2, 0.05),
        Value("leak", "other attributes moved", "%", "lower", None, None, 100.0, 1, 2.0),
        Value("gender_right", "gender right", "%", "higher", None, None, 100.0, 1, 2.0),
    )
    schema = pa.schema(
        [
            *(pa.field(name, pa.float64()) for name in (*FIGURES, "female_logit", *_CHANGES, *_SHARES, "rank")),
            pa.field("attribute", pa.string()),
            pa.field("level", pa.int32()),
        ]
    )

    def __init__(self) -> None:
        self._encoder: SpeakerEncoder | None = None

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"moved": MOVED}

    def load(self) -> None:
        """Load GE2E, for the gender. Raises WeightsMissing."""
        from pipeline.voice.encoders import load_encoder

        self._encoder = load_encoder("ge2e", "cpu")

    def group(self, take: Take) -> str | None:
        """Takes of one text, person and seed are compared."""
        pair = take.item.groups.get("pair")
        return None if pair is None else f"{pair}-{take.seed}"

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None for an item that is not of the control panel."""
        rows = [self._measured(take) for take in takes]
        neutral = next((row for row in rows if row is not None and row["attribute"] == "neutral"), None)
        for row, take in zip(rows, takes, strict=True):
            if row is not None and row["attribute"] != "neutral":
                _compare(row, neutral, failed=take.path is None)
        for attribute in MOVED:
            levels = [row for row in rows if row is not None and row["attribute"] == attribute]
            rank = _rank([row for row in (neutral, *levels) if row is not None], attribute)
            for row in levels:
                row["rank"] = rank
        return rows

    def _measured(self, take: Take) -> dict[str, Any] | None:
        groups = take.item.groups
        if not {"attribute", "level", "pair"} <= groups.keys():
            return None
        row: dict[str, Any] = {"attribute": groups["attribute"], "level": int(groups["level"])}
        person = groups.get("person") if row["attribute"] == "neutral" else None
        if take.path is None:
            return row | ({"gender_right": 0.0} if person else {})
        samples = take.audio(RATE)
        found = measure(samples, take.item.text)
        row |= vars(found)
        if person:
            row["female_logit"] = logit = self._logit(samples, found)
            row["gender_right"] = float(logit is not None and (logit > 0) == (person == "female"))
        return row

    def _logit(self, samples: np.ndarray, found: Measures) -> float | None:
        assert self._encoder is not None
        (prints,) = self._encoder.partials([samples])
        mean = prints.mean(axis=0)
        return female_logit(found, mean / max(float(np.linalg.norm(mean)), 1e-9))


def changes(row: Mapping[str, Any], neutral: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the changes of a take against a neutral one, by attribute, in the units of MOVED; None: not measurable."""
    pairs = {
        "pitch": ("pitch_hz", semitones),
        "rate": ("rate", lambda mine, other: 100 * (mine / other - 1)),
        "energy": ("level_lufs", lambda mine, other: mine - other),
        "range": ("range_st", lambda mine, other: mine - other),
    }
    return {
        name: None if row.get(column) is None or neutral.get(column) is None else change(row[column], neutral[column])
        for name, (column, change) in pairs.items()
    }


def _compare(row: dict[str, Any], neutral: Mapping[str, Any] | None, failed: bool) -> None:
    """Add the changes of a take, and what follows from them, to its row."""
    asked = row["attribute"]
    if failed:
        row |= {"right": 0.0, "clear": 0.0}
        return
    if neutral is None or neutral.get("level_lufs") is None or asked not in MOVED:
        return
    found = changes(row, neutral)
    row |= {f"{name}_change": change for name, change in found.items()}
    wanted = found.pop(asked)
    sign = 1 if row["level"] > 0 else -1
    # Speech whose pitch cannot be measured has not the pitch that was asked for.
    row["right"] = float(wanted is not None and wanted * sign > 0)
    row["clear"] = float(wanted is not None and wanted * sign > MOVED[asked])
    others = [abs(change) > MOVED[name] for name, change in found.items() if change is not None]
    row["leak"] = float(np.mean(others)) if others else None


def _rank(rows: Sequence[Mapping[str, Any]], attribute: str) -> float | None:
    """Return Spearman's correlation of levels and measures; None with fewer than three takes, 0 for equal measures."""
    column = {"pitch": "pitch_hz", "rate": "rate", "energy": "level_lufs", "range": "range_st"}[attribute]
    points = [(row["level"], row[column]) for row in rows if row.get(column) is not None]
    if len({level for level, _ in points}) < 3:
        return None
    levels, figures = (_ranks(np.array(values, dtype=np.float64)) for values in zip(*points, strict=True))
    if figures.std() == 0:
        return 0.0
    return float(np.corrcoef(levels, figures)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values, the mean rank for equal ones."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])
