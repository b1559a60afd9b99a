"""A kill at a chosen change on the disk, without a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from voxcpm.weights import atomic


class Killed(BaseException):
    """A kill of the process, at one point."""


@contextmanager
def killed_at(point: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Raise Killed in the place of the point-th change on the disk; of a tree that is removed, one file goes first."""
    done: list[str] = []

    def counted(name: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            done.append(name)
            if len(done) == point + 1:
                if name == "rmtree":
                    for path in [path for path in Path(arguments[0]).rglob("*") if path.is_file()][:1]:
                        path.unlink()
                raise Killed
            if len(done) > point + 1:
                raise Killed  # a process that is dead clears up nothing
            return honest(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "symlink_to"), (Path, "unlink"), (os, "link"),
                            (os, "fsync"), (shutil, "rmtree"), (atomic, "exchange")):  # fmt: skip
            patched.setattr(owner, name, counted(name, getattr(owner, name)))
        yield done
