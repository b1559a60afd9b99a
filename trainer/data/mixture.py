"""The choice of segments and layouts in training: a function of the seed and the position only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np

from catalogs.candidates.captions import CAPTIONS
from catalogs.candidates.table import MADE
from trainer.config import Phase
from trainer.data.candidates import Candidate, Candidates, Choice
from trainer.data.caption_draws import CaptionDraws
from trainer.data.holdout import data_key, describe_candidates, find_candidates, hold_out
from trainer.data.quotas import Quotas, limited
from trainer.data.sample_counts import SampleCounts, caption_key
from trainer.data.shuffle import Pools
from trainer.runtime.seeds import below, hash_number, random_bits, stream_key, uniform
from trainer.sample_kinds import SAMPLE_KINDS, SampleKind

__all__ = [
    "Candidate", "Choice", "Draws", "Mixture", "data_key", "describe_candidates", "find_candidates",
    "hash_number", "hold_out", "rough_positions",
]  # fmt: skip

PATCH_SECONDS = 0.16
"""Seconds per patch of the published model; used only for estimates."""

_MEASURED = 10_000
"""Number of segments per layout whose lengths are used to estimate the samples of a ramp."""
BLOCK = 4096
"""Number of choices that are drawn at once."""
_BLOCKS_KEPT = 32
"""Number of blocks in memory, 170 kB each: enough for a step of a thousand rows, so that planning and counting draw only once."""


@dataclass(frozen=True)
class Draws:
    """Choices first .. first + N - 1 as arrays."""

    first: int
    kinds: np.ndarray
    """int64 [N]: indices into the mixture's `shares.kinds`."""
    rows: np.ndarray
    """int64 [N]: rows of the candidate table."""
    references: np.ndarray
    """int64 [N]: rows of the references; -1 if the layout has none."""
    captions: np.ndarray
    """int8 [N]: indices of the descriptions in CAPTIONS; -1 if the layout has none."""
    seeds: np.ndarray
    """uint64 [N]"""


class Mixture:
    """An endless stream of choices for one phase; choice i depends only on (seed, phase, candidates, i).

    Choice i draws its layout by weight among the layouts that any segment can serve. It then takes the next segment in the
    shuffled order of that layout (`Pools`). So a layout has the share that was asked for even if few segments can serve it. These
    segments are then used more often, up to `max_repeats` times per pass over all segments. Beyond this the layout's share is
    limited, and `notes` reports it. The same rule holds for a language within a layout.

    Within each layout, languages are drawn in proportion to their hours of audio to the power of `language_temperature`, times
    `language_weights`.
    """

    def __init__(self, candidates: Sequence[Candidate], phase: Phase, name: str, seed: int) -> None:
        """Raises TrainError if no segment can serve a layout that is asked for."""
        self._phase, self._name = phase, name
        names = ("seed", "kind", "reference")
        self._bits, self._kind_bits, self._reference_bits = (stream_key(seed, name, n) for n in names)
        self._language_weights = phase.language_weights or {}
        self.candidates, masks = self._used(Candidates.of(candidates))
        members = self._members(masks)
        able = {kind: sum(map(len, found.values())) for kind, found in members.items()}
        self.shares = Quotas(phase, name, able, len(self.candidates))
        if phase.layouts_from is not None:
            self.shares.ramp = self._ramp([members[kind] for kind in self.shares.kinds])
        self._pools = Pools(
            [(seed, name, SAMPLE_KINDS.index(kind)) for kind in self.shares.kinds],
            [list(members[kind].values()) for kind in self.shares.kinds],
            [self._language_shares(number, members[kind]) for number, kind in enumerate(self.shares.kinds)],
        )
        self.captions = CaptionDraws(phase, name, seed, self.shares.kinds)
        self._referenced = np.array([kind.reference for kind in self.shares.kinds])
        self._lock = Lock()
        self._before = [np.zeros(len(self.shares.kinds), dtype=np.int64)]
        self._block = lru_cache(_BLOCKS_KEPT)(self._draw)

    @property
    def epoch_samples(self) -> int:
        """Number of choices of one epoch: the number of segments to choose from, whatever their layouts."""
        return len(self.candidates)

    def estimated_epochs(self, steps: int) -> float:
        """Estimate the epochs of this number of steps from the lengths of some of the segments."""
        some = self.candidates[:: 1 + len(self.candidates) // _MEASURED]
        masks, length = some.kinds(), 0.0
        for kind, share in zip(self.shares.kinds, self.shares.last, strict=True):
            able = some.rows[(masks >> np.uint16(SAMPLE_KINDS.index(kind))) & np.uint16(1) != 0]
            # Rare kinds may be missing among these: they count little.
            length += float(share) * float(rough_positions(some, able, kind).mean() if len(able) else 0.0)
        positions = steps * self._phase.rows * self._phase.accumulate * self._phase.max_positions
        return positions / max(length, 1.0) / self.epoch_samples

    def repetition_warning(self, epochs: float, bound: float | None) -> str | None:
        """Return a line if the phase passes over its segments more often than `bound`; None if it does not, or without a bound."""
        if bound is None or epochs <= bound:
            return None
        hours = float(self.candidates.seconds.sum()) / 3600
        return (
            f"phase {self._name}: about {epochs:,.0f} passes over its {len(self.candidates):,} segments ({hours:.3g} h), more than"
            f" data.warn_epochs={bound:g}: the model memorizes them. Lower phases.{self._name}.steps or add recordings; if it is"
            " meant, set data.warn_epochs=null"
        )

    def rounds(self, layouts: Mapping[str, int]) -> dict[str, float]:
        """Return how many times, on average, each segment that can serve a layout was taken in it. layouts: samples by layout."""
        return {layout: count / max(1, self.shares.able(layout)) for layout, count in layouts.items()}

    def notes(self) -> list[str]:
        """Return lines on settings that the data cannot fulfill, and on the ramp."""
        there = set(self.candidates.languages)
        absent = sorted(language for language in self._language_weights if language not in there)
        missing = f"phase {self._name}: language_weights: there is nothing to train on in {', '.join(absent)}"
        return self.shares.notes() + ([missing] if absent else [])

    def choice(self, index: int) -> Choice:
        """Return choice number `index`, from 0. It is fast if indices increase; the first call takes one second per hundred million
        choices before it."""
        draws = self.draws(index)
        at = index - draws.first
        candidate = self.candidates.at(int(draws.rows[at]))
        kind = self.shares.kinds[int(draws.kinds[at])]
        reference, caption = int(draws.references[at]), int(draws.captions[at])
        description = candidate.caption(caption) if caption >= 0 else None
        named = self.candidates.table.ids[reference] if reference >= 0 else None
        return Choice(index, candidate, kind.layout, named, int(draws.seeds[at]), description, caption)

    def draws(self, index: int) -> Draws:
        """Return the block of choices that contains this one."""
        return self._block(index // BLOCK)

    def tally(self, indices: Sequence[int]) -> SampleCounts:
        """Return the counts of these choices."""
        realised = SampleCounts()
        places = np.asarray(indices, dtype=np.int64)
        for block in np.unique(places // BLOCK).tolist():
            draws = self.draws(block * BLOCK)
            at = places[places // BLOCK == block] - draws.first
            realised.add(self._tallied(draws.kinds[at], draws.rows[at], draws.captions[at]))
        return realised

    def __iter__(self) -> Iterator[Choice]:
        index = 0
        while True:
            yield self.choice(index)
            index += 1

    def _tallied(self, kinds: np.ndarray, rows: np.ndarray, captions: np.ndarray) -> SampleCounts:
        table = self.candidates.table
        layouts: dict[str, int] = {}
        for kind, count in zip(self.shares.kinds, np.bincount(kinds).tolist(), strict=False):
            if count:
                layouts[kind.layout] = layouts.get(kind.layout, 0) + count
        counts = enumerate(np.bincount(table.language[rows]).tolist())
        return SampleCounts(
            layouts,
            {table.languages[code]: count for code, count in counts if count},
            float(table.seconds[rows].sum()),
            int(((table.flags[rows] & MADE) != 0).sum()),
            self._tallied_captions(kinds, rows, captions),
        )

    def _tallied_captions(self, kinds: np.ndarray, rows: np.ndarray, captions: np.ndarray) -> dict[str, int]:
        table = self.candidates.table
        chinese = table.is_chinese[table.language[rows]]
        codes = (kinds * len(CAPTIONS) + captions) * 2 + chinese
        found: dict[str, int] = {}
        for code, count in zip(*np.unique(codes[captions >= 0], return_counts=True), strict=True):
            kind, caption = divmod(int(code) // 2, len(CAPTIONS))
            key = caption_key(self.shares.kinds[kind].layout, caption, bool(code % 2))
            found[key] = found.get(key, 0) + int(count)
        return found

    def _used(self, candidates: Candidates) -> tuple[Candidates, np.ndarray]:
        """Return the candidates that the phase can use, and uint16 [N]: the kinds of the phase that each can serve, as bits."""
        phase = self._phase
        weights = [one.model_dump() for one in (phase.layouts, phase.layouts_from) if one is not None]
        used = sum(
            1 << bit
            for bit, kind in enumerate(SAMPLE_KINDS)
            if any(one[kind.layout] > 0 for one in weights) and (phase.decoupled > 0 or not kind.decoupled)
        )
        masks = candidates.kinds() & np.uint16(used)
        factors = np.array([self._language_weights.get(name, 1.0) for name in candidates.table.languages])
        wanted = (masks != 0) & (factors[candidates.table.language[candidates.rows]] > 0)
        return candidates.where(wanted), masks[wanted]

    def _members(self, masks: np.ndarray) -> dict[SampleKind, dict[str, np.ndarray]]:
        """Return the rows (int32) of the segments of each kind, by language."""
        table, rows = self.candidates.table, self.candidates.rows
        codes = table.language[rows]
        found: dict[SampleKind, dict[str, np.ndarray]] = {}
        for bit, kind in enumerate(SAMPLE_KINDS):
            able = (masks >> np.uint16(bit)) & np.uint16(1) != 0
            mine, languages = rows[able], codes[able]
            names = sorted((table.languages[code], code) for code in np.unique(languages).tolist())
            found[kind] = {name: mine[languages == code] for name, code in names}
        return found

    def _language_shares(self, number: int, members: dict[str, np.ndarray]) -> np.ndarray:
        """Return float64 [languages]: the languages' shares of a kind."""
        counts = np.array([len(found) for found in members.values()], dtype=float)
        seconds = np.array([self.candidates.table.seconds[found].sum() for found in members.values()])
        weights = np.array([self._language_weights.get(language, 1.0) for language in members])
        # Shares of the audio are hours ** temperature; in samples, by the language's mean length.
        asked = weights * counts * (seconds / seconds.sum()) ** (self._phase.language_temperature - 1)
        share = max(float(self.shares.first[number]), float(self.shares.last[number]), 1e-9)
        room = self._phase.max_repeats * counts / (len(self.candidates) * share)
        return limited(asked, room)

    def _draw(self, block: int) -> Draws:
        kinds, numbers = self._draw_kinds(block)
        first = block * BLOCK
        places = np.arange(first, first + BLOCK)
        rows = self._pools.draw(kinds, numbers).astype(np.int64)
        pairs = self.candidates.pairs
        counts = np.where(self._referenced[kinds], pairs.counts(rows), 0)
        bits = random_bits(self._reference_bits, places)
        picked = pairs.at[rows] + below(bits, counts)
        references = np.full(BLOCK, -1, dtype=np.int64)
        has = counts > 0
        references[has] = pairs.rows[picked[has]]
        seeds = random_bits(self._bits, places)
        captions = self.captions.draw(self.candidates.table, rows, kinds, places)
        return Draws(first, kinds, rows, references, captions, seeds >> np.uint64(2))

    def _draw_kinds(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return two arrays int64 [BLOCK]: the kind of each choice, and the choice's number among those of its kind."""
        # One thread may count what was drawn while another one plans.
        with self._lock:
            while len(self._before) <= block:
                kinds = self._kinds(len(self._before) - 1)
                self._before.append(self._before[-1] + np.bincount(kinds, minlength=len(self.shares.kinds)))
        kinds = self._kinds(block)
        numbers = np.zeros(BLOCK, dtype=np.int64)
        for kind, before in enumerate(self._before[block]):
            mine = kinds == kind
            numbers[mine] = before + np.arange(int(mine.sum()))
        return kinds, numbers

    def _kinds(self, block: int) -> np.ndarray:
        places = np.arange(block * BLOCK, (block + 1) * BLOCK)
        drawn = uniform(random_bits(self._kind_bits, places))
        edges = np.cumsum(self.shares.at(block * BLOCK, BLOCK), axis=1)
        # Divided by the last edge, so that rounding does not leave room at the end for a kind without a share.
        return np.asarray((drawn[:, None] >= (edges / edges[:, -1:])[:, :-1]).sum(axis=1))

    def _ramp(self, members: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Estimate the number of choices over which the weights change: a share of those that fit into the phase's positions."""
        phase = self._phase
        lengths = []
        for kind, found in zip(self.shares.kinds, members, strict=True):
            rows = np.concatenate(list(found.values()))
            lengths.append(float(rough_positions(self.candidates, rows[:: 1 + len(rows) // _MEASURED], kind).mean()))
        positions = phase.steps * phase.rows * phase.accumulate * phase.max_positions
        return max(1, round(phase.ramp * positions / float(np.dot(self.shares.last, lengths))))


def rough_positions(candidates: Candidates, rows: np.ndarray, kind: SampleKind) -> np.ndarray:
    """Estimate the positions of samples without a tokenizer: float64 [N], for three bytes per token and the published model's
    patches."""
    table = candidates.table
    found = 4 + table.texts.sizes(rows) / 3 + table.seconds[rows] / PATCH_SECONDS
    if kind.description:
        found = found + table.full.sizes(rows) / 3
    if kind.reference:
        counts = candidates.pairs.counts(rows)
        ends = np.concatenate(([0.0], np.cumsum(table.seconds[candidates.pairs.of(rows)])))[np.cumsum([0, *counts])]
        found = found + np.diff(ends) / counts / PATCH_SECONDS
    return np.asarray(found)
