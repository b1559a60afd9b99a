"""Classes that can be named in settings: built-in ones by name, others by an entry point or as `module:Class`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from catalogs.files import one_line

Base = TypeVar("Base")


class ExtensionError(ValueError):
    """A class cannot be used; the message is one line: the class, the fault, the next step."""


@dataclass(frozen=True)
class ExtensionPoint(Generic[Base]):
    """A kind of class that can be named in settings. An entry point that no setting names is never imported."""

    noun: str
    base: type[Base]
    group: str
    """Group of the entry points, e.g. `voxmill.stages`."""
    ours: Mapping[str, str]
    """Built-in classes: name -> `module:Class`."""

    def place(self, named: str) -> str:
        """Return `module:Class` for a name, without importing it. Raises ExtensionError if nothing has this name."""
        if named in self.ours:
            return self.ours[named]
        places = {named} if ":" in named else {point.value for point in entry_points(group=self.group, name=named)}
        if not places:
            known = [*self.ours, *sorted({point.name for point in entry_points(group=self.group)})]
            raise ExtensionError(
                f"no {self.noun} {named!r}; {self.noun}s: {', '.join(known)}; one of another package is named by its"
                f" entry point in {self.group}, or as module:Class"
            )
        if len(places) > 1:
            both = " and ".join(sorted(places))
            raise ExtensionError(
                f"{self.noun} {named!r} is an entry point of two packages ({both}): name it as module:Class"
            )
        (place,) = places
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", place):
            raise ExtensionError(
                f"{self.noun} {place!r} is not written as module:Class, e.g. my_package.my_module:MyClass"
            )
        return place

    def find(self, named: str) -> type[Base]:
        """Import and return the class. Raises ExtensionError if it cannot be imported or is not a subclass of `base`."""
        place = self.place(named)
        module, _, name = place.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except Exception as error:
            if named in self.ours:
                raise
            fault = f"{type(error).__name__}: {one_line(error)}"
            raise ExtensionError(
                f"{self.noun} {place} cannot be imported ({fault}); install its package or correct the name"
            ) from error
        wanted = f"{self.base.__module__}.{self.base.__name__}"
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise ExtensionError(f"{self.noun} {place} is not a subclass of {wanted}; make it one, or correct the name")
        if inspect.isabstract(found):
            lacking = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise ExtensionError(f"{self.noun} {place} does not define {lacking}, as {wanted} asks; add it")
        return found

    def refuse_inside(self, named: str, folder: str | Path) -> None:
        """Raise ExtensionError if the package of a class lies in a data folder, e.g. a corpus. Imports nothing."""
        package = self.place(named).partition(":")[0].partition(".")[0]
        spec = importlib.util.find_spec(package)
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        if any(place and Path(place).resolve().is_relative_to(Path(folder).resolve()) for place in places):
            raise ExtensionError(
                f"{self.noun} {named} is not imported: its package {package} is a file of {folder}; install it elsewhere"
            )
