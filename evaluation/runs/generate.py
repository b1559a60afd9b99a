"""Generation: a system speaks every item with every seed, and the answers are kept.

An answer is on the disk before its row is. A kill costs at most the rows of one batch, which are made again.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from catalogs.files import one_line, write_atomically
from evaluation.errors import EvaluationError
from evaluation.runs.folder import Run
from evaluation.systems.base import Ask, Speech, System

SILENCE = 1e-4
"""Peak below which audio counts as silent (-80 dBFS)."""
ROWS = 64
ROWS_S = 10.0
"""Takes, and seconds, after which a part file is written."""

Count = Callable[[int, int | None], None]


def generate(run: Run, system: System, count: Count | None = None, again: Collection[str] = ()) -> dict[str, int]:
    """Make every take that has no row yet; return how many takes have each status.

    A failed take has a row too: it counts, and is asked again only if its status is in `again`. A take whose audio has been
    deleted is made again. A system with a method `check` is shown all takes first: it raises EvaluationError for those
    that it cannot tell apart.
    """
    with run.locked():
        rows = {
            key: row
            for key, row in run.generated.by_key().items()
            if row["status"] not in again and not (row["audio"] and not (run.root / row["audio"]).is_file())
        }
        wanted = _asks(run, system)
        if check := getattr(system, "check", None):
            check(wanted)
        open_asks = [ask for ask in wanted if (ask.item.id, ask.seed) not in rows]
        done = len(wanted) - len(open_asks)
        waiting: list[dict[str, Any]] = []
        written = time.monotonic()
        try:
            for batch in _batches(open_asks, system.batch):
                answers = system.speak(batch)
                if len(answers) != len(batch):
                    raise EvaluationError(f"{system.name} gave {len(answers)} answers to {len(batch)} texts")
                waiting += [_keep(run, ask, answer) for ask, answer in zip(batch, answers, strict=True)]
                done += len(batch)
                if len(waiting) >= ROWS or time.monotonic() - written > ROWS_S:
                    run.generated.add(waiting)
                    waiting, written = [], time.monotonic()
                if count:
                    count(done, len(wanted))
        finally:
            # Also of a run that ends here: Ctrl-C, or a system that cannot speak any more.
            run.generated.add(waiting)
    return statuses(run)


def failures(run: Run) -> dict[str, list[str]]:
    """Return the names of items by why their takes failed, the most frequent reason first."""
    found: dict[str, list[str]] = {}
    for row in run.generated.rows():
        if row["status"] != "ok" and row["item_id"] in run.by_id:
            item = run.by_id[row["item_id"]]
            found.setdefault(f"{row['status']}: {row['error']}", []).append(item.name or item.id)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[1])))


def statuses(run: Run) -> dict[str, int]:
    """Return the number of takes by status."""
    found: dict[str, int] = {}
    for row in run.generated.rows():
        found[row["status"]] = found.get(row["status"], 0) + 1
    return found


def _asks(run: Run, system: System) -> list[Ask]:
    seeds = run.settings["seeds"] if system.seeded else run.settings["seeds"][:1]
    return [Ask(item, seed) for seed in seeds for item in run.items]


def _batches(asks: Sequence[Ask], size: int) -> Iterator[list[Ask]]:
    for start in range(0, len(asks), max(size, 1)):
        yield list(itertools.islice(asks, start, start + max(size, 1)))


def _keep(run: Run, ask: Ask, answer: Speech | Exception) -> dict[str, Any]:
    """Write the audio of an answer and return its row."""
    row: dict[str, Any] = {"item_id": ask.item.id, "seed": ask.seed}
    if isinstance(answer, Exception):
        return {**row, "status": getattr(answer, "status", "error"), "error": one_line(answer)}
    samples = np.nan_to_num(np.asarray(answer.samples, dtype=np.float32).reshape(-1))
    row |= {
        "seconds": len(samples) / answer.rate,
        "wall_s": answer.wall_s,
        "first_audio_s": answer.first_audio_s,
        "attempts": answer.attempts,
        "sample_rate": answer.rate,
        "notes": json.dumps(answer.notes, ensure_ascii=False) if answer.notes else None,
    }
    if not len(samples):
        return {**row, "status": "empty", "error": "the system returned no audio"}
    data = _flac(samples, answer.rate)
    name = run.audio_name(ask.item.id, ask.seed)
    write_atomically(run.root / name, data)
    row |= {"audio": name, "audio_sha256": hashlib.sha256(data).hexdigest()}
    if float(np.abs(samples).max()) < SILENCE:
        return {**row, "status": "silent", "error": "the audio is silent"}
    if answer.reached_limit:
        return {**row, "status": "too_long", "error": "the system did not stop by itself"}
    return {**row, "status": "ok"}


def _flac(samples: np.ndarray, rate: int) -> bytes:
    """Return FLAC with 24 bits; samples above full scale are clipped."""
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, np.clip(samples, -1.0, 1.0), rate, format="FLAC", subtype="PCM_24")
    return sink.getvalue()
