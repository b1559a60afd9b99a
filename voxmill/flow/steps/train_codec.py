"""`train_codec`: an audio codec from a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from voxmill.flow.digests import Digests
from voxmill.flow.settings import as_overrides
from voxmill.flow.steps.base import Cost, Outcome, Step, StepSettings, Takes

if TYPE_CHECKING:
    from trainer.codec.config import CodecConfig
    from voxmill.terminal import Terminal

_RUNTIME = {"corpus", "output", "start", "device", "threads", "memory_gb", "save_every", "measure_every"}


class TrainCodecSettings(StepSettings):
    """Settings of `train_codec`."""

    corpus: str | list[str]
    start: str | None = None
    """A step whose codec is trained further."""
    recipe: str = "toy"
    """A recipe of `voxmill train-codec`, or a YAML file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of `voxmill train-codec`."""


class TrainCodec(Step):
    """Trains a codec."""

    settings_kind = TrainCodecSettings
    gives = "codec"
    takes: ClassVar[Mapping[str, Takes]] = {
        "corpus": Takes(("corpus",), many=True, facet="segments"),
        "start": Takes(("codec", "model"), required=False),
    }

    def config(self) -> CodecConfig:
        """Return the settings of the codec's training. Raises SettingsError."""
        from trainer.codec.config import load_codec_config

        values = {**self.settings.set, "output": str(self.output)}
        values["corpus"] = [str(step.output) for step in self.many("corpus")]
        if start := self.many("start"):
            values["start"] = str(start[0].output)
        return load_codec_config(self.settings.recipe, as_overrides(values))

    def effective(self) -> dict[str, Any]:
        """See `Step`."""
        config = self.config()
        outside = {} if self.many("start") else {"start": config.start}
        return config.model_dump(mode="json", exclude=_RUNTIME, exclude_defaults=True) | outside

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from trainer.codec import train_codec

        with terminal.printing("trainer"):
            done = train_codec(self.config())
        line = f"{done.steps} steps, held-out mel distance {done.before.mel:.3f} -> {done.after.mel:.3f}"
        return Outcome(line, {"steps": done.steps, "mel": done.after.mel}, done.stopped_early)

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        return digests.weights(self.output)

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        return Cost(
            gpu_hours=None, usd=None, notes=(f"unknown: {self.config().steps} steps, their time is not measured",)
        )

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """See `Step`."""
        return [("codec", self.output)]
