"""The output folder of a run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.config import TrainError


@contextmanager
def hold_folder(output: Path) -> Iterator[None]:
    """Hold a lock on the output folder, which is created if missing. Raises TrainError if another run holds it."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainError(f"another run is training into {output}: wait for it, or give another output") from None
        yield
