"""The steps of a flow from its settings, and the choice of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogs.nearest import nearest
from voxmill.flow.settings import FlowError, FlowSettings, folder_of
from voxmill.flow.steps import build_steps
from voxmill.flow.steps.base import Step


def open_flow(settings: FlowSettings) -> tuple[Path, dict[str, Step]]:
    """Return (folder, steps) of a flow. Raises SettingsError for the first fault of its settings."""
    folder = folder_of(settings)
    return folder, build_steps(folder, settings.sources, settings.steps)


def chosen_steps(steps: Sequence[str], first: str | None = None, last: str | None = None) -> list[str]:
    """Return the steps from `first` to `last`. Raises FlowError for a name that is not a step, or the wrong order."""
    names = list(steps)
    for option, given in (("--from", first), ("--until", last)):
        if given is not None and given not in names:
            near = nearest(given, names)
            hint = f"did you mean {near}?" if near else f"steps: {', '.join(names)}"
            raise FlowError(f"{option} {given}: no such step; {hint}")
    start = names.index(first) if first else 0
    stop = names.index(last) if last else len(names) - 1
    if start > stop:
        raise FlowError(f"--from {first} comes after --until {last}: exchange them")
    return names[start : stop + 1]
