"""Settings of a phase that decide which description of a segment comes before the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, model_validator


class CaptionWeights(BaseModel, frozen=True, extra="forbid"):
    """Relative weight of each register in the descriptions of `design` samples, among the registers that the segment has."""

    brief: float = Field(0.4, ge=0)
    """A few words ("a calm young woman"), as users write them."""
    full: float = Field(0.4, ge=0)
    """All traits in a sentence or two."""
    persona: float = Field(0.2, ge=0)
    """A role and its situation."""

    @model_validator(mode="after")
    def _something(self) -> CaptionWeights:
        if not self.brief + self.full + self.persona:
            raise ValueError("every register has weight 0: give one of brief, full and persona a weight above 0")
        return self


class ChineseShares(BaseModel, frozen=True, extra="forbid"):
    """Share of the descriptions that are given in Chinese if the segment has a Chinese one. The others are in English."""

    chinese: float = Field(0.5, ge=0, le=1)
    """Of those for speech in Chinese or one of its dialects."""
    other: float = Field(0.2, ge=0, le=1)
    """Of those for speech in any other language."""


def without_brief(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a phase with `captions` instead of `brief`, the share of brief descriptions in earlier versions.

    Raises ValueError if both are given, or if brief is not a share.
    """
    brief = values["brief"]
    if "captions" in values:
        raise ValueError("brief and captions are the same setting: remove brief")
    if isinstance(brief, bool) or not isinstance(brief, int | float) or not 0 <= brief <= 1:
        raise ValueError(f"brief is a share of 0 to 1, not {brief!r}; its present name is captions")
    others = {name: value for name, value in values.items() if name != "brief"}
    return others | {"captions": {"brief": brief, "full": 1 - brief, "persona": 0.0}}
