"""From choices to packed rows: tokens and lengths, before any audio is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil
from threading import RLock
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from catalogs.candidates.captions import COLUMNS
from trainer.config import Phase, TrainError
from trainer.data.candidates import Choice, spoken_text
from trainer.data.mixture import Draws, Mixture
from trainer.data.packing import Packer
from trainer.data.sample_counts import SampleCounts
from trainer.data.token_counts import TEXT_ONLY, token_counts
from trainer.sample_kinds import BY_LAYOUT

if TYPE_CHECKING:
    from voxcpm.config import VoxCPM2Config
    from voxcpm.sequence.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class Planned:
    """A choice with its tokens and length, before any audio is read. Rows are packed from these."""

    choice: Choice
    tokens: Sequence[int]
    patches: int
    reference_patches: int

    @property
    def length(self) -> int:
        """Number of positions: tokens, patches and the marks around them."""
        marks = 4 if self.reference_patches else 2
        return len(self.tokens) + self.patches + self.reference_patches + marks


class LateTokens(Sequence[int]):
    """Tokens whose number is known and that are encoded on access: only the rank that trains on a sample needs them."""

    def __init__(self, make: Callable[[], Sequence[int]], count: int, segment_id: str) -> None:
        self._make, self._count, self._segment = make, count, segment_id

    @cached_property
    def _made(self) -> tuple[int, ...]:
        tokens = tuple(self._make())
        if len(tokens) != self._count:
            raise TrainError(
                f"segment {self._segment} has {len(tokens)} tokens, {self._count} were counted: the cache of token counts is"
                " damaged; delete the folder candidates of the corpus (it is made again)"
            )
        return tokens

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self._made[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._made == tuple(other)

    def __hash__(self) -> int:
        return hash(self._made)


class Planner:
    """Computes tokens and lengths of choices."""

    def __init__(self, tokenizer: TextTokenizer, config: VoxCPM2Config) -> None:
        self._tokenizer = tokenizer
        self._patch, self._rate = config.patch_samples, config.sample_rate

    def plan(self, choice: Choice, tokens: int | None = None) -> Planned:
        """Plan one choice; its patches depend only on the durations of its clips. tokens: their number, if it is known."""
        candidate = choice.candidate
        kind = BY_LAYOUT[choice.layout]
        described = choice.description or candidate.caption_for(kind) if kind.description else None
        text = spoken_text(candidate.text, described)
        reference = next((s for i, s in candidate.references if i == choice.reference), 0.0)
        encode = partial(self._tokenizer.encode, text)
        return Planned(
            choice,
            tuple(encode()) if tokens is None else LateTokens(encode, tokens, candidate.segment_id),
            self.patches(candidate.seconds),
            self.patches(reference) if choice.reference else 0,
        )

    def patches(self, seconds: float) -> int:
        """Return the number of patches of a clip of this duration, with the last one padded."""
        return max(1, ceil(round(seconds * self._rate) / self._patch))

    def lengths(self, mixture: Mixture, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Return (int64 [N] tokens, int64 [N] positions) of a block of choices."""
        table, rows = mixture.candidates.table, draws.rows
        tokens = token_counts(table, self._tokenizer, TEXT_ONLY)[rows].astype(np.int64)
        for number, column in enumerate(COLUMNS):
            mine = draws.captions == number
            if mine.any():
                tokens[mine] = token_counts(table, self._tokenizer, column)[rows[mine]]
        found = tokens + self._all_patches(table.seconds[rows]) + 2
        has = draws.references >= 0
        found[has] += self._all_patches(table.seconds[draws.references[has]]) + 2
        return tokens, found

    def _all_patches(self, seconds: np.ndarray) -> np.ndarray:
        """Return int64 [N]: `patches` of each."""
        samples = np.rint(seconds * self._rate).astype(np.int64)
        return np.maximum(1, -(-samples // self._patch))


class Row(Sequence[Planned]):
    """The samples of a row; each becomes an object on access."""

    def __init__(self, numbers: Sequence[int], plan: Callable[[int], Planned]) -> None:
        """numbers: the choices' numbers. plan: returns the sample of one."""
        self.numbers, self._plan = numbers, plan

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Planned: ...
    @overload
    def __getitem__(self, index: slice) -> Row: ...
    def __getitem__(self, index: int | slice) -> Planned | Row:
        if isinstance(index, slice):
            return Row(self.numbers[index], self._plan)
        return self._plan(self.numbers[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class RowStream:
    """An endless stream of rows of planned samples. With `state` and `seek` a run resumes exactly where it was, at no cost.

    A sample longer than a row is not truncated but left out and recorded in `skipped`: segment id -> positions it needs.
    """

    def __init__(self, mixture: Mixture, planner: Planner, phase: Phase, skipped: dict[str, int]) -> None:
        self._mixture, self._planner = mixture, planner
        self._packer: Packer[int] = Packer(phase.max_positions)
        self._skipped = skipped
        self._next = 0
        self._block: tuple[int, list[int], list[int]] = 0, [], []
        self._lock = RLock()

    def state(self) -> dict[str, Any]:
        """Return the next choice's number and the numbers of the choices in open rows: all that later rows depend on."""
        return {"next": self._next, "open": self._packer.rows, "waited": self._packer.waited}

    def seek(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state` returned."""
        self._next = state["next"]
        filled = [sum(map(self._length, row)) for row in state["open"]]
        self._packer.reopen(state["open"], filled, state["waited"])

    def tally(self, rows: Sequence[Row]) -> SampleCounts:
        """Return the counts of the samples in rows."""
        with self._lock:
            return self._mixture.tally([number for row in rows for number in row.numbers])

    def __iter__(self) -> RowStream:
        return self

    def __next__(self) -> Row:
        """Return the next full row. Raises TrainError if 10,000 samples in a row, or those of ten epochs, are too long."""
        with self._lock:
            return Row(self._row(), self._planned)

    def _row(self) -> list[int]:
        in_a_row, positions, add = 0, self._packer.positions, self._packer.add
        while True:
            number = self._next
            first, _, lengths = self._sizes(number)
            self._next += 1
            length = lengths[number - first]
            if length <= positions:
                in_a_row = 0
                full = add(number, length)
                if full is not None:
                    return full
                continue
            draws = self._mixture.draws(number)
            self._skipped[self._mixture.candidates.table.ids[int(draws.rows[number - draws.first])]] = length
            in_a_row += 1
            if in_a_row >= min(10_000, 10 * self._mixture.epoch_samples):
                raise TrainError(
                    f"no sample fits a row of {positions} positions (the last needs {length}): raise max_positions of the phase"
                )

    def _length(self, number: int) -> int:
        first, _, lengths = self._sizes(number)
        return lengths[number - first]

    def _sizes(self, number: int) -> tuple[int, list[int], list[int]]:
        """Return (first number, tokens of each, positions of each) of the block that contains a choice."""
        first, tokens, _ = self._block
        if not 0 <= number - first < len(tokens):
            draws = self._mixture.draws(number)
            counted, lengths = self._planner.lengths(self._mixture, draws)
            self._block = draws.first, counted.tolist(), lengths.tolist()
        return self._block

    def _planned(self, index: int) -> Planned:
        # One thread may read rows while another one plans the next rows.
        with self._lock:
            choice = self._mixture.choice(index)
            first, tokens, _ = self._sizes(index)
        return self._planner.plan(choice, tokens[index - first])
