"""`decouple`: content-decoupled samples, spoken by a model of the flow (pipeline.synthesis)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from voxmill.flow.settings import as_overrides
from voxmill.flow.steps.base import CorpusStep, Cost, Outcome, StepSettings, Takes
from voxmill.flow.steps.train import model_folder

if TYPE_CHECKING:
    from voxmill.terminal import Terminal


class DecoupleStepSettings(StepSettings):
    """Settings of `decouple`."""

    corpus: str
    model: str
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of `voxmill decouple`."""


class Decouple(CorpusStep):
    """Makes a corpus in which a reference says other words than the target, with the same voice and another style."""

    settings_kind = DecoupleStepSettings
    continues_any = False
    takes: ClassVar[Mapping[str, Takes]] = {"corpus": Takes(("corpus",)), "model": Takes(("model",))}

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from pipeline.synthesis.decouple import decouple
        from pipeline.synthesis.settings import load_decouple_settings

        settings = load_decouple_settings(None, as_overrides(self.settings.set))
        with terminal.printing("pipeline"):
            done = decouple(self.one("corpus").output, model_folder(self.one("model")), self.output, settings)
        return Outcome(str(getattr(done, "line", "done")))

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        return Cost(gpu_hours=None, usd=None, notes=("unknown: a model speaks the samples; its speed is not measured",))
