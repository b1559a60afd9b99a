"""The state page: FOLDER/index.html, one self-contained file; and the same as a table for `voxmill run --status`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from catalogs.durations import duration_text
from catalogs.files import write_atomically
from catalogs.urls import redacted
from voxmill.flow.build import open_flow
from voxmill.flow.fingerprints import Verdict, depends_on, digests_of, plan
from voxmill.flow.forecast import size_words
from voxmill.flow.processes import at_work
from voxmill.flow.settings import FlowError, FlowSettings
from voxmill.flow.state import StepState, log_path, now, read_state
from voxmill.flow.steps.base import Step
from voxmill.terminal import Terminal, quoted

PAGE = "index.html"
ROW = 104
"""Height of a step on the page, in pixels: arrows are drawn between the middles."""
_LANE, _FIRST_LANE, _EDGE = 15, 14, 132
_LANES = 8


def write_page(folder: Path, settings: FlowSettings, steps: Mapping[str, Step]) -> Path:
    """Write the page and return its path. Raises FlowError if jinja2 is missing."""
    rows = _rows(folder, steps)
    names = list(steps)
    text = _template().render(
        name=settings.name,
        folder=str(folder),
        written=now(),
        sources=[redacted(source) for source in settings.sources],
        rows=rows,
        arrows=arrows(names, {name: [one for one in depends_on(step) if one in names] for name, step in steps.items()}),
        height=ROW * len(rows),
        row_height=ROW,
        gutter=_EDGE + 14,
        total=duration_text(sum(row["seconds"] for row in rows)),
        done=sum(row["state"] == "done" for row in rows),
        superseded=_superseded(folder),
    )
    write_atomically(folder / PAGE, text.encode())
    return folder / PAGE


def show_status(settings: FlowSettings, terminal: Terminal) -> Path:
    """Print the state of each step, write the page, and return its path. Raises FlowError if nothing has begun."""
    folder, steps = open_flow(settings)
    if not folder.is_dir():
        raise FlowError(f"{folder} does not exist: the flow has not begun; start it without --status")
    rows = _rows(folder, steps)
    cells = [[row["name"], row["state_words"], row["started"], row["took"], row["line"]] for row in rows]
    terminal.table(settings.name, ["step", "state", "started (UTC)", "took", "what it did"], cells)
    page = write_page(folder, settings, steps)
    terminal.say(f"{quoted(page)}: open it in a browser")
    return page


def flow_rows(settings: FlowSettings) -> list[dict[str, Any]]:
    """Return the state of each step as JSON values."""
    folder, steps = open_flow(settings)
    return _rows(folder, steps)


def _rows(folder: Path, steps: Mapping[str, Step]) -> list[dict[str, Any]]:
    verdicts, busy = plan(steps, digests_of(folder), steps), at_work(folder)
    return [_row(folder, step, verdicts[name], read_state(folder, name), busy) for name, step in steps.items()]


def _row(folder: Path, step: Step, verdict: Verdict, state: StepState | None, busy: bool) -> dict[str, Any]:
    status = _status(verdict, state, busy)
    done = state is not None and state.status == "done"
    links = [(words, path) for words, path in step.links(state.result if state else {}) if done and path.exists()]
    if log_path(folder, step.name).is_file():
        links.append(("log", log_path(folder, step.name)))
    reason = verdict.reason if status == "due" else ""
    return {
        "name": step.name,
        "kind": step.kind,
        "state": status,
        "state_words": f"{status} ({reason})" if reason else status,
        "reason": reason,
        "from": [one.name for inputs in step.place.inputs.values() for one in inputs],
        "started": state.started.replace("T", " ").partition("+")[0] if state else "",
        "seconds": state.seconds if state else 0.0,
        "took": duration_text(state.seconds) if state and state.ended else "",
        "attempts": state.attempts if state else 0,
        "line": state.line if state else "",
        "size": size_words(state.bytes) if state and done and state.bytes is not None else "",
        "links": [{"words": words, "path": os.path.relpath(path, folder)} for words, path in links],
    }


def _status(verdict: Verdict, state: StepState | None, busy: bool) -> str:
    """Return new, running, killed, stopped, failed, done, or due: it was done, and something changed."""
    if state is None:
        return "new"
    if state.status == "running":
        return "running" if busy else "killed"
    if state.status != "done":
        return state.status
    return "done" if verdict.action == "done" else "due"


def _superseded(folder: Path) -> list[str]:
    found = folder / "superseded"
    return sorted(path.name for path in found.iterdir()) if found.is_dir() else []


def arrows(names: Sequence[str], inputs: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return SVG paths from each step to those that use it, left of the boxes; longer ones further out, on lanes of their own.

    Arrows from one step share a lane, so that what branches from it is seen.
    """
    middle = {name: ROW * number + ROW // 2 for number, name in enumerate(names)}
    users = {name: [other for other in names if name in inputs.get(other, ())] for name in names}
    spans = {name: (middle[name], max(middle[one] for one in found)) for name, found in users.items() if found}
    lanes: list[list[tuple[int, int]]] = []
    found = []
    for name, (top, bottom) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        lane = next((n for n, taken in enumerate(lanes) if all(bottom <= a or top >= b for a, b in taken)), len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((top, bottom))
        x = _EDGE - _FIRST_LANE - _LANE * min(lane, _LANES - 1)
        for other in users[name]:
            end = middle[other] - 16 + 7 * list(inputs[other]).index(name)
            down = f"Q{x} {top + 12} {x} {top + 20} V{end - 8} Q{x} {end} {x + 8} {end}"
            path = f"M{_EDGE + 14} {top + 12} H{x + 8} {down} H{_EDGE + 6}"
            found.append({"path": path, "from": name, "to": other, "tip": f"{_EDGE + 6},{end}"})
    return found


@cache
def _template() -> Any:
    try:
        import jinja2
    except ImportError:
        raise FlowError("the state page needs jinja2; run: pip install 'voxmill[report]'") from None
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html")
