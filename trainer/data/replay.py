"""What was drawn, computed again from positions: the order of the data depends on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from trainer.config import Phase
from trainer.data.mixture import Mixture
from trainer.data.rows import Planner, RowStream

_SAMPLES = 1 << 16
"""Number of samples that are yielded together."""


def replay(
    mixture: Mixture, planner: Planner, phase: Phase, steps: range, start: dict[str, Any] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Yield (numbers of choices, steps that drew them, position after them) of some steps of a phase, a part at a time: the
    arrays are int64 [N].

    steps: numbered from 1 over all phases. start: the position before the first of them; None: the start of the phase. No audio
    is read. `phase` must have the rows per step that the run had.
    """
    rows = RowStream(mixture, planner, phase, {})
    if start is not None:
        rows.seek(start)
    numbers: list[int] = []
    of: list[int] = []
    for step in steps:
        for row in islice(rows, phase.rows * phase.accumulate):
            numbers += row.numbers
            of += [step] * len(row.numbers)
        if len(numbers) >= _SAMPLES or step == steps[-1]:
            yield np.array(numbers, dtype=np.int64), np.array(of, dtype=np.int64), rows.state()
            numbers, of = [], []
