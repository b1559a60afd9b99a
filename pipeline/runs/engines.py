"""The engine that settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.api import Engine, Output
from pipeline.engine.inline import InlineEngine
from pipeline.engine.worker import StageGroup
from pipeline.runs.errors import no_cluster

if TYPE_CHECKING:
    from pipeline.config import EngineConfig


def make_engine(config: EngineConfig, groups: list[StageGroup], root: Path, marks: Path, output: Output) -> Engine:
    """Return an engine for a run into the corpus `root`. Raises PrepareError if a Ray cluster cannot be joined."""
    if config.executor == "inline":
        return InlineEngine(groups, marks, output)
    from pipeline.engine.ray_engine import RayEngine

    try:
        return RayEngine(groups, marks, root / "strikes", config.address, config.in_flight, output)
    except ConnectionError as error:
        raise no_cluster(config.address, error) from None
