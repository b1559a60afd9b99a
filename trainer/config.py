"""Settings of `voxmill train`: what is trained on what, in which phases."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    create_model,
    model_validator,
)

from catalogs.settings import Settings, SettingsError, load_settings, move_renamed, read_yaml
from trainer.sample_kinds import BY_LAYOUT


class TrainError(RuntimeError):
    """Training cannot start or continue; the message is one line that says what to do."""


class FrozenSettings(BaseModel):
    """Settings in which an unknown key is an error and nothing changes once read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


if TYPE_CHECKING:

    class LayoutWeights(FrozenSettings):
        """How often each sample kind is drawn, in samples (relative weights), among those that any segment can serve."""

else:
    LayoutWeights = create_model(
        "LayoutWeights",
        __base__=FrozenSettings,
        **{kind.layout: (float, Field(kind.weight, ge=0)) for kind in BY_LAYOUT.values()},
    )


class Phase(FrozenSettings):
    """One stretch of training with its own data, lengths and learning rate."""

    steps: int = Field(gt=0)
    where: str = "true"
    """SQL condition over the catalog's `segments`, besides `kept`."""
    languages: tuple[str, ...] | None = Field(None, min_length=1)
    """Only these, and each of them must be there; None: all."""
    max_seconds: float = Field(60.0, gt=0)
    max_positions: int = Field(4096, gt=8)
    """Positions of one packed row: text tokens and patches of several samples."""
    rows: int = Field(1, gt=0)
    """Rows that go through the model at once."""
    accumulate: int = Field(1, gt=0)
    """A step is rows x accumulate rows, shared out equally among the ranks: on more of them it is the same step, sooner."""
    layouts: LayoutWeights = LayoutWeights()
    layouts_from: LayoutWeights | None = None
    """Weights to begin with: they go over into `layouts` in a straight line. None: `layouts` from the first sample on."""
    ramp: float = Field(0.5, gt=0, le=1)
    """With `layouts_from`: share of the phase's samples that this takes; their number is estimated from the segments' lengths."""
    max_repeats: float = Field(8.0, ge=1)
    """How often a segment may be taken in one layout while all segments are gone through once: a layout that few segments can
    serve gets a smaller share than was asked for beyond this, and so does a language."""
    decoupled: float = Field(0.0, ge=0, le=1)
    """Share of the `controllable` samples that are content-decoupled ones, where the corpus has such."""
    brief: float = Field(0.5, ge=0, le=1)
    """Share of the descriptions that are given in a few words ("a calm young woman"), as people write them, not in sentences."""
    language_temperature: float = Field(1.0, ge=0, le=1)
    """Exponent of the languages' hours: 1: as they are in the corpus; 0: equally many of each."""
    language_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Factors on these shares, 1 for a language that is not named, 0 leaves one out. At temperature 0 the shares themselves."""
    lr: float = Field(1e-4, gt=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["cosine", "constant", "linear", "wsd"] = "cosine"
    """After the warm-up: cosine down to a tenth, constant, linear to zero, or constant with a linear fall at the end (wsd)."""
    decay: float = Field(0.2, gt=0, le=1)
    """Share of the phase's steps that the fall of `wsd` takes."""

    @model_validator(mode="after")
    def _ramp_from_somewhere(self) -> Phase:
        if self.layouts_from is None and self.ramp != type(self).model_fields["ramp"].default:
            raise ValueError("ramp goes from layouts_from to layouts: give layouts_from")
        return self


def _at_home(path: str) -> str:
    """`~/x` as the folder it means: no shell has seen what stands in YAML, or after `--set output=`."""
    return os.path.expanduser(path)  # noqa: PTH111 - `x/` stays `x/`


FolderName = Annotated[str, AfterValidator(_at_home)]


class LoRASettings(FrozenSettings):
    """Adapters are trained instead of the weights; names and defaults of rank are those of the official recipe."""

    enable_lm: bool = True
    enable_dit: bool = True
    enable_proj: bool = False
    r: int = Field(32, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class ModelSettings(FrozenSettings):
    """What is trained."""

    start: FolderName | None = None
    """A checkpoint folder or hub id to start from (with its codec and tokenizer); None: from scratch."""
    size: Literal["toy", "small", "2b"] = "toy"
    """Widths of a model from scratch (voxcpm/presets.py); 2b is the released model's."""
    config: dict[str, Any] | None = None
    """A whole config.json instead of a size; its vocabulary follows the tokenizer, its codec the given one."""
    tokenizer: FolderName | None = None
    """From scratch: a folder with tokenizer.json, or the file; None: one is trained on the corpus' texts."""
    vocabulary: int = Field(512, ge=384)
    """Entries of a tokenizer that is trained."""
    codec: FolderName | None = None
    """From scratch: a checkpoint folder, or what train-codec made, to take the codec from; None: one is trained shortly."""
    codec_steps: int = Field(60, ge=0)
    """Steps a codec that is trained here is trained for."""
    lora: LoRASettings | None = None
    """With `start`: train adapters only."""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.start is not None and (self.config or self.tokenizer or self.codec):
            raise ValueError("start brings its own config, tokenizer and codec: leave these out")
        if self.lora is not None and self.start is None:
            raise ValueError("lora adapts a trained model: give model.start")
        return self


class OptimSettings(FrozenSettings):
    """AdamW."""

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0)
    """On matrices only: norms, biases and embeddings are left alone."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    stop_weight: float = Field(1.0, ge=0)
    """Weight of the stop loss beside the diffusion loss."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is published; None: off."""


class ValidationSettings(FrozenSettings):
    """Held-out segments, always scored with the same random numbers."""

    every: int | None = Field(None, gt=0)
    """Steps between validations, with one at the last step; None: none, and nothing is held out."""
    share: float = Field(0.02, gt=0, lt=1)
    """Share of the segments that is held out, chosen by a hash of their ids (a longer corpus keeps the old choice)."""
    segments: int = Field(64, gt=0)
    """Held-out segments that are scored, at most."""
    speak: int = Field(2, ge=0)
    """Held-out sentences that are spoken at each validation, to be heard in TensorBoard and OUTPUT/heard."""


class GuardSettings(FrozenSettings):
    """What to do when the loss is NaN, infinite or spikes: the batch is skipped and reported. After `max_bad_steps` in a row the
    weights go back to the last checkpoint from before them, while the data continues after them. Then the run gives up."""

    spike: float | None = Field(5.0, gt=1)
    """A loss above this multiple of the median of the last ones is a spike; None: skip only NaN and infinite losses."""
    window: int = Field(50, ge=5)
    """Losses in that median; with fewer, nothing is a spike."""
    rollbacks: int = Field(1, ge=0)
    """How often a run goes back."""
    max_bad_steps: int = Field(10, gt=0)
    """Skipped steps in a row after which the weights go back, or the run gives up."""


class CheckpointSettings(FrozenSettings):
    """What is saved, how often, and for how long."""

    every: int = Field(500, gt=0)
    """Steps between checkpoints; there is one at the last step."""
    keep: int = Field(2, gt=0)
    """Checkpoints kept: the newest."""
    background: bool = False
    """Write a checkpoint while training continues: what belongs to it is copied to the CPU's memory first."""
    export_every: int | None = Field(None, gt=0)
    """Sharded runs: steps between exports to the official layout, at checkpoints; None: at the end only."""


class ComputeSettings(FrozenSettings):
    """What is computed on, and how."""

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic; weights and optimizer state are always float32."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: torch's choice."""
    compile: bool | Literal["auto"] = False
    """torch.compile, block by block: on an H100 2.6 times as fast at the released size, after a minute or two of compiling. auto:
    on a GPU in bfloat16 only (elsewhere every number of documents in a row is compiled again)."""
    recompute: bool = False
    """Activation checkpointing: keep each block's input only and compute the rest again in the backward pass."""


class ConditioningSettings(FrozenSettings):
    """What the model is conditioned on in training besides text and references: the audio before each patch."""

    history_noise: float = Field(0.0, ge=0)
    """Largest noise (in units of the latents' scale) on the audio history that the model is conditioned on during training."""
    history_drop: float = Field(0.0, ge=0, lt=1)
    """Share of the samples that are trained without their audio history, so that the model predicts each patch, not only the
    first, from the text and the reference."""


class LaunchSettings(FrozenSettings):
    """The processes of a run."""

    backend: Literal["here", "ray"] = "here"
    """ray: start `workers` ranks on a Ray cluster; here: this process is one rank (torchrun starts several)."""
    workers: int = Field(1, gt=0)
    """Ranks that Ray starts."""
    address: str | None = None
    """Of the Ray cluster; None: a local one."""
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """On several ranks: ddp holds the whole model on each, fsdp (FSDP2) a part. auto: ddp for adapters, else fsdp; none with
    one process."""


class TrainConfig(FrozenSettings):
    """Everything a run is made from; the resolved form is saved beside its checkpoints."""

    corpus: FolderName | list[FolderName]
    """A corpus folder, or several."""
    output: FolderName
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    phases: dict[str, Phase] = Field(min_length=1)
    """In order; each has a name, so that `--set phases.toy.steps=10` works."""
    validation: ValidationSettings = ValidationSettings()
    steps: int | None = Field(None, gt=0)
    """End after this number of steps in all, whatever the phases say; schedules stay as they are."""
    seed: int = Field(1, ge=0)
    compute: ComputeSettings = ComputeSettings()
    conditioning: ConditioningSettings = ConditioningSettings()
    latent_cache: FolderName | None = "auto"
    """A folder for the codec's latents (about 23 MB per hour of speech), so that each clip is encoded once; None: memory only.
    auto: OUTPUT/latents for adapters, otherwise memory only."""
    log_every: int = Field(10, gt=0)
    """Steps between lines on the console."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    guard: GuardSettings = GuardSettings()
    launch: LaunchSettings = LaunchSettings()

    RENAMED: ClassVar[dict[str, str]] = {
        "launch": "launch.backend",
        **{name: f"launch.{name}" for name in ("workers", "address", "parallel")},
        **{name: f"compute.{name}" for name in ("device", "dtype", "threads", "compile", "recompute")},
        **{name: f"conditioning.{name}" for name in ("history_noise", "history_drop")},
        "save_every": "checkpoint.every",
        "keep": "checkpoint.keep",
        "async_save": "checkpoint.background",
        "export_every": "checkpoint.export_every",
        "max_bad_steps": "guard.max_bad_steps",
    }
    """Settings that lay loose at the top level, and their names today: files and `--set` may still use the earlier ones."""
    _earlier_names: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _by_todays_names(cls, values: Any, handler: ModelWrapValidatorHandler[TrainConfig]) -> TrainConfig:
        if not isinstance(values, dict):
            return handler(values)
        values = dict(values)
        earlier = move_renamed(values, cls.RENAMED)
        config = handler(values)
        config._earlier_names = tuple(earlier)
        return config

    def renamed(self) -> list[str]:
        """One line about the settings that were given by their earlier names, if there are any."""
        words = ", ".join(f"{name} is now {self.RENAMED[name]}" for name in self._earlier_names)
        return [f"settings have new names (the earlier ones still work): {words}"] if words else []

    @property
    def corpora(self) -> list[str]:
        """The corpus folders."""
        return [self.corpus] if isinstance(self.corpus, str) else self.corpus

    @property
    def latent_folder(self) -> str | None:
        """The folder that `latent_cache` means."""
        if self.latent_cache != "auto":
            return self.latent_cache
        return str(Path(self.output) / "latents") if self.model.lora is not None else None

    @property
    def total_steps(self) -> int:
        """Steps over all phases, or `steps` where that is less."""
        planned = sum(phase.steps for phase in self.phases.values())
        return planned if self.steps is None else min(planned, self.steps)


def recipes(package: str = "trainer") -> list[str]:
    """Names of the recipes that come with `trainer` (training) or `trainer.codec`."""
    return sorted(
        item.name.removesuffix(".yaml")
        for item in (files(package) / "recipes").iterdir()
        if item.name.endswith(".yaml")
    )


def load_recipe(kind: type[Settings], package: str, source: str | Path, overrides: Iterable[str] = ()) -> Settings:
    """Settings of `kind` from a YAML file or the name of a package's recipe; raises SettingsError with one line."""
    return load_settings(kind, _recipe_file(package, source), overrides)


def _recipe_file(package: str, source: str | Path) -> Path:
    path = Path(source)
    if not path.is_file():
        recipe = files(package) / "recipes" / f"{source}.yaml"
        if not recipe.is_file():
            known = ", ".join(recipes(package))
            raise SettingsError(f"{source}: no such file, and no recipe of that name; recipes: {known}")
        path = Path(str(recipe))
    return path


def load_train_config(source: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Settings of a run from a YAML file or a recipe's name, with `a.b=c` overrides on top; raises SettingsError, also for one
    setting of a phase that the recipe does not have (a whole one may be added: `phases.NAME={steps: 3}`)."""
    overrides = list(overrides)
    _refuse_unknown_phases(source, overrides)
    return load_recipe(TrainConfig, "trainer", source, overrides)


def _refuse_unknown_phases(source: str | Path, overrides: list[str]) -> None:
    phases = read_yaml(_recipe_file("trainer", source)).get("phases")
    known = list(phases) if isinstance(phases, dict) else []
    for override in overrides:
        group, name, *inner = [*override.partition("=")[0].strip().split("."), ""]
        if group != "phases" or not name:
            continue
        if any(inner) and name not in known:
            raise SettingsError(
                f"--set {override}: {source} has phases: {', '.join(known) or 'none'}; set one of these, or add a whole"
                f" one: phases.{name}={{steps: 100}}"
            )
        known.append(name)
