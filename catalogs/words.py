"""Wording of messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 recording`, `2 recordings`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
