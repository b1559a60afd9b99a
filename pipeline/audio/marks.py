"""What a recording says of itself: that it is synthetic, and that nobody may train on it.

This is the one place of the pipeline, besides the synthesis, that knows the package of the model: its readers of statements,
manifests and watermarks. They need no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records import MARKED_SYNTHETIC, NO_TRAINING, PCM_RATE

WINDOW_S, HOP_S = 10.0, 5.0
"""Stretches of a recording in which a watermark is searched, in seconds."""
_SHORTEST_S = 1.0
"""A watermark is not found in less."""

Detect = Callable[[np.ndarray, int], bool]
"""float32 [S] in -1..1 and its rate in Hz -> whether it holds a watermark."""


@dataclass(frozen=True)
class Marks:
    """What was found in the tags and the manifest of a file."""

    flags: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def read_tags(path: str | Path) -> Marks:
    """Return what a file says of itself in its tags and in its manifest (C2PA), which is not verified.

    Raises OSError. A manifest is read if the extra `provenance` is installed; otherwise a notice says that it is there.
    """
    from voxcpm.provenance.c2pa.library import C2paError
    from voxcpm.provenance.c2pa.read import read_claims
    from voxcpm.provenance.c2pa.store import find_manifest
    from voxcpm.provenance.files import read_marks

    flags = [MARKED_SYNTHETIC] if read_marks(path) is not None else []
    notices: list[str] = []
    if (found := find_manifest(path)) is not None:
        try:
            claims = read_claims(found[0])
        except C2paError as error:
            notices.append(f"some recordings have a manifest (C2PA) that was not read: {error}")
        else:
            flags += [MARKED_SYNTHETIC] if claims is not None and claims.synthetic else []
            flags += [NO_TRAINING] if claims is not None and claims.no_training else []
    unique = tuple(dict.fromkeys(flags))
    return Marks(unique, (*map(_notice, unique), *notices))


def watermark_detector() -> Detect | None:
    """Return the detector of our watermark; None if this version has none."""
    try:
        from voxcpm.watermark.detect import detect
    except ModuleNotFoundError:
        return None
    return lambda samples, rate: any(found.marked for found in detect(samples, rate))


def find_watermark(
    pcm: Callable[[float, float], np.ndarray], duration_s: float, detect: Detect
) -> list[tuple[float, float]]:
    """Return the stretches (start, end in seconds) of a recording in which the watermark is, joined if they touch.

    pcm: returns int16 [S] at 16 kHz between two times in seconds.
    """
    found: list[tuple[float, float]] = []
    for start, end in _stretches(duration_s):
        if not detect(pcm(start, end).astype(np.float32) / 32768.0, PCM_RATE):
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def watermark_notice() -> str:
    """Return the notice for recordings with a watermark."""
    return _notice(MARKED_SYNTHETIC)


def _stretches(duration_s: float) -> Iterator[tuple[float, float]]:
    """Yield stretches that cover a recording. The last one ends with it and is as long as the others, if there is more than one."""
    if duration_s < _SHORTEST_S:
        return
    start = 0.0
    while start + WINDOW_S < duration_s:
        yield start, start + WINDOW_S
        start += HOP_S
    yield max(0.0, duration_s - WINDOW_S), duration_s


def _notice(flag: str) -> str:
    words = "state that they are synthetic" if flag == MARKED_SYNTHETIC else "forbid training"
    return f"some recordings {words} (flag {flag}): they are not kept unless drop_flags leaves it out"
