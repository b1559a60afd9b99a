"""Settings of `voxmill train`: what is trained on what, in which phases."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from catalogs.settings import SettingsError, load_settings

LAYOUTS = ("basic", "design", "reference", "controllable", "continuation", "reference_continuation")


class TrainError(RuntimeError):
    """Training cannot start or go on; the message is one line that says what to do."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayoutWeights(_Settings):
    """How often each sequence layout is chosen among those a segment can serve (relative weights)."""

    basic: float = Field(1.0, ge=0)
    design: float = Field(1.0, ge=0)
    """"(description)text" """
    reference: float = Field(1.0, ge=0)
    controllable: float = Field(1.0, ge=0)
    """Reference clip and "(description)text"."""
    continuation: float = Field(1.0, ge=0)
    """The clip's beginning, up to a word, is given; the loss is on the rest."""
    reference_continuation: float = Field(0.5, ge=0)


class Phase(_Settings):
    """One stretch of training with its own data, lengths and learning rate."""

    steps: int = Field(gt=0)
    where: str = "true"
    """SQL condition over the catalog's `segments`, besides `kept`."""
    max_seconds: float = Field(60.0, gt=0)
    max_positions: int = Field(4096, gt=8)
    """Positions of one packed row: text tokens and patches of several samples."""
    rows: int = Field(1, gt=0)
    """Rows of one step (of each accumulation part)."""
    accumulate: int = Field(1, gt=0)
    layouts: LayoutWeights = LayoutWeights()
    language_temperature: float = Field(1.0, ge=0, le=1)
    """1: languages as they are in the corpus; 0: all equally often."""
    lr: float = Field(1e-4, gt=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["cosine", "constant", "linear"] = "cosine"


class ModelSettings(_Settings):
    """What is trained."""

    start: str | None = None
    """A checkpoint folder or hub id to start from; None: from scratch with `size`."""
    size: Literal["toy", "small"] = "toy"
    """Widths of a model from scratch (trainer/sizes.py)."""
    vocabulary: int = Field(512, ge=384)
    """Entries of the tokenizer that is trained on the corpus' texts when starting from scratch."""
    codec_steps: int = Field(60, ge=0)
    """Steps the codec of a model from scratch is trained for first."""


class OptimSettings(_Settings):
    """AdamW."""

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0)
    """On matrices only: norms, biases and embeddings are left alone."""
    clip: float = Field(1.0, gt=0)
    stop_weight: float = Field(1.0, ge=0)
    """Weight of the stop loss beside the diffusion loss."""


class TrainConfig(_Settings):
    """Everything a run is made from; the resolved form is saved beside its checkpoints."""

    corpus: str
    output: str
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    phases: dict[str, Phase]
    """In order; each has a name, so that `--set phases.toy.steps=10` works."""
    seed: int = 1
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: torch's choice."""
    log_every: int = Field(10, gt=0)
    save_every: int = Field(500, gt=0)
    keep: int = Field(2, gt=0)
    """Checkpoints kept."""
    max_bad_steps: int = Field(10, gt=0)
    """Steps in a row with a loss or gradient that is no number, after which the run gives up."""

    @property
    def steps(self) -> int:
        """Steps over all phases."""
        return sum(phase.steps for phase in self.phases.values())


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(item.name.removesuffix(".yaml") for item in (files("trainer") / "recipes").iterdir())


def load_train_config(source: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Settings from a YAML file or a recipe's name, with `a.b=c` overrides on top; raises SettingsError with one line."""
    path = Path(source)
    if not path.is_file():
        recipe = files("trainer") / "recipes" / f"{source}.yaml"
        if not recipe.is_file():
            raise SettingsError(f"{source}: no such file, and no recipe of that name; recipes: {', '.join(recipes())}")
        path = Path(str(recipe))
    config = load_settings(TrainConfig, path, overrides)
    if not config.phases:
        raise SettingsError("phases is empty: a run needs at least one")
    return config
