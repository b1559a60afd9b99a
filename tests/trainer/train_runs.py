"""Settings of tiny runs, and runs in separate processes that can be killed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from forked import REPOSITORY as REPOSITORY
from forked import Forked, voxmill_train

from catalogs.corpus.reader import Corpus
from catalogs.settings import move_renamed
from trainer.config import TrainConfig


@dataclass(frozen=True)
class Runs:
    """Makes settings of runs from the golden checkpoint on the small corpus; latents are shared by all."""

    corpus: Path
    start: Path
    cache: Path

    def config(self, output: Path, phase: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
        """One phase of eight steps of two rows, a checkpoint every three."""
        basic: dict[str, Any] = {"steps": 8, "max_positions": 160, "rows": 2, "lr": 1e-3, "warmup": 2}
        values: dict[str, Any] = {
            "corpus": str(self.corpus), "output": str(output), "model": {"start": str(self.start)},
            "phases": {"only": basic | (phase or {})}, "threads": 1, "device": "cpu", "save_every": 3,
            "latent_cache": str(self.cache),
        } | changes  # fmt: skip
        # Short names, in their groups before they are read.
        move_renamed(values, TrainConfig.RENAMED)
        return TrainConfig.model_validate(values)


def losses(output: Path) -> dict[int, tuple[float, float, float]]:
    """(diffusion, stop, gradient norm) by step; every step once."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "loss/diffusion" in row]
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: (row["loss/diffusion"], row["loss/stop"], row["optim/grad_norm"]) for row in rows}


def start_process(config: TrainConfig, folder: Path) -> Forked:
    """Start `voxmill train` in a separate process."""
    path = folder / f"{Path(config.output).name}.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    return Forked(path.with_suffix(".log"), {}, voxmill_train, path)


def damage(corpus: Path, segment: str) -> None:
    """Zero a clip's FLAC bytes behind its head, in place: the shard stays a whole Arrow file."""
    opened = Corpus(corpus)
    data = bytes(opened.audio_buffer(segment))
    shard = corpus / opened.place(segment)[0]
    before = shard.read_bytes()
    at = before.index(data)
    shard.write_bytes(before[: at + 200] + bytes(len(data) - 200) + before[at + len(data) :])
