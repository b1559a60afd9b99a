"""Pickles that run code when something unpickles them: each makes a canary, a folder that no test may find afterwards."""

from __future__ import annotations

import enum
import os
import pickle
from pathlib import Path
from typing import Any

import torch


class Reduced:
    """Makes its canary when it is unpickled, as `pickle.dumps` writes it (REDUCE)."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def _text(value: str) -> bytes:
    """A string as an opcode of protocol 0."""
    return b"V" + value.encode("raw-unicode-escape") + b"\n"


def _short(value: str) -> bytes:
    """A string as an opcode of protocol 4."""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def stack_global(module: str, name: str, arguments: bytes) -> bytes:
    """A pickle of protocol 4 that calls what `module` and `name` (which may have dots) stand for."""
    return b"\x80\x04" + _short(module) + _short(name) + b"\x93" + arguments + b"R."


def pickles(canary: Path) -> dict[str, bytes]:
    """Hostile pickles by what they use."""
    path = str(canary)
    one = b"(" + _short(path) + b"t"
    command = b"(](" + _short("mkdir") + _short(path) + b"et"
    return {
        "reduce": pickle.dumps(Reduced(canary)),
        "reduce, protocol 0": pickle.dumps(Reduced(canary), protocol=0),
        "global": b"cposix\nmkdir\n(" + _text(path) + b"tR.",
        "inst": b"(" + _text(path) + b"iposix\nmkdir\n.",
        "stack global": stack_global("posix", "mkdir", one),
        # Names with dots are looked up attribute by attribute from protocol 4 on.
        "dotted subprocess": stack_global(
            "torch.distributed.checkpoint.filesystem", "torch.ctypes.util.subprocess.check_call", command
        ),
        "dotted Popen": stack_global(
            "torch.distributed.checkpoint.filesystem", "torch.ctypes.util.subprocess.Popen", command
        ),
        "dotted FileIO": stack_global(
            "torch.distributed.checkpoint.filesystem", "io.FileIO", b"(" + _short(path) + _short("w") + b"t"
        ),
        "dotted below torch": stack_global("torch", "os.mkdir", one),
        "dotted below pathlib": stack_global("pathlib", "os.mkdir", one),
        "dotted below a known class": stack_global(
            "pathlib", "PosixPath.mkdir", b"(cpathlib\nPosixPath\n" + one + b"Rt"
        ),
        "builtins": stack_global("builtins", "eval", b"(" + _short(f"__import__('os').mkdir({path!r})") + b"t"),
    }


def torch_file(path: Path, canary: Path, around: Any = None) -> Path:
    """A file of `torch.save` with a hostile object beside the values that belong there."""
    torch.save({**(around or {}), "evil": Reduced(canary)}, path)
    return path


class OldEnums(pickle.Pickler):
    """Pickles members of enums as Python 3.11.0 to 3.11.3 does, e.g. that of Debian 12."""

    def reducer_override(self, value: Any) -> Any:
        return (getattr, (type(value), value.name)) if isinstance(value, enum.Enum) else NotImplemented
