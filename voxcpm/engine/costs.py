"""What a step costs on this machine, learned from the steps that were made."""

from __future__ import annotations

_FORGET = 0.99
_NOISE = 0.01
"""Variance of the relative time of a step."""
_POSITIONS = 100.0
"""Scale of the prefill positions, so that the three factors are of one order."""


class CostModel:
    """Seconds of a step = fixed + rows * per row + prefill positions * per position: least squares that forget slowly.

    Nothing is known before the first step: the estimate is 0.
    """

    def __init__(self, fixed: float = 0.0, per_row: float = 0.0, per_position: float = 0.0) -> None:
        self._factors = [fixed, per_row, per_position * _POSITIONS]
        # Variance of each factor. Of what single steps cannot tell apart most goes to the rows, which is the careful side.
        self._p = [[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0]]
        self.steps = 0

    def seconds(self, rows: int, positions: int = 0) -> float:
        """Estimate the seconds of a step of `rows` rows that also processes `positions` positions of newcomers."""
        fixed, per_row, per_position = (max(0.0, factor) for factor in self._factors)
        return fixed + per_row * rows + per_position * positions / _POSITIONS

    def observe(self, rows: int, positions: int, seconds: float) -> None:
        """Learn from a step. A step that took more than twice what was expected counts as twice: it was disturbed."""
        expected = self.seconds(rows, positions)
        if self.steps >= 20 and expected > 0:
            seconds = min(seconds, 2 * expected)
        # Divided by the seconds, so that the error is relative: a long prefill must not outweigh a hundred usual steps.
        scale = 1 / max(seconds, 1e-6)
        x = (scale, rows * scale, positions / _POSITIONS * scale)
        px = [sum(row[j] * x[j] for j in range(3)) for row in self._p]
        denominator = _FORGET * _NOISE + sum(x[i] * px[i] for i in range(3))
        gain = [value / denominator for value in px]
        error = 1 - sum(self._factors[i] * x[i] for i in range(3))
        self._factors = [factor + g * error for factor, g in zip(self._factors, gain, strict=True)]
        self._p = [
            # Bounded: without news of a factor its variance would grow for ever.
            [min((self._p[i][j] - gain[i] * px[j]) / _FORGET, 1e3) for j in range(3)]
            for i in range(3)
        ]
        self.steps += 1
