"""The official voxcpm package, in a separate environment, as a system: `official:PYTHON_OF_VENV:CHECKPOINT`.

Its import name is that of ours, so it never runs in our process. `make upstream-venv` makes the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from catalogs.weights.checkpoint_files import file_digests
from evaluation.errors import EvaluationError
from evaluation.systems.base import Ask
from evaluation.systems.options import read_options
from evaluation.systems.process import Process, ProcessOptions, foreign_environment
from evaluation.systems.recipes import RecipeOptions, lacking

WORKER = Path(__file__).parent / "workers" / "official_voxcpm.py"


class OfficialOptions(RecipeOptions, ProcessOptions):
    """Options of `official:`."""

    noise: Literal["torch", "voxmill"] = "torch"
    """`voxmill`: the noise that `checkpoint:` draws for a seed, so that the two differ by rounding only.
    `torch`: the package's own noise."""
    compile: bool = False
    """Whether the package compiles its model, its default on GPUs."""


class Official(Process):
    """Speaks with the official package by the recipes of `checkpoint:`."""

    kind = "official"
    options_kind = OfficialOptions

    def __init__(self, argument: str, **options: Any) -> None:
        chosen = read_options(OfficialOptions, self.kind, options)
        python, _, folder = argument.partition(":")
        if not Path(python).is_file():
            raise EvaluationError(
                f"official: no Python at {python or '(nothing)'}; make one with: make upstream-venv, then write "
                "official:.upstream-venv/bin/python:CHECKPOINT"
            )
        checkpoint = Path(folder).expanduser()
        if not folder or not (checkpoint / "config.json").is_file():
            raise EvaluationError(f"official: no checkpoint at {folder or '(nothing)'} (no config.json)")
        self._recipe = chosen.recipe
        # -I: neither our packages nor the folder of the worker are on its path.
        command = [python, "-I", str(WORKER), "--checkpoint", str(checkpoint.absolute()), "--recipe", chosen.recipe]
        command += ["--cfg", str(chosen.cfg), "--steps", str(chosen.steps), "--device", chosen.device]
        command += ["--noise", chosen.noise, *(["--retry"] if chosen.retry else [])]
        command += ["--compile"] if chosen.compile else []
        about = {"python": python, "folder": str(checkpoint.absolute()), **file_digests(checkpoint)}
        self._open(command, chosen, about, foreign_environment())
        self.name = chosen.name or f"{self.name} ({chosen.recipe})"

    def _lacking(self, ask: Ask) -> str | None:
        return lacking(self._recipe, ask.item)
