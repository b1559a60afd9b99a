"""What two runs have in common: items, seeds, and how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.results.figures import Figures
from evaluation.results.groups import ids, speakers
from evaluation.statistics.paired import Difference, judged, paired_differences
from evaluation.statistics.resampling import DRAWS


@dataclass(frozen=True)
class Pairs:
    """Two runs on the same items. `seeds`: those of an item that both have; of a system without seeds, its only one."""

    first: Figures
    second: Figures
    items: list[Item]
    only_first: list[Item]
    only_second: list[Item]

    def matrices(self, names: Sequence[str], items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Return float64 [N, C] of both runs: means over the seeds in common, in the unit of the table."""
        keys = ids(items)
        columns = []
        for name in names:
            first, second = self._seeds(name, keys)
            scale = self.first.series[name].value.scale
            columns.append(
                [self.first.matrix(name, keys, first) * scale, self.second.matrix(name, keys, second) * scale]
            )
        return np.stack([one for one, _ in columns], axis=1), np.stack([other for _, other in columns], axis=1)

    def differences(self, names: Sequence[str], items: Sequence[Item], draws: int = DRAWS) -> list[Difference | None]:
        """Return second minus first of each value, with verdicts corrected for their number (Holm)."""
        if not names or not items:
            return [None] * len(names)
        first, second = self.matrices(names, items)
        better = [self.first.series[name].value.better for name in names]
        return judged(paired_differences(first, second, better, speakers(items), draws=draws))

    def _seeds(self, name: str, keys: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Return the seeds of each item at which both have a figure: a take that failed must not spare its counterpart."""
        ours, theirs = self.first.series[name].figures, self.second.series[name].figures
        first, second = {}, {}
        for key in keys:
            a, b = self.first.seeds[key], self.second.seeds[key]
            both = tuple(seed for seed in a if seed in b)
            if both:
                both = tuple(seed for seed in both if (key, seed) in ours and (key, seed) in theirs)
                first[key], second[key] = both, both
            else:
                first[key], second[key] = a, b
        return first, second


def pairs(first: Figures, second: Figures) -> Pairs:
    """Return the items that two runs have in common. Raises EvaluationError if they were measured with different options."""
    options = [one.run.settings.get("metrics", {}) for one in (first, second)]
    if options[0] != options[1]:
        raise EvaluationError(
            f"{first.run.root} and {second.run.root} were measured with different options ({options[0]} and {options[1]}); "
            "score both alike: voxmill evaluate score RUN --metric-set NAME.OPTION=VALUE"
        )
    one, two = {item.id for item in first.items}, {item.id for item in second.items}
    if one != two:
        # A figure that depends on the other items of a run means another thing in another list.
        first, second = _without_relative(first), _without_relative(second)
    return Pairs(
        first,
        second,
        [item for item in first.items if item.id in two],
        [item for item in first.items if item.id not in two],
        [item for item in second.items if item.id not in one],
    )


def _without_relative(figures: Figures) -> Figures:
    return replace(figures, series={name: one for name, one in figures.series.items() if not one.value.relative})
