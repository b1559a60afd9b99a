"""The division of a phase's samples among the layouts: as the weights ask for, within the limits of the data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainer.config import LayoutWeights, Phase, TrainError
from trainer.sample_kinds import BY_LAYOUT, DECOUPLED, LAYOUTS, SAMPLE_KINDS, SampleKind


def limited(asked: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return float64 [N] shares that add up to 1, in proportion to `asked` but none above its `room`.

    asked: weights of at least 0, one of them above 0. room: the maximum share of each. The excess goes to the others in
    proportion to their weights. If their total room is below 1, the shares are in proportion to the room, since something has to be
    drawn. Raises ValueError if nothing that is asked for has room.
    """
    wants = (asked > 0) & (room > 0)
    if not wants.any():
        raise ValueError("nothing that is asked for has any room")
    shares = np.zeros(len(asked))
    full = np.zeros(len(asked), dtype=bool)
    while True:
        free = wants & ~full
        shares[full] = room[full]
        shares[free] = asked[free] / asked[free].sum() * (1.0 - shares[full].sum())
        over = free & (shares > room)
        if not over.any():
            return shares / shares.sum()
        full |= over


class Quotas:
    """The share of each kind at each choice of a phase, interpolated linearly from `first` to `last` over `ramp` choices."""

    def __init__(self, phase: Phase, name: str, able: Mapping[SampleKind, int], segments: int) -> None:
        """able: number of segments of each kind. segments: number of all segments. Raises TrainError if no segment can serve any
        layout that is asked for."""
        self._phase, self._name, self._able, self._segments = phase, name, able, segments
        last = layout_weights(phase.layouts)
        first = last if phase.layouts_from is None else layout_weights(phase.layouts_from)
        self._asked = first / max(first.sum(), 1e-9), last / max(last.sum(), 1e-9)
        self.kinds = [kind for kind in SAMPLE_KINDS if able.get(kind)]
        """The kinds that at least one segment can serve."""
        self.first, self.last = self._limited(first), self._limited(last)
        """float64 [kinds]"""
        self.ramp = 0

    def able(self, layout: str) -> int:
        """Return the number of segments that can serve a layout."""
        return sum(count for kind, count in self._able.items() if kind.layout == layout)

    def at(self, start: int, count: int) -> np.ndarray:
        """Return float64 [count or 1, kinds]: the shares at choices start..start + count - 1; one row if they are all equal."""
        if start >= self.ramp:
            return self.last[None]
        done = np.minimum(1.0, (start + np.arange(count)) / self.ramp)
        return np.asarray(self.first + done[:, None] * (self.last - self.first))

    def asked(self, count: int) -> dict[str, float]:
        """Return the requested shares of the layouts, over the first `count` choices."""
        return self._over(count, *self._asked)

    def expected(self, count: int) -> dict[str, float]:
        """Return the shares that the layouts get within the limits of the data, over the first `count` choices."""
        return self._over(count, self._by_layout(self.first), self._by_layout(self.last))

    @property
    def decoupled(self) -> float:
        """Share of the content-decoupled samples within their layout, at the end of the ramp."""
        both = {
            kind: share for kind, share in zip(self.kinds, self.last, strict=True) if kind.layout == DECOUPLED.layout
        }
        return float(both.get(DECOUPLED, 0.0) / max(sum(both.values()), 1e-9))

    def notes(self) -> list[str]:
        """Return lines on settings that the data cannot fulfill, and on the ramp."""
        found = []
        for number, layout in enumerate(LAYOUTS):
            asked = max(shares[number] for shares in self._asked)
            gets = max(self._by_layout(shares)[number] for shares in (self.first, self.last))
            if asked and not self.able(layout):
                found.append(f"{layout} is asked for, and no segment can serve it: the others share its {asked:.1%}")
            elif gets < 0.99 * asked:
                found.append(
                    f"{layout} is asked for at {asked:.1%} and gets {gets:.1%}: {self.able(layout)} segments can serve it, and"
                    f" none is taken in it more than {self._phase.max_repeats:g} times per pass over all (max_repeats)"
                )
        split = max(shares[LAYOUTS.index(DECOUPLED.layout)] for shares in self._asked)
        if self._phase.decoupled and split and not self._able.get(DECOUPLED):
            found.append(
                "decoupled is asked for, but the corpora have no accepted content-decoupled samples:"
                f" {DECOUPLED.layout} ones are recordings"
            )
        if self.ramp:
            found.append(f"weights go from layouts_from to layouts over the first {self.ramp:,} samples")
        return [f"phase {self._name}: {line}" for line in found]

    def _limited(self, weights: np.ndarray) -> np.ndarray:
        """Return float64 [kinds]: the share of each kind for these weights of the layouts."""
        most = self._phase.max_repeats / max(1, self._segments)
        # If only one of the two exists, it gets the whole share.
        recorded, decoupled = (self._able.get(kind, 0) for kind in (BY_LAYOUT[DECOUPLED.layout], DECOUPLED))
        split = self._phase.decoupled if recorded and decoupled else float(decoupled > 0)
        counts = np.array([self.able(layout) for layout in LAYOUTS], dtype=float)
        counts[LAYOUTS.index(DECOUPLED.layout)] = recorded * (split < 1) + decoupled * (split > 0)
        if not ((weights > 0) & (counts > 0)).any():
            wanted = [layout for layout, weight in zip(LAYOUTS, weights, strict=True) if weight > 0]
            raise TrainError(
                f"phase {self._name}: no segment can serve a layout with a weight above 0 ({', '.join(wanted) or 'none has one'});"
                " references come from `voxmill prepare`, descriptions from `voxmill describe`"
            )
        shares = dict(zip(LAYOUTS, limited(weights, most * counts).tolist(), strict=True))
        share = shares[DECOUPLED.layout]
        parts = np.zeros(2)
        if share:
            room = most * np.array([recorded, decoupled]) / share
            parts = share * limited(np.array([1 - split, split]), room)
        return np.array(
            [
                parts[int(kind.decoupled)] if kind.layout == DECOUPLED.layout else shares[kind.layout]
                for kind in self.kinds
            ]
        )

    def _over(self, count: int, first: np.ndarray, last: np.ndarray) -> dict[str, float]:
        """Return the mean over choices 0..count - 1 of layout shares that are interpolated from `first` to `last`."""
        done = 1.0
        if self.ramp:
            rising = min(max(1, count), self.ramp)
            done = (rising * (rising - 1) / 2 / self.ramp + max(1, count) - rising) / max(1, count)
        mean = first + done * (last - first)
        return {layout: float(share) for layout, share in zip(LAYOUTS, mean, strict=True) if share > 0}

    def _by_layout(self, shares: np.ndarray) -> np.ndarray:
        """Sum the shares of kinds by layout: float64 [layouts]."""
        found = np.zeros(len(LAYOUTS))
        for kind, share in zip(self.kinds, shares, strict=True):
            found[LAYOUTS.index(kind.layout)] += share
        return found


def layout_weights(layouts: LayoutWeights) -> np.ndarray:
    """Return float64 [layouts], in the order of LAYOUTS."""
    return np.array([getattr(layouts, layout) for layout in LAYOUTS])
