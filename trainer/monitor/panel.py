"""Panels: checkpoints are judged by held-out sentences in processes of their own, between two steps or beside the training.

OUTPUT/panel/held/          the held-out items with their clips
OUTPUT/panel/step_0000500/  what the judge keeps of a checkpoint, and verdict.json
OUTPUT/best                 link to the best checkpoint; the judge sets it
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.checkpoint.restore import step_name, step_paths
from trainer.config import TrainConfig, TrainError
from trainer.data.candidates import Candidate
from trainer.data.corpora import Corpora
from trainer.monitor.held_items import write_held
from trainer.monitor.judging import FOLDER, VERDICT, load_judge, panel_folder
from trainer.runtime.stop_signal import never
from trainer.validation_settings import BestSettings

log = logging.getLogger(__name__)
_POLL_S = 0.2
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE")
"""Variables that would make the process of a judge a rank of the run."""


def check_judge(config: TrainConfig) -> None:
    """Raise TrainError if the judge of `validation.best` cannot be found, or says that it cannot work."""
    best = config.validation.best
    if best is None:
        return
    try:
        load_judge(best.judge)
    except (ImportError, AttributeError) as error:
        raise TrainError(
            f"validation.best.judge={best.judge}: {error}; give module:function of an installed module"
        ) from None
    check = getattr(sys.modules[best.judge.partition(":")[0]], "check", None)
    if check is not None:
        try:
            check(best.model_dump())
        except (ValueError, OSError, ImportError) as error:
            raise TrainError(f"validation.best: {error}") from None


def environment_of(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that is not a rank and sees only a device such as `cpu` or `cuda:1` of this process."""
    found = {name: value for name, value in environment.items() if name not in _RANK_VARIABLES}
    kind, _, number = device.partition(":")
    if kind == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    elif number:
        seen = [name for name in found.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        found["CUDA_VISIBLE_DEVICES"] = seen[int(number)] if int(number) < len(seen) else number
    return found


class Panel:
    """The panels of a run; only the first rank has one."""

    def __init__(
        self,
        config: TrainConfig,
        device: str,
        write: Callable[[int, dict[str, float]], None],
        asked_to_stop: Callable[[], bool] = never,
    ) -> None:
        """device: that of this rank. write: receives the step and the figures of a panel."""
        assert config.validation.best is not None
        self._best: BestSettings = config.validation.best
        self._config, self._write, self._asked_to_stop = config, write, asked_to_stop
        self._output = Path(config.output)
        self._device = device if self._best.device == "auto" else self._best.device
        # The process sees this device only.
        self._settings = self._best.model_dump() | {"device": self._device.partition(":")[0]}
        self._waiting: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.stop = ""
        """Why the run may end early; empty if it should continue."""

    def begin(self, corpora: Corpora, held: Sequence[Candidate], step: int) -> None:
        """Write the held-out items. Checkpoints up to this step that a killed run has not judged are judged first; what it left of
        later steps is removed."""
        for folder in step_paths(self._output / FOLDER):
            if folder.name > step_name(step):
                shutil.rmtree(folder)
        damaged = write_held(self._output / FOLDER / "held", corpora, held, self._config.phases, self._best.segments)
        for reason in damaged.values():
            log.info(f"panel: left out: {reason}")
        for folder in step_paths(self._output / "checkpoints"):
            number = int(folder.name.removeprefix("step_"))
            if number <= step and number % self._best.every == 0 and not self._heard(number):
                self._waiting.append(number)
        known = [int(path.name.removeprefix("step_")) for path in step_paths(self._output / FOLDER)]
        if last := max((number for number in known if self._heard(number)), default=None):
            self.stop = self._heard(last).get("stop", "")
        self._next(wait=not self._best.beside)

    def judge(self, step: int) -> None:
        """Judge the checkpoint of a step, which is complete and in the official layout. Without `beside` it waits for the
        verdict."""
        if step not in self._waiting and not self._heard(step):
            self._waiting.append(step)
        self._next(wait=not self._best.beside)

    def poll(self) -> None:
        """Report a verdict that has arrived, and begin with the next checkpoint that waits."""
        self._next(wait=False)

    def finish(self) -> None:
        """Wait for all verdicts, unless the run is asked to stop."""
        self._next(wait=True)

    def close(self) -> None:
        """End a process that still judges. Its checkpoint is judged when the run is resumed."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def protected(self) -> set[str]:
        """Return the names of the checkpoints that must not be removed: the best one, and those that wait."""
        names = {step_name(step) for step in tuple(self._waiting)}
        link = self._output / "best"
        return names | ({link.readlink().name} if link.is_symlink() else set())

    def _next(self, wait: bool) -> None:
        while self._waiting:
            step = self._waiting[0]
            if self._process is None:
                self._process = self._start(step)
            while wait and self._process.poll() is None:
                if self._asked_to_stop():
                    return
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_POLL_S)
            if self._process.poll() is None:
                return
            self._report(step, self._process.returncode)
            self._process = None
            self._waiting.pop(0)

    def _request(self, step: int) -> dict[str, Any]:
        return {
            "output": str(self._output.absolute()),
            "checkpoint": str((self._output / "checkpoints" / step_name(step)).absolute()),
            "step": step,
            "settings": self._settings,
        }

    def _start(self, step: int) -> subprocess.Popen[bytes]:
        folder = panel_folder(self._output, step)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VERDICT).unlink(missing_ok=True)
        environment = environment_of(self._device, os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        with (folder / "log.txt").open("wb") as said:
            # Its own session: Ctrl-C and the signals of a cluster reach the run, which then ends the judge.
            return subprocess.Popen(
                [sys.executable, "-m", "trainer.monitor.judging", json.dumps(self._request(step))],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _heard(self, step: int) -> dict[str, Any]:
        """Return a step's verdict with these settings; {} if there is none, or only an error."""
        try:
            found: dict[str, Any] = json.loads((panel_folder(self._output, step) / VERDICT).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        free = {"device", "beside"}
        same = {name: value for name, value in found["asked"]["settings"].items() if name not in free}
        mine = {name: value for name, value in self._settings.items() if name not in free}
        return found if "error" not in found and same == mine else {}

    def _report(self, step: int, status: int) -> None:
        folder = panel_folder(self._output, step)
        verdict: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            verdict = json.loads((folder / VERDICT).read_text("utf-8"))
        if "figures" not in verdict:
            reason = verdict.get("error", f"the process ended with status {status}")
            log.info(f"step {step}: panel failed ({reason}); see {folder / 'log.txt'}. The training continues")
            return
        figures: dict[str, float] = verdict["figures"]
        self._write(step, {f"panel/{name}": value for name, value in figures.items()})
        self.stop = verdict["stop"]
        words = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        log.info(f"step {step}: panel {words}; best is step {verdict['best']}")
        # For a reader of the log, when a panel takes longer than the steps between two panels.
        if self._best.beside and len(self._waiting) > 2:
            log.info(f"step {step}: panel: {len(self._waiting) - 1} checkpoints wait; raise validation.best.every")
