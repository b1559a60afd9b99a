"""What a recording says of itself: that it is synthetic, and that nobody may train on it.

This is the one place of the pipeline, besides the synthesis, that knows the package of the model: its readers of statements,
manifests and watermarks. They need no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalogs.files import one_line
from pipeline.records import MARKED_SYNTHETIC, NO_TRAINING, PCM_RATE

_BLOCK_S = 30.0
"""Seconds of a recording that are searched for a watermark at once."""
_SHORTEST_S = 1.0
"""A watermark is not found in less."""


@dataclass(frozen=True)
class Marks:
    """What was found in the tags and the manifest of a file."""

    flags: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def read_tags(path: str | Path) -> Marks:
    """Return what a file says of itself in its tags and in its manifest (C2PA), which is not verified.

    A manifest is read if the extra `provenance` is installed; otherwise a notice says that it is there. A file that a reader
    fails on is not lost: a notice says so.
    """
    from voxcpm.provenance.c2pa.read import read_claims
    from voxcpm.provenance.c2pa.store import find_manifest
    from voxcpm.provenance.files import read_marks

    flags: list[str] = []
    notices: list[str] = []
    try:
        flags += [MARKED_SYNTHETIC] if read_marks(path) is not None else []
    except Exception as error:
        notices.append(f"some recordings have tags that were not read: {_told(error)}")
    try:
        found = find_manifest(path)
        claims = None if found is None else read_claims(found[0])
    except Exception as error:
        notices.append(f"some recordings have a manifest (C2PA) that was not read: {_told(error)}")
    else:
        flags += [MARKED_SYNTHETIC] if claims is not None and claims.synthetic else []
        flags += [NO_TRAINING] if claims is not None and claims.no_training else []
    unique = tuple(dict.fromkeys(flags))
    return Marks(unique, (*map(_notice, unique), *notices))


def _told(error: Exception) -> str:
    """Return an error as one line that is the same for all files, so that its notice appears once."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return one_line(error)


def find_watermark(pcm: Callable[[float, float], np.ndarray], duration_s: float) -> list[tuple[float, float]]:
    """Return the stretches (start, end in seconds) of a recording that have our watermark with the public key.

    pcm: returns int16 [S] at 16 kHz between two times in seconds.
    """
    from voxcpm.watermark.detect import detect_blocks
    from voxcpm.watermark.thresholds import DECOYS

    if duration_s < _SHORTEST_S:
        return []
    starts = np.arange(0, duration_s, _BLOCK_S).tolist()
    # Only what seems to be marked is compared with decoys: they take longer than the search, and hardly any recording is marked.
    for decoys in (0, DECOYS):
        blocks = ((pcm(start, min(start + _BLOCK_S, duration_s)) / 32768).astype(np.float32) for start in starts)
        (found,) = detect_blocks(blocks, PCM_RATE, decoys=decoys)
        if not found.marked:
            return []
    return list(found.spans)


def watermark_notice() -> str:
    """Return the notice for recordings with a watermark."""
    return _notice(MARKED_SYNTHETIC)


def _notice(flag: str) -> str:
    words = "state that they are synthetic" if flag == MARKED_SYNTHETIC else "forbid training"
    return f"some recordings {words} (flag {flag}): they are not kept unless drop_flags leaves it out"
