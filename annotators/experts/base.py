"""The interface of an expert: it judges one attribute of a clip or a voice, by measures or by its audio."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from annotators.schema import Clip

Shares = Mapping[str, float]
"""Probability of each value of an attribute; they add up to 1."""

_LEAST_P = 1e-3
"""Probabilities are kept this far from 0 and 1 when they are pooled: one clip must not outvote a voice."""


class Expert(abc.ABC):
    """Judge one attribute. The constructor takes no arguments and loads nothing; `load` does."""

    name: ClassVar[str]
    """Name in the registry and in the `source` of a check."""
    attribute: ClassVar[str]
    """Attribute of catalogs.vocabulary.voices that it judges."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Measured columns that it needs."""
    listens: ClassVar[bool] = False
    """Whether it needs the clips' audio."""
    license: ClassVar[str] = "Apache-2.0"
    """License of its weights or, without weights, of its rule."""
    non_commercial: ClassVar[bool] = False
    """Whether the license forbids commercial use. Such an expert is used only if the caller allows it."""
    languages: ClassVar[tuple[str, ...] | None] = None
    """Languages for which its verdict is proven; None: all."""

    def load(self) -> None:  # noqa: B027 - most need nothing
        """Load the weights. Raises ExpertError with one line that says how to get them."""

    @abc.abstractmethod
    def judge(self, clips: Sequence[Clip]) -> list[Shares | None]:
        """Return the shares for each clip, in order; None if it cannot tell."""

    def judge_voice(self, clips: Sequence[Clip]) -> Shares | None:
        """Return the shares for the voice that speaks all the clips; None if it cannot tell."""
        return pooled([shares for shares in self.judge(clips) if shares])


class ExpertError(ValueError):
    """An expert cannot be used; the message is one line: the expert, the fault, the next step."""


def pooled(judged: Sequence[Shares]) -> Shares | None:
    """Return the shares of several clips as one: the mean of the logarithms, normalized. None for no clips.

    The mean and not the sum, because clips of one voice err alike.
    """
    if not judged:
        return None
    values = list(judged[0])
    logs = {
        value: sum(math.log(max(shares.get(value, 0.0), _LEAST_P)) for shares in judged) / len(judged)
        for value in values
    }
    top = max(logs.values())
    weights = {value: math.exp(log - top) for value, log in logs.items()}
    total = sum(weights.values())
    return {value: weight / total for value, weight in weights.items()}
