"""Which segments are held out of training: one rule for the trainer's validation and for evaluation.

Whether a segment is held out depends only on its id. Linked segments (copies, excerpts, the same words of the same voice) depend
on the name of their group, and are held out together.
"""

from __future__ import annotations

import hashlib

import numpy as np

from catalogs.candidates.table import Table


def held_out_draw(name: str) -> float:
    """Return a number in 0..1 that decides whether a segment, or a group of linked ones, is held out. It depends only on the
    name."""
    return hash_number("held out", name) / 2**56


def hash_number(*parts: object) -> int:
    """Return a 56-bit hash of the parts; never negative, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def held_out(table: Table, rows: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (bool [rows of the table]: held out, bool [groups]: groups that are held out).

    rows: int [N], those that may be held out, at least one. If none of them falls into the share, the nearest one is taken.
    """
    draws = table.draw[rows]
    chosen = draws < share
    if not chosen.any():
        chosen = np.arange(len(draws)) == int(draws.argmin())
    taken = np.zeros(int(max(table.group.max(), table.described_group.max())) + 1, dtype=bool)
    taken[table.group[rows[chosen]]] = True
    return taken[table.group], taken
