"""Settings of `voxmill train`: the model, the data and the phases."""

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
    field_validator,
    model_validator,
)

from catalogs.settings import Settings, SettingsError, load_settings, move_renamed, read_yaml
from catalogs.vocabulary.licenses import allowed_sql
from trainer.sample_kinds import BY_LAYOUT, CaptionWeights, ChineseShares, without_brief
from trainer.validation_settings import ValidationSettings as ValidationSettings


class TrainError(RuntimeError):
    """Training cannot start or continue; the message is one line that states what to do."""


class FrozenSettings(BaseModel):
    """Immutable settings in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


if TYPE_CHECKING:

    class LayoutWeights(FrozenSettings):
        """Relative weight of each sample kind, in samples, among the kinds that at least one segment can serve."""

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
    """SQL condition over the catalog's `segments`, in addition to `kept`."""
    languages: tuple[str, ...] | None = Field(None, min_length=1)
    """Train on these languages only; each must have kept segments. None: all languages."""
    max_seconds: float = Field(60.0, gt=0)
    max_positions: int = Field(4096, gt=8)
    """Positions of one packed row: text tokens and patches of several samples."""
    rows: int = Field(1, gt=0)
    """Rows of one forward pass."""
    accumulate: int = Field(1, gt=0)
    """A step is rows x accumulate rows, divided equally among the ranks. More ranks compute the same step in less time."""
    layouts: LayoutWeights = LayoutWeights()
    layouts_from: LayoutWeights | None = None
    """Initial weights, interpolated linearly to `layouts`. None: `layouts` from the first sample on."""
    ramp: float = Field(0.5, gt=0, le=1)
    """Share of the phase's samples over which `layouts_from` is interpolated to `layouts`. The number of samples is estimated from
    the segments' lengths."""
    max_repeats: float = Field(8.0, ge=1)
    """How many times a segment may be drawn in one layout during one pass over all segments. If few segments can serve a layout,
    this limits the layout's share. It limits the share of a language in the same way."""
    decoupled: float = Field(0.0, ge=0, le=1)
    """Share of the `controllable` samples that are content-decoupled, if the corpus has such samples."""
    captions: CaptionWeights = CaptionWeights()
    """Weights of the registers of descriptions in `design`. `controllable` is given the style only, if the segment has it."""
    chinese_captions: ChineseShares = ChineseShares()
    """Share of the descriptions in Chinese, by the language that is spoken."""
    language_temperature: float = Field(1.0, ge=0, le=1)
    """Exponent of each language's hours of audio: 1 keeps the shares of the corpus, 0 gives every language the same share."""
    language_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Factors on these shares: 1 for a language that is not listed, 0 to leave a language out. At temperature 0 the factors are
    the relative shares themselves."""
    lr: float = Field(1e-4, gt=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["cosine", "constant", "linear", "wsd"] = "cosine"
    """After the warm-up: cosine decay to a tenth, constant, linear decay to zero, or constant with a linear decay at the end
    (wsd)."""
    decay: float = Field(0.2, gt=0, le=1)
    """Share of the phase's steps over which `wsd` decays."""

    _earlier_names: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _by_todays_names(cls, values: Any, handler: ModelWrapValidatorHandler[Phase]) -> Phase:
        if not isinstance(values, dict) or "brief" not in values:
            return handler(values)
        phase = handler(without_brief(values))
        phase._earlier_names = ("brief",)
        return phase

    @property
    def brief_share(self) -> float:
        """Share of the brief descriptions among the brief and full ones: the setting `brief` of earlier versions."""
        return self.captions.brief / max(self.captions.brief + self.captions.full, 1e-9)

    @model_validator(mode="after")
    def _ramp_from_somewhere(self) -> Phase:
        if self.layouts_from is None and self.ramp != type(self).model_fields["ramp"].default:
            raise ValueError("ramp goes from layouts_from to layouts: give layouts_from")
        return self


def _at_home(path: str) -> str:
    """Expand `~/x`: no shell does so for a value in YAML, or after `--set output=`."""
    return os.path.expanduser(path)  # noqa: PTH111 - `x/` stays `x/`


FolderName = Annotated[str, AfterValidator(_at_home)]


class LoRASettings(FrozenSettings):
    """Train adapters instead of the weights. Names and the default rank are those of the official recipe."""

    enable_lm: bool = True
    enable_dit: bool = True
    enable_proj: bool = False
    r: int = Field(32, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class ModelSettings(FrozenSettings):
    """The model to train."""

    start: FolderName | None = None
    """A checkpoint folder or hub id to start from (with its codec and tokenizer); None: from scratch."""
    size: Literal["toy", "small", "2b"] = "toy"
    """Widths of a model from scratch (voxcpm/presets.py); 2b is the released model's."""
    config: dict[str, Any] | None = None
    """A whole config.json instead of a size. The tokenizer sets its vocabulary size; a given codec sets its codec settings."""
    tokenizer: FolderName | None = None
    """From scratch: a folder with tokenizer.json, or the file; None: train one on the texts of the corpus."""
    vocabulary: int = Field(512, ge=384)
    """Number of entries of a tokenizer that is trained here."""
    codec: FolderName | None = None
    """From scratch: a checkpoint folder, or the output of train-codec, to take the codec from; None: train one briefly."""
    codec_steps: int = Field(60, ge=0)
    """Number of training steps of a codec that is trained here."""
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
    """Applied to matrices only, not to norms, biases and embeddings."""
    clip: float = Field(1.0, gt=0)
    """Maximum norm of the gradient."""
    stop_weight: float = Field(1.0, ge=0)
    """Weight of the stop loss relative to the diffusion loss."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights; checkpoints are then published with the average. None: off."""


class GuardSettings(FrozenSettings):
    """What to do if the loss is NaN, infinite or spikes: the batch is skipped and reported. After `max_bad_steps` in a row the
    weights are restored from the last checkpoint before them, and the data continues after them. After `rollbacks` such
    rollbacks the run fails."""

    spike: float | None = Field(5.0, gt=1)
    """A loss above this multiple of the median of the last losses is a spike. None: skip only NaN and infinite losses."""
    window: int = Field(50, ge=5)
    """Number of losses in that median. Before there are as many, no loss counts as a spike."""
    rollbacks: int = Field(1, ge=0)
    """How many times a run goes back to an earlier checkpoint."""
    max_bad_steps: int = Field(10, gt=0)
    """Number of skipped steps in a row after which the weights are rolled back, or the run fails."""


class CheckpointSettings(FrozenSettings):
    """What is saved, how often, and for how long."""

    every: int = Field(500, gt=0)
    """Steps between checkpoints; the last step is always saved."""
    keep: int = Field(2, gt=0)
    """Number of checkpoints to keep: the newest."""
    background: bool = False
    """Write a checkpoint while training continues: its tensors are copied to CPU memory first."""
    export_every: int | None = Field(None, gt=0)
    """Sharded runs: steps between exports to the official layout, at checkpoints; None: at the end only."""


class ComputeSettings(FrozenSettings):
    """The device, the arithmetic and the speed and memory options."""

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the arithmetic; weights and optimizer state are always float32."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: torch's choice."""
    compile: bool | Literal["auto"] = False
    """Compile each block with torch.compile. On an H100 this is 2.6 times as fast at the released size, after a minute or two of
    compiling. auto: only on a GPU in bfloat16 (otherwise each number of documents in a row needs another compilation)."""
    recompute: bool = False
    """Activation checkpointing: keep only each block's input and recompute the rest in the backward pass."""


class ConditioningSettings(FrozenSettings):
    """What the model is conditioned on in training besides text and references: the audio before each patch."""

    history_noise: float = Field(0.0, ge=0)
    """Largest noise (in units of the latents' scale) on the audio history that the model is conditioned on during training."""
    history_drop: float = Field(0.0, ge=0, lt=1)
    """Share of the samples that are trained without their audio history. The model then predicts every patch, not only the first,
    from the text and the reference."""


class LaunchSettings(FrozenSettings):
    """The processes of a run."""

    backend: Literal["here", "ray"] = "here"
    """ray: start `workers` ranks on a Ray cluster; here: this process is one rank (torchrun starts several)."""
    workers: int = Field(1, gt=0)
    """Ranks that Ray starts."""
    address: str | None = None
    """Address of the Ray cluster; None: a local one."""
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """On several ranks: ddp holds the whole model on each rank, fsdp (FSDP2) a part of it. auto: ddp for adapters, otherwise fsdp;
    none with one process."""


class DataSettings(FrozenSettings):
    """Which segments of the corpora a run may train on, in all phases."""

    licenses: tuple[str, ...] = ("any",)
    """Licenses of recordings: SPDX identifiers, globs such as CC-BY-*, or the words `commercial`, `stated` and `any`
    (docs/licenses.md). Segments of other recordings are not trained on, spoken, held out or used as references."""

    warn_epochs: float | None = Field(200.0, gt=0)
    """Passes of a phase over its segments above which the plan and the run warn: the model memorizes them. None: never warn, if
    this is meant."""

    @field_validator("licenses")
    @classmethod
    def _licenses_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        allowed_sql(value)
        return value


class TrainConfig(FrozenSettings):
    """All settings of a run. The resolved form is saved beside its checkpoints."""

    corpus: FolderName | list[FolderName]
    """A corpus folder, or several."""
    output: FolderName
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    phases: dict[str, Phase] = Field(min_length=1)
    """Phases by name, in the order of training. With names, `--set phases.toy.steps=10` works."""
    validation: ValidationSettings = ValidationSettings()
    steps: int | None = Field(None, gt=0)
    """End after this total number of steps, even if the phases have more. The schedules do not change."""
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
    """Settings that used to be at the top level, and their current names. Files and `--set` may still use the old names."""
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
        """Return one line about settings that were given by their old names, or no line if there are none."""
        present = {name: self.RENAMED[name] for name in self._earlier_names}
        if any("brief" in phase._earlier_names for phase in self.phases.values()):
            present["brief of a phase"] = "captions"
        words = ", ".join(f"{name} is now {now}" for name, now in present.items())
        return [f"settings have new names (the earlier ones still work): {words}"] if words else []

    @property
    def corpora(self) -> list[str]:
        """The corpus folders."""
        return [self.corpus] if isinstance(self.corpus, str) else self.corpus

    @property
    def latent_folder(self) -> str | None:
        """The folder that `latent_cache` resolves to; None: memory only."""
        if self.latent_cache != "auto":
            return self.latent_cache
        return str(Path(self.output) / "latents") if self.model.lora is not None else None

    @property
    def total_steps(self) -> int:
        """Number of steps of all phases, or `steps` if that is less."""
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
    """Load settings of `kind` from a YAML file or the name of a package's recipe. Raises SettingsError with one line."""
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
    """Load the settings of a run from a YAML file or a recipe's name, with `a.b=c` overrides on top.

    Raises SettingsError, also for a single setting of a phase that the recipe does not have. A whole phase may be added:
    `phases.NAME={steps: 3}`.
    """
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
