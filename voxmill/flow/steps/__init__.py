"""Kinds of steps by name. A kind is one file; its line is here. Others: an entry point `voxmill.steps`, or `module:Class`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from catalogs.extensions import ExtensionError, ExtensionPoint
from catalogs.nearest import nearest
from catalogs.settings import SettingsError, validate_settings
from voxmill.flow.steps.base import Place, Step

KINDS: dict[str, str] = {
    "recordings": "voxmill.flow.steps.recordings:Recordings",
    "prepare": "voxmill.flow.steps.prepare:Prepare",
    "describe": "voxmill.flow.steps.describe:Describe",
    "verify": "voxmill.flow.steps.describe:Verify",
    "report": "voxmill.flow.steps.report:Report",
    "train_codec": "voxmill.flow.steps.train_codec:TrainCodec",
    "encode": "voxmill.flow.steps.encode:Encode",
    "train": "voxmill.flow.steps.train:Train",
    "decouple": "voxmill.flow.steps.decouple:Decouple",
    "evaluate": "voxmill.flow.steps.evaluate:Evaluate",
    "export": "voxmill.flow.steps.export:Export",
}
"""Kind and `module:Class`, in the usual order."""
STEPS: ExtensionPoint[Step] = ExtensionPoint("kind of step", Step, "voxmill.steps", KINDS)  # type: ignore[type-abstract]


def step_kind(kind: str, step: str) -> type[Step]:
    """Return the class of a kind. Raises SettingsError that names the nearest kind."""
    try:
        return STEPS.find(kind)
    except ExtensionError as error:
        near = nearest(kind, KINDS)
        hint = f"; did you mean {near}?" if near and ":" not in kind else ""
        raise SettingsError(f"step {step}: {error}{hint}") from None


def build_steps(folder: Any, sources: tuple[str, ...], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Step]:
    """Return the steps by name, in order, with their inputs. Raises SettingsError with one line for the first fault."""
    steps: dict[str, Step] = {}
    for name, values in given.items():
        own = dict(values)
        kind = own.pop("kind", name)
        if not isinstance(kind, str):
            raise SettingsError(f"step {name}: kind must be a name, not {kind!r}")
        made = step_kind(kind, name)
        inputs = _inputs(name, made, own, steps, list(given))
        try:
            settings = validate_settings(made.settings_kind, own)
        except (SettingsError, ValidationError) as error:
            raise SettingsError(f"step {name}: {error}") from None
        if made.reads_sources and not sources and not any(inputs.values()):
            raise SettingsError(
                f"step {name}: the flow has no sources: give recordings after the flow, or `sources:` in the file"
            )
        place = Place(folder, name, inputs, sources, _amended_by(inputs, steps))
        steps[name] = made(kind, settings, place)
    return steps


def _inputs(
    name: str, made: type[Step], own: Mapping[str, Any], steps: Mapping[str, Step], all_names: list[str]
) -> dict[str, tuple[Step, ...]]:
    """Return the steps that the inputs of a step name."""
    found: dict[str, tuple[Step, ...]] = {}
    for setting, takes in made.takes.items():
        value = own.get(setting)
        names = [value] if isinstance(value, str) else list(value or [])
        if takes.required and not names:
            able = [step.name for step in steps.values() if step.gives in takes.gives]
            example = f", e.g. {setting}: {able[-1]}" if able else ""
            raise SettingsError(
                f"step {name}: {setting} names no earlier step that gives a {_either(takes.gives)}{example}"
            )
        if len(names) > 1 and not takes.many:
            raise SettingsError(f"step {name}: {setting} takes one step, not {len(names)}")
        found[setting] = tuple(_input(name, setting, str(one), takes.gives, steps, all_names) for one in names)
    return found


def _input(
    name: str, setting: str, given: str, gives: tuple[str, ...], steps: Mapping[str, Step], all_names: list[str]
) -> Step:
    if given == name or (given not in steps and given in all_names):
        raise SettingsError(
            f"step {name}: {setting} names {given}, which does not come before it: move {name} after it"
        )
    if given not in steps:
        near = nearest(given, steps)
        hint = f"did you mean {near}?" if near else f"earlier steps: {', '.join(steps) or 'none'}"
        raise SettingsError(f"step {name}: {setting} names {given}, which is not a step; {hint}")
    if steps[given].gives not in gives:
        raise SettingsError(
            f"step {name}: {setting} takes a {_either(gives)}, but {given} gives {_given(steps[given].gives)}"
        )
    return steps[given]


def _amended_by(inputs: Mapping[str, tuple[Step, ...]], steps: Mapping[str, Step]) -> tuple[Step, ...]:
    """Return the earlier steps that amend a corpus that a step reads, and that change what is read of it."""
    read = {one.output for named in inputs.values() for one in named if one.gives == "corpus"}
    return tuple(step for step in steps.values() if step.amends and step.is_read and step.output in read)


def _either(gives: tuple[str, ...]) -> str:
    return " or ".join(gives)


def _given(gives: str | None) -> str:
    return f"a {gives}" if gives else "nothing that a step can read"
