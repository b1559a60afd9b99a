"""The process that judges one checkpoint: `python -m trainer.monitor.judging REQUEST`. Importing this file is cheap.

A judge is `module:function` with the arguments (output, checkpoint, step, settings): the folder of the run, the checkpoint in the
official layout, its step, and `validation.best` as a dictionary with a resolved `device`. OUTPUT/panel/held has the held-out
items. It returns a dictionary:

* `figures`: name -> figure, for the metrics of the run;
* `best`: the step of the best checkpoint so far, which the judge has linked as OUTPUT/best;
* `stop`: why the run may end, in one line; empty if it should continue.

If the module has a function `check(settings)`, it is called before the run starts. It raises an error with one line if the judge
cannot work, such as for weights that are missing.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from catalogs.files import one_line, write_atomically

FOLDER = "panel"
VERDICT = "verdict.json"

Judge = Callable[[Path, Path, int, Mapping[str, Any]], Mapping[str, Any]]


def load_judge(name: str) -> Judge:
    """Return the function of `module:function`. Raises ImportError or AttributeError."""
    module, _, function = name.partition(":")
    judge: Judge = getattr(importlib.import_module(module), function)
    return judge


def panel_folder(output: Path, step: int) -> Path:
    """Return the folder of a step's panel."""
    return output / FOLDER / f"step_{step:07d}"


def judge_one(request: Mapping[str, Any]) -> dict[str, Any]:
    """Judge as a request says; return the verdict. An error is part of the verdict, in one line."""
    settings: dict[str, Any] = request["settings"]
    verdict: dict[str, Any] = {"asked": request}
    try:
        judge = load_judge(settings["judge"])
        found = judge(Path(request["output"]), Path(request["checkpoint"]), request["step"], settings)
        figures = {name: float(value) for name, value in found["figures"].items()}
        verdict |= {"figures": figures, "best": int(found["best"]), "stop": str(found["stop"])}
    except Exception as error:  # whatever it is, the training continues
        verdict["error"] = f"{type(error).__name__}: {one_line(error)}"
    return verdict


def main(request: str) -> None:
    """Judge, and write the verdict into the folder of the step's panel."""
    asked = json.loads(request)
    verdict = judge_one(asked)
    path = panel_folder(Path(asked["output"]), asked["step"]) / VERDICT
    write_atomically(path, json.dumps(verdict, indent=1, ensure_ascii=False).encode())


if __name__ == "__main__":
    main(sys.argv[1])
