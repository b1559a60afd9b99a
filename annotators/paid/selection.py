"""Choose which clips a paid annotator describes: those expressive for their voice, some neutral ones, rare ages always.

The order depends on the clips alone, never on the budget. More money extends what was chosen and reshuffles nothing.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from annotators.experts.emotion import LEAST_P, PER_SEMITONE
from annotators.paid.clips import Chosen
from annotators.schema import KeptRows

COLUMNS = ("segment_id", "speaker", "language", "expressive_p", "pitch_hz", "effort_db", "age")
_RARE_AGES = ("child", "senior")
_NEUTRAL = 0.5
"""Rank within the language below which a clip counts as neutral."""


@dataclass(frozen=True)
class Selection:
    """What to select. Shares are of all kept clips."""

    expressive: float = 0.3
    """Share of the most expressive clips of each language."""
    neutral: float = 0.1
    """Share of clips drawn among the less expressive half of each language."""
    rare_ages: int = 2000
    """Most clips of children and of old people, each."""
    per_speaker: int = 200
    """Most clips of one voice."""
    rest: bool = False
    """Whether the other clips follow in the order, so that it holds every kept clip."""

    def __post_init__(self) -> None:
        if not (0 <= self.expressive <= 1 and 0 <= self.neutral <= 1 and self.expressive + self.neutral <= 1):
            raise ValueError(
                f"selection: expressive {self.expressive} and neutral {self.neutral} are not shares; their sum is at most 1"
            )
        if self.rare_ages < 0 or self.per_speaker < 1:
            raise ValueError("selection: rare_ages is at least 0 and per_speaker at least 1")


class Order:
    """The selected clips, in the order in which money is spent on them. It holds 8 bytes for each."""

    def __init__(self, keys: np.ndarray, kept: int) -> None:
        """keys: `_key` of the clips, uint64 [N]. kept: how many were chosen from."""
        self._keys, self.kept = keys, kept

    def __len__(self) -> int:
        return len(self._keys)

    def first(self, count: int | None = None) -> Chosen:
        """Return a filter that keeps the first `count` clips of the order (default: all)."""
        chosen = np.sort(self._keys[: len(self._keys) if count is None else max(count, 0)])

        def keep(table: pa.Table) -> pa.Table:
            keys = np.array([_key(segment) for segment in table.column("segment_id").to_pylist()], dtype=np.uint64)
            return table.filter(pa.array(np.isin(keys, chosen), pa.bool_()))

        return keep

    def position(self, segment_id: str) -> int | None:
        """Return the place of a clip in the order; None if it is not selected."""
        places = np.flatnonzero(self._keys == np.uint64(_key(segment_id)))
        return int(places[0]) if len(places) else None


def order(kept: KeptRows, selection: Selection = Selection()) -> Order:
    """Return the selected clips of a corpus in order. Memory: 40 bytes for each kept clip.

    Any prefix is balanced: streams (expressive, neutral, rare ages) advance in proportion to their sizes, strata (language and
    guessed quadrant of expressiveness and effort) take turns, and so do the voices in a stratum.
    """
    rows = _Rows(kept)
    if not len(rows.keys):
        return Order(rows.keys, 0)
    rank = _rank_within(rows.language, rows.expressive, rows.keys)
    loud = _rank_within(rows.language, rows.effort, rows.keys) >= _NEUTRAL
    measured = ~np.isnan(rows.expressive)
    chance = _shuffled(rows.keys)
    lively = measured & (rank >= 1 - selection.expressive)
    calm = _lowest(chance, measured & ~lively & (rank < _NEUTRAL), round(selection.neutral * len(rows.keys)))
    rare = np.zeros(len(rows.keys), dtype=bool)
    for age in range(1, len(_RARE_AGES) + 1):
        rare |= _lowest(chance, rows.age == age, selection.rare_ages)
    if not measured.any():
        # Without the measure, as many are drawn by chance.
        calm = _lowest(chance, ~measured, math.ceil((selection.expressive + selection.neutral) * len(rows.keys)))
    quadrant = rows.language * 4 + 2 * (rank >= 1 - selection.expressive / 2) + loud
    streams = [
        _turns(np.flatnonzero(rare), rows, rows.age * 4096 + rows.language, chance),
        _turns(np.flatnonzero(lively & ~rare), rows, quadrant, -rank),
        _turns(np.flatnonzero(calm & ~rare), rows, quadrant, chance),
    ]
    merged = _merged(streams)
    turn = _nth_of(rows.speaker[merged])
    unknown = rows.speaker[merged] == 0
    places = merged[unknown | (turn < selection.per_speaker)]
    if selection.rest:
        others = np.setdiff1d(np.arange(len(rows.keys)), places)
        places = np.concatenate([places, _turns(others, rows, quadrant, chance)])
    return Order(rows.keys[places], len(rows.keys))


class _Rows:
    """The columns of all kept clips as numbers."""

    def __init__(self, kept: KeptRows) -> None:
        parts: list[tuple[np.ndarray, ...]] = []
        self._languages: dict[str | None, int] = {}
        for table in kept(COLUMNS):
            parts.append(self._numbers(table))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.zeros(0)] * 7
        # Every sort below ends with the key: the order in which units were committed does not matter.
        self.keys, self.speaker = columns[0].astype(np.uint64), columns[1].astype(np.uint64)
        self.language, self.age = columns[2].astype(np.int64), columns[6].astype(np.int64)
        self.expressive, self.effort = _scores(columns[3], columns[4], self.speaker), columns[5]

    def _numbers(self, table: pa.Table) -> tuple[np.ndarray, ...]:
        ages = {age: n + 1 for n, age in enumerate(_RARE_AGES)}
        texts = {name: table.column(name).to_pylist() for name in ("segment_id", "speaker", "language", "age")}
        numbers = [
            table.column(name).to_numpy(zero_copy_only=False).astype(np.float32)
            for name in ("expressive_p", "pitch_hz", "effort_db")
        ]
        return (
            np.array([_key(segment) for segment in texts["segment_id"]], dtype=np.uint64),
            np.array([_key(speaker) if speaker else 0 for speaker in texts["speaker"]], dtype=np.uint64),
            np.array([_language(language) for language in texts["language"]], dtype=np.int64),
            *numbers,
            np.array([ages.get(age, 0) for age in texts["age"]], dtype=np.int8),
        )


def _scores(expressive: np.ndarray, pitch: np.ndarray, speaker: np.ndarray) -> np.ndarray:
    """Return `annotators.experts.emotion.expressive_score` of all clips: float64 [N], NaN if it was not measured."""
    share = expressive.astype(np.float64)
    scores = np.log(np.maximum(share, LEAST_P) / np.maximum(1 - share, LEAST_P))
    voiced = np.flatnonzero((speaker != 0) & (pitch > 0))
    voiced = voiced[np.lexsort((pitch[voiced], speaker[voiced]))]
    starts, counts = _runs(speaker[voiced])
    pitches = pitch[voiced].astype(np.float64)
    # The lower quartile of each voice, between two of its pitches.
    places = (counts - 1) / 4
    below = starts + places.astype(np.int64)
    above = np.minimum(below + 1, starts + np.maximum(counts, 1) - 1)
    rest = pitches[below] + (places - places.astype(np.int64)) * (pitches[above] - pitches[below])
    raised = PER_SEMITONE * 12 * np.log2(pitches / np.repeat(rest, counts))
    scores[voiced] += np.where(np.repeat(counts, counts) >= 2, raised, 0.0)
    return scores


def _key(text: str) -> int:
    """Return a number for a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _language(language: str | None) -> int:
    """Return a number below 4096 for a language. Two that share one share a stratum, which does no harm."""
    return _key(language) % 4096 if language else 0


def _shuffled(keys: np.ndarray) -> np.ndarray:
    """Return a number for each key that has nothing to do with its order: float64 [N] in 0-1."""
    mixed = (keys ^ (keys >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(29))).astype(np.float64) / 2.0**64


def _rank_within(group: np.ndarray, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the rank of each value within its group, 0-1, equal values by their keys; -1 if it was not measured."""
    ranks = np.full(len(values), -1.0)
    order = np.lexsort((keys, values, group))
    order = order[~np.isnan(values[order])]
    starts, counts = _runs(group[order])
    within = np.arange(len(order)) - np.repeat(starts, counts)
    ranks[order] = (within + 0.5) / np.repeat(np.maximum(counts, 1), counts)
    return ranks


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and lengths of the runs of equal values."""
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=int)
    return starts, np.diff(np.r_[starts, len(ordered)])


def _lowest(chance: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Return a mask of the `count` members with the lowest numbers."""
    members = np.flatnonzero(among)
    mask = np.zeros(len(chance), dtype=bool)
    mask[members[np.argsort(chance[members], kind="stable")[:count]]] = True
    return mask


def _turns(members: np.ndarray, rows: _Rows, stratum: np.ndarray, preference: np.ndarray) -> np.ndarray:
    """Return the members in turns: strata one after the other, in each the voices, in each voice the preferred clip first."""
    if not len(members):
        return members
    members = members[np.lexsort((rows.keys[members], preference[members]))]
    # Clips without a voice are each their own.
    voice = np.where(rows.speaker[members] == 0, rows.keys[members], rows.speaker[members])
    turn = _nth_of(voice ^ (stratum[members].astype(np.uint64) << np.uint64(40)))
    members = members[np.lexsort((np.arange(len(members)), turn, stratum[members]))]
    place = _nth_of(stratum[members])
    return members[np.lexsort((stratum[members], place))]


def _nth_of(groups: np.ndarray) -> np.ndarray:
    """Return how many of the same group stand before each element."""
    order = np.argsort(groups, kind="stable")
    starts, counts = _runs(groups[order])
    found = np.empty(len(groups), dtype=np.int64)
    found[order] = np.arange(len(groups)) - np.repeat(starts, counts)
    return found


def _merged(streams: list[np.ndarray]) -> np.ndarray:
    """Return the streams as one, each advancing in proportion to its length."""
    places = [(np.arange(len(stream)) + 0.5) / max(len(stream), 1) for stream in streams]
    which = np.concatenate([np.full(len(stream), n) for n, stream in enumerate(streams)])
    merged = np.concatenate(streams)[np.lexsort((which, np.concatenate(places)))]
    return np.asarray(merged, dtype=np.int64)
