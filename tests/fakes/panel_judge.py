"""A judge whose costs are written in the settings: `weights: {"2": 0.5, "4": 0.2}` by step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def judge(output: Path, checkpoint: Path, step: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the cost, link the best, and stop as soon as `patience` panels are worse. A cost of 9 is an error."""
    cost = settings["weights"][str(step)]
    if cost == 9:
        raise ValueError(f"cannot judge\n{checkpoint}")
    assert (checkpoint / "model.safetensors").is_file() and (output / "panel" / "held" / "items.jsonl").is_file()
    assert "RANK" not in os.environ and os.environ["CUDA_VISIBLE_DEVICES"] == "" and settings["device"] == "cpu"
    (output / "panel" / f"step_{step:07d}" / "cost.json").write_text(json.dumps(cost))
    costs = {
        int(path.parent.name.removeprefix("step_")): json.loads(path.read_text())
        for path in (output / "panel").glob("step_*/cost.json")
    }
    best = min(costs, key=lambda one: costs[one])
    (output / "best.new").symlink_to(f"checkpoints/step_{best:07d}")
    (output / "best.new").replace(output / "best")
    late = settings["patience"] is not None and sum(one > best for one in costs) >= settings["patience"]
    return {"figures": {"cost": cost}, "best": best, "stop": f"step {best} is the best" if late else ""}


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a weight of 8."""
    if 8 in settings["weights"].values():
        raise ValueError("weights: 8 is too much; take less")
