"""Settings of validation: losses of held-out segments, and the panel that finds the best checkpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from catalogs.candidates import HELD_OUT_SHARE


class BestSettings(BaseModel, frozen=True, extra="forbid"):
    """Judge checkpoints by held-out sentences that they speak; link the best one as OUTPUT/best."""

    every: int = Field(gt=0)
    """Steps between panels. A checkpoint is saved and exported for each; the last step is always judged."""
    segments: int = Field(32, gt=0)
    """Maximum number of held-out segments that are spoken."""
    patience: int | None = Field(None, gt=0)
    """End the run if this number of panels since the best one are not better, and the last is not better by more than `margin`
    with 95 % confidence. None: never."""
    margin: float = Field(0.02, ge=0)
    """Difference of the panel's cost that does not matter."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Weights of the parts of the cost by name, in addition to the judge's own: words, voice, stop, start."""
    beside: bool = False
    """Judge while training continues, not between two steps. The step at which a run ends early may then differ when repeated."""
    device: str = "auto"
    """Device of the process that judges: cpu, cuda or cuda:N. auto: that of the first rank."""
    judge: str = Field("evaluation.panel:judge", pattern=r"^[\w.]+:\w+$")
    """The judge as `module:function`; it runs in another process for each panel (trainer/monitor/judging.py has the contract)."""


class ValidationSettings(BaseModel, frozen=True, extra="forbid"):
    """Validation on held-out segments, always with the same random numbers."""

    every: int | None = Field(None, gt=0)
    """Steps between validations; the last step is always validated. None: no validation, and nothing is held out."""
    share: float = Field(HELD_OUT_SHARE, gt=0, lt=1)
    """Share of the segments that is held out, chosen by a hash of their ids (the choice stays the same when the corpus grows)."""
    segments: int = Field(64, gt=0)
    """Maximum number of held-out segments that are scored."""
    speak: int = Field(2, ge=0)
    """Number of held-out sentences that are synthesized at each validation. Listen to them in TensorBoard or OUTPUT/heard."""
    best: BestSettings | None = None
    """Find the best checkpoint. None: off."""

    @model_validator(mode="after")
    def _something_is_held_out(self) -> ValidationSettings:
        if self.best is not None and self.every is None:
            raise ValueError("validation.best judges held-out segments: set validation.every, too")
        return self
