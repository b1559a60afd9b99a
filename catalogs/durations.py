"""Durations as text."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """Format seconds: `4.2 s`, `12 min 30 s`, `3 h 05 min`, `1,234 h`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    if seconds < 100 * 3600:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours} h {rest:02d} min"
    return f"{seconds / 3600:,.0f} h"
