"""`run_flow`: the steps of a flow in order. Steps that are up to date are left alone; a killed run continues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from catalogs.durations import duration_text
from voxmill.flow.build import chosen_steps, open_flow
from voxmill.flow.fingerprints import Verdict, digests_of, judge
from voxmill.flow.page import write_page
from voxmill.flow.processes import alone, run_in_child
from voxmill.flow.settings import FlowError, FlowSettings, save_flow
from voxmill.flow.state import StepState, begin, end, log_path, read_state
from voxmill.flow.steps.base import Step
from voxmill.terminal import Terminal, quoted

Launch = Callable[[Step, Terminal], int]
"""Runs a step that was begun, and returns its exit status."""


@dataclass
class FlowSummary:
    """What a call of `run_flow` did."""

    folder: str
    done: list[str] = field(default_factory=list)
    """Steps that were run now."""
    up_to_date: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    """Earlier outputs by step: where they were moved to."""


def run_flow(
    settings: FlowSettings,
    first: str | None = None,
    last: str | None = None,
    terminal: Terminal | None = None,
    launch: Launch = run_in_child,
) -> FlowSummary:
    """Do what `voxmill run` does: run the steps that are not up to date, in order, from `first` to `last`.

    Earlier steps than `first` are not looked at, but must be done. Call it again to continue after a kill. Raises
    FlowError if a step fails (its message is that of the step), or if another run works in the folder; SettingsError;
    KeyboardInterrupt if a signal stopped it.
    """
    terminal = terminal or Terminal(quiet=True)
    folder, steps = open_flow(settings)
    names = chosen_steps(list(steps), first, last)
    for name in names:
        # So that a wrong setting of the last step is reported before hours of the first.
        steps[name].check()
    folder.mkdir(parents=True, exist_ok=True)
    summary = FlowSummary(str(folder))
    show = partial(_write_page, folder, settings, steps, terminal)
    with alone(folder):
        save_flow(folder, settings)
        for name in list(steps)[: list(steps).index(names[0])]:
            state = read_state(folder, name)
            if state is None or state.status != "done":
                raise FlowError(f"--from {names[0]}: the earlier step {name} is not done: start with --from {name}")
        try:
            for number, name in enumerate(names, 1):
                _do(steps[name], f"{number}/{len(names)}", summary, terminal, launch, show)
        finally:
            show()
    return summary


def _do(
    step: Step, number: str, summary: FlowSummary, terminal: Terminal, launch: Launch, show: Callable[[], None]
) -> None:
    """Run a step if it is due. show: writes the state page."""
    folder = step.place.folder
    verdict = judge(step, digests_of(folder))
    if verdict.action == "done":
        summary.up_to_date.append(step.name)
        terminal.say(f"[{number}] {step.name}: up to date")
        return
    terminal.title(f"[{number}] {step.name}: {verdict.reason}")
    if moved := set_aside(step, verdict, read_state(folder, step.name)):
        summary.moved[step.name] = str(moved)
        terminal.say(f"the earlier {step.name} is now {quoted(moved)}; remove it if you do not need it")
    begin(folder, step.name, step.kind, verdict.fingerprint, verdict.parts)
    show()
    status = launch(step, terminal)
    state = read_state(folder, step.name)
    if status == 0 and state is not None and state.status == "done":
        summary.done.append(step.name)
        terminal.say(f"[{number}] {step.name}: {state.line} ({duration_text(state.seconds)})")
        return
    raise _fault(step, status, state)


def _fault(step: Step, status: int, state: StepState | None) -> BaseException:
    """Return what ends the flow after a step that is not done."""
    log = quoted(log_path(step.place.folder, step.name))
    if state is not None and state.status == "stopped":
        return KeyboardInterrupt()
    if state is not None and state.status == "failed":
        return FlowError(f"step {step.name}: {state.line} (log: {log})", status if status > 0 else 1)
    # Neither: the process was killed before it could write.
    words = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    hint = ", perhaps for memory" if status == -9 else ""
    end(step.place.folder, step.name, "failed", 0.0, f"its process {words}{hint}")
    return FlowError(f"step {step.name}: its process {words}{hint}; run the same command to continue (log: {log})")


def set_aside(step: Step, verdict: Verdict, before: StepState | None) -> Path | None:
    """Move the output of a step that is done again to FOLDER/superseded; return its new path. None if it is continued."""
    same_kind = before is None or before.kind == step.kind
    continues = same_kind and (verdict.continues or step.continues_any)
    if continues or step.amends or not step.output.exists():
        return None
    folder = step.place.folder / "superseded"
    folder.mkdir(exist_ok=True)
    number = 1
    while (folder / f"{step.name}-{number}").exists():
        number += 1
    return step.output.rename(folder / f"{step.name}-{number}")


def _write_page(folder: Path, settings: FlowSettings, steps: dict[str, Step], terminal: Terminal) -> None:
    try:
        write_page(folder, settings, steps)
    except (FlowError, ValueError, OSError) as error:
        terminal.say(f"the state page was not written: {error}")
