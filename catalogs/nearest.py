"""The name that a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.7
"""Share of the letters of two names that must be the same, in the same order, for them to be near."""
_START = 3
"""Letters from which on the start of a name is near to it."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, whatever its case, or the only one that starts with it; None if none is near."""
    names = {one.casefold(): one for one in known}
    given = name.casefold()
    near = difflib.get_close_matches(given, names, n=1, cutoff=CUTOFF)
    if not near and len(given) >= _START:
        near = [one for one in names if one.startswith(given)]
    return names[near[0]] if len(near) == 1 else None
