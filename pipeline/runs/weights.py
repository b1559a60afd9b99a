"""The weights that a run needs, checked before it starts."""

from __future__ import annotations

from collections.abc import Iterable

from catalogs.weights.registry import available, pull_command, resolve, weights
from catalogs.weights.verify import DigestMismatch, NotPinned, WeightsMissing
from pipeline.runs.errors import PrepareError


def check_weights(names: Iterable[str]) -> None:
    """Raise PrepareError if weights are missing or not the pinned ones, in one line with the command that gets them.

    Only small weights that the package index has are fetched here.
    """
    names = list(names)
    missing = [name for name in names if not available(name)]
    if not all(weights(name).mirrors for name in missing):
        # All at once, and before the hub is asked for any of them: without a network it is asked for half a minute each.
        raise PrepareError(f"the weights {', '.join(missing)} are not on this machine; run: {pull_command(missing)}")
    try:
        for name in names:
            resolve(name)
    except (WeightsMissing, DigestMismatch, NotPinned) as error:
        raise PrepareError(str(error)) from None
