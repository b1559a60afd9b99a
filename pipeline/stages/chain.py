"""The chain of a run: the built-in stages in order, with those that the settings add, and a check that they can run in this
order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from catalogs.extensions import ExtensionError
from pipeline.stage import Stage, StageConfig
from pipeline.stages import STAGE_GROUPS, STAGES, stage_class


class AddedStage(BaseModel):
    """A stage of another package, and where it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    """`module:Class`, or the name of an entry point in `voxmill.stages`."""
    after: str
    """The stage that it follows; it shares that stage's actor. Several after the same stage run in the order listed."""


@dataclass(frozen=True)
class Chain:
    """Names of stages in order; those of one group share an actor. `places` maps the name of an added stage to its
    `module:Class`."""

    groups: tuple[tuple[str, ...], ...]
    places: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """All stages in order."""
        return tuple(name for group in self.groups for name in group)

    def place(self, name: str) -> str:
        """Return the name or `module:Class` by which `stage_class` finds the stage on every machine that has its package."""
        return self.places.get(name, name)

    def identity(self, name: str) -> str:
        """Return the name of a stage for the fingerprint. That of an added stage includes its package, because two packages
        may use the same name."""
        return f"{self.places[name].partition('.')[0].partition(':')[0]}/{name}" if name in self.places else name

    def kinds(self) -> list[type[Stage[Any]]]:
        """The classes of all stages in order."""
        return [stage_class(self.place(name)) for name in self.names]


@cache
def make_chain(added: tuple[AddedStage, ...]) -> Chain:
    """Put added stages into the chain. Raises ExtensionError if a stage cannot be used or follows an unknown stage."""
    groups = [list(group) for group in STAGE_GROUPS]
    places: dict[str, str] = {}
    for entry in added:
        name = _name_of(entry.stage)
        if any(name in group for group in groups):
            raise ExtensionError(f"stage {entry.stage} has the name {name}, which is taken; give it another")
        group = next((group for group in groups if entry.after in group), None)
        if group is None:
            known = ", ".join(other for group in groups for other in group)
            raise ExtensionError(f"stage {entry.stage} follows {entry.after!r}, which is not a stage; stages: {known}")
        at = group.index(entry.after) + 1
        while at < len(group) and group[at] in places:
            at += 1
        group.insert(at, name)
        places[name] = STAGES.place(entry.stage)
    return Chain(tuple(map(tuple, groups)), places)


def _name_of(named: str) -> str:
    """Return the name of an added stage. Raises ExtensionError if its class lacks a required attribute or a valid name."""
    kind = stage_class(named)
    for part in ("name", "version", "config_type"):
        if not hasattr(kind, part):
            raise ExtensionError(f"stage {named} has no {part}: give it to the class")
    if not kind.name.isidentifier():
        raise ExtensionError(f"stage {named} has the name {kind.name!r}: use letters, digits and _")
    if not (isinstance(kind.config_type, type) and issubclass(kind.config_type, StageConfig)):
        raise ExtensionError(f"stage {named} has a config_type that is not a subclass of pipeline.stage.StageConfig")
    return kind.name


def chain_fault(stages: Sequence[type[Stage[Any]]], memory_bytes: float) -> str | None:
    """Return one line on the first stage that cannot run at its place in the chain, or None.

    Its declared inputs must be outputs of earlier stages, and `memory_bytes`, the machine's memory, must be enough for one
    actor of it.
    """
    present = {"recordings"}
    for kind in stages:
        for name in kind.inputs:
            if name not in present:
                writers = [other.name for other in stages if name in other.outputs and other is not kind]
                what = f"place it after {writers[0]}" if writers else "no stage writes it"
                return f"stage {kind.name} reads {name}, which no stage before it writes; {what}"
        if kind.resources.memory_bytes > memory_bytes:
            needed, there = kind.resources.memory_bytes / 2**20, memory_bytes / 2**20
            return (
                f"stage {kind.name} needs {needed:.0f} MB of memory, this machine has {there:.0f} MB; use a larger one"
            )
        present.update(kind.outputs)
    return None
