"""Flows of stand-in steps, and how tests run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxmill.flow.child import run_step
from voxmill.flow.run import FlowSummary, run_flow
from voxmill.flow.settings import FlowSettings
from voxmill.flow.steps.base import Step
from voxmill.terminal import Terminal

MAKE, MODEL, STORE = "fakes.flow_steps:Make", "fakes.flow_steps:Model", "fakes.flow_steps:Store"
AMEND, CHECK = "fakes.flow_steps:Amend", "fakes.flow_steps:Check"


def flow(folder: Path, steps: dict[str, Any], **settings: Any) -> FlowSettings:
    """A flow in `folder`."""
    return FlowSettings(name="tried", folder=str(folder), steps=steps, **settings)


def loop() -> dict[str, Any]:
    """The loop in stand-ins: a corpus, two amendments, two models of which the second also reads a made corpus, a judge."""
    return {
        "prepare": {"kind": STORE, "value": "p"},
        "describe": {"kind": AMEND, "corpus": "prepare", "value": "d"},
        "verify": {"kind": CHECK, "corpus": "prepare", "value": "v"},
        "stage1": {"kind": MODEL, "corpus": "prepare", "value": "1"},
        "decouple": {"kind": MAKE, "corpus": "prepare", "model": "stage1", "value": "c"},
        "stage2": {"kind": MODEL, "corpus": ["prepare", "decouple"], "model": "stage1", "value": "2"},
        "evaluate": {"kind": MAKE, "model": ["stage1", "stage2"], "value": "e"},
        "export": {"kind": MAKE, "corpus": "prepare", "value": "x"},
    }


def here(step: Step, terminal: Terminal) -> int:
    """Run a step in this process, as its own process would."""
    try:
        return run_step(step, terminal)
    except ValueError:
        return 1


def run_here(settings: FlowSettings, first: str | None = None, last: str | None = None) -> FlowSummary:
    """Run a flow in this process."""
    return run_flow(settings, first, last, launch=here)


def changed(steps: dict[str, Any], step: str, **values: Any) -> dict[str, Any]:
    """The same steps with other settings of one."""
    return {name: {**own, **values} if name == step else own for name, own in steps.items()}
