"""When a score counts as a mark: the fixed thresholds, and the null distribution that they come from."""

from __future__ import annotations

import math

MARKED = 8.3
"""A score above this is a mark, whatever its payload reads."""

MARKED_WITH_PAYLOAD = 7.4
"""A score above this is a mark if the checksum of the payload fits, which one of 256 random payloads does."""

TENFOLD = 0.4
"""Both thresholds rise by this for ten times as many searches: windows of a long file, speeds and tempos of a thorough search."""

SAME_PAYLOAD = 6.5
"""In a file that is marked, a window with the same payload and a fitting checksum is marked above this."""

PRESENT = 4.0
"""The score of one second above which it belongs to a marked span. The key, the phase and the payload are known by then."""

DECOYS = 63
"""Keys without a mark that each file is compared with: the smallest p-value is 1 / (DECOYS + 1)."""


def passes(score: float, payload_fits: bool, searches: int = 1) -> bool:
    """Return True if the best score of `searches` searches is a mark."""
    threshold = MARKED_WITH_PAYLOAD if payload_fits else MARKED
    return score > threshold + TENFOLD * math.log10(max(searches, 1))
