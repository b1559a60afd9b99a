"""Logs of a training run: one JSON line per step and per skipped sample, and TensorBoard if it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from catalogs.files import write_atomically

if TYPE_CHECKING:
    pass
from dataclasses import dataclass

from torch import Tensor


class Metrics:
    """metrics.jsonl and skipped.jsonl always; TensorBoard event files beside them if the package is installed.

    first_step: steps from this one on are (re)written. What a killed run wrote of them is removed, so that no step appears twice.
    """

    def __init__(self, output: Path, first_step: int = 1) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self._skipped = output / "skipped.jsonl"
        for path in (output / "metrics.jsonl", self._skipped):
            _cut_back(path, first_step)
        self._file = (output / "metrics.jsonl").open("a", encoding="utf-8")
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(output / "tensorboard"), purge_step=first_step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write the values of one step; TensorBoard groups names by the part before the slash."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def skip(self, entry: dict[str, Any]) -> None:
        """Write a line of skipped.jsonl: a step or samples that were left out, with the step, the reason and the segments."""
        with self._skipped.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def hear(self, step: int, heard: list[SpokenSample]) -> None:
        """Write synthesized sentences and their mels to TensorBoard, if it is installed."""
        if self._board is not None:
            for item in heard:
                self._board.add_audio(f"heard/{item.name}", item.audio[None], step, item.rate)
                # Low frequencies at the bottom.
                self._board.add_image(f"mel/{item.name}", item.mel.flip(0)[None], step)
                self._board.add_text(f"heard/{item.name}", item.text, step)
            self._board.flush()


def read_metrics(output: str | Path) -> list[dict[str, float]]:
    """Read the lines of a run's metrics.jsonl."""
    text = (Path(output) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _cut_back(path: Path, first_step: int) -> None:
    """Remove the lines of steps from `first_step` on, and truncated lines, from a log."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (step := _step(line)) is not None and step < first_step]
    if kept != lines:
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def _step(line: str) -> int | None:
    """Return the step of a line; None if a kill truncated the line."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class SpokenSample:
    """One synthesized sentence. audio: float32 [S] in -1..1; mel: float32 [bands, frames], 0 (-80 dB) to 1 (0 dB)."""

    name: str
    text: str
    audio: Tensor
    rate: int
    mel: Tensor
