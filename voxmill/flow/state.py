"""The state of the steps: one JSON file each, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from catalogs.files import write_atomically

Status = Literal["running", "done", "stopped", "failed"]


class StepState(BaseModel):
    """What is known of the last run of a step."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    status: Status
    """`running` after the process ended means that it was killed."""
    fingerprint: str
    parts: dict[str, str] = {}
    """Digests of what the fingerprint is made of, by name, so that a change can be named."""
    started: str = ""
    """UTC."""
    ended: str | None = None
    seconds: float = 0.0
    """Wall time of all attempts with this fingerprint."""
    attempts: int = 0
    line: str = ""
    """What the step did, or why it failed, in one line."""
    result: dict[str, Any] = {}
    digest: str | None = None
    """Digest of the output when the step was done."""
    bytes: int | None = None
    """Size of the output when the step was done; None if the step amends a corpus."""


def state_path(folder: Path, step: str) -> Path:
    """Return the file of a step."""
    return folder / "state" / f"{step}.json"


def log_path(folder: Path, step: str) -> Path:
    """Return the log of a step."""
    return folder / "logs" / f"{step}.log"


def read_state(folder: Path, step: str) -> StepState | None:
    """Return the state of a step; None if it has never begun, or if the file cannot be read."""
    try:
        return StepState.model_validate_json(state_path(folder, step).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def write_state(folder: Path, step: str, state: StepState) -> None:
    """Write the state of a step."""
    data = json.dumps(state.model_dump(mode="json"), indent=1, ensure_ascii=False).encode()
    write_atomically(state_path(folder, step), data)


def begin(folder: Path, step: str, kind: str, fingerprint: str, parts: Mapping[str, str]) -> StepState:
    """Write that a step runs. Times of interrupted attempts with the same fingerprint are added up."""
    before = read_state(folder, step)
    again = before is not None and before.fingerprint == fingerprint and before.status != "done"
    state = StepState(
        kind=kind,
        status="running",
        fingerprint=fingerprint,
        parts=dict(parts),
        started=now(),
        seconds=before.seconds if before is not None and again else 0.0,
        attempts=(before.attempts if before is not None and again else 0) + 1,
    )
    write_state(folder, step, state)
    return state


def end(folder: Path, step: str, status: Status, seconds: float, line: str, **changed: Any) -> StepState:
    """Write how a step that was begun ended."""
    before = read_state(folder, step)
    assert before is not None, f"{step} has not begun"
    total = before.seconds + seconds
    state = before.model_copy(update={"status": status, "ended": now(), "seconds": total, "line": line, **changed})
    write_state(folder, step, state)
    return state


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
