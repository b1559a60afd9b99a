"""Whether a step is up to date: its fingerprint, and the digest of its output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from voxmill.flow.digests import Digests, digest_of, sources_digest
from voxmill.flow.state import StepState, read_state
from voxmill.flow.steps.base import Step

MISSING = "missing"
BASE = "base"
"""The part of a fingerprint that must be the same for a run to continue in the folder of another fingerprint."""


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a step.

    `done`: up to date. `run`: due, for `reason`. `waits`: an earlier step runs first; whether this one is due follows from what
    that one makes.
    """

    action: Literal["done", "run", "waits"]
    reason: str
    fingerprint: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    continues: bool = False
    """True if the run continues with what is in the folder: after an interruption, or if only other decisions are asked for."""


def fingerprint_parts(step: Step, digests: Digests) -> dict[str, str]:
    """Return digests of all that determines the output of a step, by name."""
    folder = step.place.folder
    parts = {"code": f"{step.kind} {step.version}", "settings": step.settings_digest}
    for setting, takes in step.takes.items():
        for one in step.many(setting):
            state = read_state(folder, one.name)
            found = one.content(takes.facet, state.result if state else {}, digests)
            parts[f"{setting} {one.name}"] = found or MISSING
    if step.reads_sources and not any(step.place.inputs.values()):
        parts["sources"] = sources_digest(step.place.sources)
    if step.follows_amendments:
        for one in step.place.amended_by:
            state = read_state(folder, one.name)
            parts[f"step {one.name}"] = state.fingerprint if state else MISSING
    if (base := step.base()) is not None:
        given = [value for name, value in parts.items() if name.partition(" ")[0] in step.base_inputs]
        parts[BASE] = digest_of([step.version, base, given])
    return parts


def judge(step: Step, digests: Digests, pending: Iterable[str] = ()) -> Verdict:
    """Return what is to be done with a step. pending: earlier steps that will run first."""
    before = read_state(step.place.folder, step.name)
    waiting = [name for name in depends_on(step) if name in set(pending)]
    parts = fingerprint_parts(step, digests)
    mark = digest_of(parts)
    if before is None:
        return Verdict("run", "new", mark, parts)
    changed = [name for name in {**parts, **before.parts} if parts.get(name) != before.parts.get(name)]
    continues = BASE in parts and parts[BASE] == before.parts.get(BASE)
    own = [name for name in changed if name in ("code", "settings", "sources")]
    if waiting and not own and before.status == "done":
        return Verdict("waits", f"if {all_of(waiting)} something else", mark, parts)
    if changed:
        named = ", ".join(name for name in changed if name != BASE)
        return Verdict("run", f"changed: {named}", mark, parts, continues)
    if before.status != "done":
        how = {"running": "was killed", "stopped": "was stopped", "failed": "failed"}[before.status]
        return Verdict("run", f"continues: it {how}", mark, parts, continues=True)
    return _output_verdict(step, before, digests, mark, parts)


def all_of(names: Sequence[str]) -> str:
    """Return `prepare makes`, `prepare and codec make`."""
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{listed} {'makes' if len(names) == 1 else 'make'}"


def _output_verdict(step: Step, before: StepState, digests: Digests, mark: str, parts: Mapping[str, str]) -> Verdict:
    found = step.digest(before.result, digests)
    if found is None:
        return Verdict("run", "its output is missing", mark, parts)
    if found != before.digest:
        return Verdict("run", "its output was changed", mark, parts)
    return Verdict("done", "up to date", mark, parts)


def depends_on(step: Step) -> list[str]:
    """Return the steps whose run may make this step due: its inputs, and those that amend the corpora that it reads."""
    found = {one.name: None for inputs in step.place.inputs.values() for one in inputs}
    whole = any(
        takes.facet == "whole" and any(one.gives == "corpus" for one in step.many(setting))
        for setting, takes in step.takes.items()
    )
    if whole or step.follows_amendments:
        found |= dict.fromkeys(one.name for one in step.place.amended_by)
    return list(found)


def plan(steps: Mapping[str, Step], digests: Digests, names: Iterable[str]) -> dict[str, Verdict]:
    """Return the verdicts of steps before any of them runs."""
    found: dict[str, Verdict] = {}
    for name in names:
        pending = [other for other, verdict in found.items() if verdict.action != "done"]
        found[name] = judge(steps[name], digests, pending)
    return found


def digests_of(folder: Path) -> Digests:
    """Return the remembered digests of a flow."""
    return Digests(folder / "state" / "digests.json.cache")
