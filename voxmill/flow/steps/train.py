"""`train`: a stage of training, by `trainer.train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from voxmill.flow.digests import Digests
from voxmill.flow.settings import as_overrides
from voxmill.flow.steps.base import Cost, Outcome, Step, StepSettings, Takes

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from voxmill.terminal import Terminal

_RUNTIME: dict[str, Any] = {
    "corpus": True,
    "output": True,
    "latent_cache": True,
    "log_every": True,
    "launch": True,
    "checkpoint": True,
    "compute": {"device", "threads", "compile", "recompute"},
    "data": {"warn_epochs"},
    "model": {"start", "codec"},
    "validation": {"speak": True, "best": {"device", "beside"}},
}
"""Settings that change where and how fast a model is trained, or what is saved: a model is not trained again for them."""


class TrainSettings(StepSettings):
    """Settings of `train`."""

    corpus: str | list[str]
    start: str | None = None
    """A step whose model is trained further. Another checkpoint: `set: {model: {start: FOLDER-OR-HUB-ID}}`."""
    codec: str | None = None
    """A step whose codec a model from scratch uses."""
    recipe: str = "stage1"
    """A recipe of `voxmill train`, or a YAML file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of `voxmill train`, nested: {phases: {all: {steps: 100}}}."""


class Train(Step):
    """Trains a model. Its best checkpoint by `validation.best` is the model of later steps, otherwise the last one."""

    settings_kind = TrainSettings
    gives = "model"
    takes: ClassVar[Mapping[str, Takes]] = {
        "corpus": Takes(("corpus",), many=True),
        "start": Takes(("model",), required=False),
        "codec": Takes(("codec",), required=False),
    }

    def config(self) -> TrainConfig:
        """Return the settings of the trainer. Raises SettingsError."""
        from trainer.config import load_train_config

        corpora = [str(step.output) for step in self.many("corpus")]
        values = {**self.settings.set, "corpus": corpora, "output": str(self.output)}
        model = dict(values.get("model") or {})
        if start := self.many("start"):
            model["start"] = str(model_folder(start[0]))
        if codec := self.many("codec"):
            model["codec"] = str(codec[0].output)
        if model:
            values["model"] = model
        # Phases of another name replace those of the recipe.
        phases = values.pop("phases", None)
        given = as_overrides(values)
        if phases:
            known = load_train_config(self.settings.recipe, given).phases
            new = not set(phases) <= set(known)
            given += as_overrides({"phases": phases}) if not new else [f"phases={_json(phases)}"]
        return load_train_config(self.settings.recipe, given)

    def effective(self) -> dict[str, Any]:
        """See `Step`. Models and codecs of other steps are inputs; others count by name."""
        config = self.config()
        found = config.model_dump(mode="json", exclude=_RUNTIME, exclude_defaults=True)
        found["start"] = None if self.many("start") else config.model.start
        found["codec"] = None if self.many("codec") else config.model.codec
        return found

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from trainer.run import train

        with terminal.printing("trainer"):
            done = train(self.config())
        line = f"{done.steps} steps, loss {done.first_loss:.3f} -> {done.last_loss:.3f}"
        result = {
            "checkpoint": _relative(self.output, done.checkpoint),
            "best": None if done.best is None else _relative(self.output, done.best),
            "steps": done.steps,
            "first_loss": done.first_loss,
            "last_loss": done.last_loss,
        }
        return Outcome(line, result, done.stopped_early)

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`: the weights of the model that later steps use."""
        return digests.weights(self.output / str(result.get("best") or result.get("checkpoint")))

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`: the trainer's own plan if the corpus and the start exist, otherwise arithmetic on the settings."""
        from voxmill.flow.steps.train_cost import train_cost

        return train_cost(self, self.config())

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """See `Step`."""
        names = {"checkpoint": result.get("checkpoint"), "best checkpoint": result.get("best")}
        found = [(words, self.output / str(name)) for words, name in names.items() if name]
        return [*found, ("metrics", self.output / "metrics.jsonl")]


def model_folder(step: Step) -> Path:
    """Return the folder of the model that a step gives to a later training: whole weights, not an adapter."""
    return model_folder_of(step.output)


def model_folder_of(output: Path) -> Path:
    """Return the best checkpoint of an output, otherwise the merged adapter, otherwise the last checkpoint."""
    for name in ("best", "merged"):
        if (output / name / "config.json").is_file():
            return output / name
    return output / "latest"


def _relative(output: Path, path: str) -> str:
    return str(Path(path).absolute().relative_to(output.absolute()))


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
