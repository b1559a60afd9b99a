"""`decouple`: content-decoupled samples, spoken by a model of the flow (pipeline.synthesis)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from catalogs.words import counted
from voxmill.flow.settings import as_overrides
from voxmill.flow.steps.base import CorpusStep, Cost, Outcome, StepSettings, Takes, before
from voxmill.flow.steps.train import model_folder

if TYPE_CHECKING:
    from pipeline.synthesis.settings import DecoupleSettings
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
    """Clones described speech onto unrelated texts, into a corpus of synthetic speech."""

    settings_kind = DecoupleStepSettings
    continues_any = False
    takes: ClassVar[Mapping[str, Takes]] = {"corpus": Takes(("corpus",)), "model": Takes(("model",))}
    base_inputs = ("model",)

    def config(self) -> DecoupleSettings:
        """Return the settings of the synthesis. Raises SettingsError."""
        from pipeline.synthesis.settings import load_decouple_settings

        return load_decouple_settings(None, as_overrides(self.settings.set))

    def effective(self) -> dict[str, Any]:
        """See `Step`. The engine is left out."""
        return {
            "limit": self.settings.limit,
            **self.config().model_dump(mode="json", exclude={"engine"}, exclude_defaults=True),
        }

    def base(self) -> dict[str, Any] | None:
        """See `Step`: bounds and pairing may change."""
        return dict(self.config().model_dump(mode="json", exclude={"engine", *_DECISIONS}, exclude_defaults=True))

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from pipeline.synthesis.decouple import decouple
        from voxmill.progress import PrepareProgress

        corpus, model = self.one("corpus").output, model_folder(self.one("model"))
        with PrepareProgress(terminal) as progress:
            done = decouple(corpus, model, self.output, self.config(), self.settings.limit, progress)
        line = f"{done.accepted} of {counted(done.pairs, 'pair')} accepted, {counted(done.clips, 'clip')} made"
        return Outcome(line, {"pairs": done.pairs, "accepted": done.accepted})

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`: a trial of some pairs, if the corpus and the model exist."""
        from pipeline.synthesis.forecast import forecast_decouple

        waits = [step.name for setting in self.takes for step in self.many(setting) if not step.output.exists()]
        if waits:
            return Cost(gpu_hours=None, usd=None, notes=(f"unknown {before(waits)}",))
        corpus, model = self.one("corpus").output, model_folder(self.one("model"))
        found = forecast_decouple(corpus, model, self.output, self.config(), self.settings.limit)
        hours = None if found.wall_s is None else found.wall_s / 3600
        return Cost(
            hours, None, None, found.disk_bytes, (f"{counted(found.pairs, 'pair')}, in one process, from a trial",)
        )
