"""Estimate of the duration of a spoken text, without a model."""

from __future__ import annotations


def usual_seconds(text: str) -> float:
    """Return the usual speaking time of a text in seconds.

    Usual speed: 14 characters per second, and 4.5 for scripts that write a syllable or more with one character.
    """
    dense = sum(ch >= "\u2e80" for ch in text)
    return (len(text) - dense) / 14.0 + dense / 4.5


def generous_seconds(text: str) -> float:
    """Return twice the usual speaking time of a text plus two seconds: a limit for a model that does not stop."""
    return 2.0 * usual_seconds(text) + 2.0
