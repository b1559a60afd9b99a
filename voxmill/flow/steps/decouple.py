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

_DECISIONS = ("bounds", "pairing", "attempts")
"""Settings that decide again on the samples that are there."""


class DecoupleStepSettings(StepSettings):
    """Settings of `decouple`."""

    corpus: str
    model: str
    limit: int | None = Field(None, ge=1)
    """Most pairs. Default: all that are found."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of `voxmill decouple`."""


class Decouple(CorpusStep):
    """Makes a corpus in which a reference says other words than the target, with the same voice and another style."""

    settings_kind = DecoupleStepSettings
    continues_any = False
    takes: ClassVar[Mapping[str, Takes]] = {"corpus": Takes(("corpus",)), "model": Takes(("model",))}
    base_inputs = ("model",)

    def config(self) -> Any:
        """Return the settings of the synthesis. Raises SettingsError."""
        from pipeline.synthesis.settings import load_decouple_settings

        return load_decouple_settings(None, as_overrides(self.settings.set))

    def effective(self) -> dict[str, Any]:
        """See `Step`. The engine is left out."""
        return {"limit": self.settings.limit, **self._values(set())}

    def base(self) -> dict[str, Any] | None:
        """See `Step`: bounds and pairing may change."""
        return self._values(set(_DECISIONS))

    def _values(self, left_out: set[str]) -> dict[str, Any]:
        try:
            return dict(self.config().model_dump(mode="json", exclude={"engine", *left_out}))
        except ModuleNotFoundError:  # Before the synthesis is merged: the settings as they are written.
            return {name: value for name, value in self.settings.set.items() if name not in {"engine", *left_out}}

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from pipeline.synthesis.decouple import decouple

        corpus, model = self.one("corpus").output, model_folder(self.one("model"))
        with terminal.printing("pipeline"):
            done = decouple(corpus, model, self.output, self.config(), self.settings.limit)
        return Outcome(
            f"{done.accepted} of {done.pairs} pairs accepted, {done.clips} clips made", {"pairs": done.pairs}
        )

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        return Cost(gpu_hours=None, usd=None, notes=("unknown: a model speaks the samples; its speed is not measured",))
