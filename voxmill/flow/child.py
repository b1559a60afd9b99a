"""The process of one step: `python -m voxmill.flow.child FOLDER STEP`.

Each step has a process. So the memory of an earlier step, its CUDA context and its Ray are gone, a step that crashes or is
killed for memory cannot take the flow along, and every line goes to one log.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import warnings
from pathlib import Path

from voxmill.flow.fingerprints import digests_of
from voxmill.flow.processes import step_at_work
from voxmill.flow.settings import FlowError, load_flow
from voxmill.flow.state import end
from voxmill.flow.steps import build_steps
from voxmill.flow.steps.base import Step
from voxmill.terminal import Terminal, explain

STOPPED = 130
"""Exit status of a step that a signal ended; the next run continues it."""
_PR_SET_PDEATHSIG = 1


def run_step(step: Step, terminal: Terminal) -> int:
    """Run a step that was begun, and write how it ended. Return the exit status; raises what the step raises."""
    folder, started = step.place.folder, time.monotonic()
    try:
        done = step.run(terminal)
        if done.stopped:
            end(folder, step.name, "stopped", time.monotonic() - started, done.line, result=done.result)
            return STOPPED
        digest = step.digest(done.result, digests_of(folder))
        if digest is None:
            raise FlowError(f"step {step.name} ended without its output in {step.output}: see its log")
    except KeyboardInterrupt:
        end(folder, step.name, "stopped", time.monotonic() - started, "interrupted")
        return STOPPED
    except Exception as error:
        end(folder, step.name, "failed", time.monotonic() - started, explain(error))
        raise
    size = None if step.amends else _bytes(step.output)
    seconds = time.monotonic() - started
    end(folder, step.name, "done", seconds, done.line, result=done.result, digest=digest, bytes=size)
    return 0


def _bytes(folder: Path) -> int:
    """Return the bytes of a folder; links are not followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main(folder: str, name: str, parent: str) -> int:
    """Run a step of the flow in `folder`. Return the exit status; an error is one line on standard error."""
    warnings.filterwarnings("ignore")
    try:
        with step_at_work(Path(folder)):
            _end_with_parent(int(parent))
            flow = load_flow(folder)
            steps = build_steps(Path(folder), flow.sources, flow.steps)
            return run_step(steps[name], Terminal())
    except Exception as error:
        if os.environ.get("VOXMILL_DEBUG"):
            raise
        sys.stderr.write(f"voxmill: {explain(error)}\n")
        return int(getattr(error, "exit_status", 1))


def _end_with_parent(parent: int) -> None:
    """Ask Linux for SIGTERM when the parent dies, so that a killed flow leaves no step at work: a training saves and ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
