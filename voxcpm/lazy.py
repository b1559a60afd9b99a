"""Names that a module exports and imports on first use, so that importing the module stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exported(exporter: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` for `homes`: public name -> the module that defines it, "module:name there", or "module:" for
    the module itself.

    The returned function raises AttributeError for any other name.
    """

    def imported(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {exporter!r} has no attribute {name!r}")
        home, colon, other = homes[name].partition(":")
        module = import_module(home)
        return module if colon and not other else getattr(module, other or name)

    return imported
