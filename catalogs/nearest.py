"""The known name that is nearest to a misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.7
"""Share of the letters of two names that must agree, in the same order, for the names to be near."""
_START = 3
"""Minimum number of letters for the start of a name to be near to it."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`, ignoring case, or the only one that starts with it; None if none is near."""
    names = {one.casefold(): one for one in known}
    given = name.casefold()
    near = difflib.get_close_matches(given, names, n=1, cutoff=CUTOFF)
    if not near and len(given) >= _START:
        near = [one for one in names if one.startswith(given)]
    return names[near[0]] if len(near) == 1 else None
