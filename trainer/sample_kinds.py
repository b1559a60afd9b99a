"""The kinds of training samples, and which description each is given. All else about a kind is taken from SAMPLE_KINDS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from pydantic import BaseModel, Field, model_validator

CONTINUED_SECONDS = 2.0
"""Shorter clips are not cut in two: each part would hold hardly a word."""


class Offer(IntFlag):
    """What a candidate has to offer, as bits of its mask."""

    RECORDING = 1
    DECOUPLED = 2
    """Speech that a model made from an unrelated text. It has a description and a reference, and serves only as such a sample."""
    DESCRIPTION = 4
    REFERENCE = 8
    TWO_PARTS = 16
    """Lasts CONTINUED_SECONDS or more."""


@dataclass(frozen=True, kw_only=True)
class SampleKind:
    """One kind of sample. The flags determine its parts."""

    layout: str
    """Its name in settings, metrics and messages."""
    weight: float = 0.0
    """Default weight of a phase that sets none. A new kind has 0, so that runs begun before it do not draw it."""
    description: bool = False
    """The text is "(description)text"."""
    registers: tuple[str, ...] = ("brief", "full", "persona")
    """Registers of its description. Several are drawn in the shares of the phase's `captions`. A segment that lacks the one that
    was drawn gets another one that it has."""
    reference: bool = False
    """A clip of the same voice comes before the text."""
    continuation: bool = False
    """The beginning of the clip, up to the end of a word, is given; the loss is on the rest."""
    decoupled: bool = False
    """Served by content-decoupled samples. The kind of the same layout without this flag has the weight; the phase's `decoupled`
    splits its share."""

    @property
    def needs(self) -> Offer:
        """What a candidate must offer to serve this kind."""
        needed = Offer.DECOUPLED if self.decoupled else Offer.RECORDING
        if self.decoupled:
            return needed
        needed |= Offer.DESCRIPTION * self.description | Offer.REFERENCE * self.reference
        return needed | Offer.TWO_PARTS * self.continuation


SAMPLE_KINDS = (
    SampleKind(layout="basic", weight=1.0),
    SampleKind(layout="design", weight=1.0, description=True),
    SampleKind(layout="reference", weight=1.0, reference=True),
    SampleKind(layout="controllable", weight=1.0, description=True, registers=("style",), reference=True),
    SampleKind(layout="continuation", weight=1.0, continuation=True),
    SampleKind(layout="reference_continuation", weight=0.5, reference=True, continuation=True),
    SampleKind(layout="controllable", description=True, registers=("style",), reference=True, decoupled=True),
)
"""Add a new kind at the end: the order of a kind's draws depends on its index."""

DECOUPLED = next(kind for kind in SAMPLE_KINDS if kind.decoupled)
BY_LAYOUT = {kind.layout: kind for kind in SAMPLE_KINDS if not kind.decoupled}
LAYOUTS = tuple(BY_LAYOUT)


def table_rows() -> list[str]:
    """Return the rows of the table in docs/training.md."""
    rows = [
        "| layout | what the model is given | what it learns to generate | a segment can serve it that has |",
        "|---|---|---|---|",
    ]
    for kind in BY_LAYOUT.values():
        given = ["a clip of the same voice"] * kind.reference
        of_style = " with a description of the delivery only" if kind.registers == ("style",) else ""
        given.append(f"`(description)text`{of_style}" if kind.description else "text")
        given += ["the clip up to the end of a word"] * kind.continuation
        needed = ["a description (`voxmill describe`)"] * kind.description
        needed += ["references (`voxmill prepare` mines them)"] * kind.reference
        needed += [f"{CONTINUED_SECONDS:g} s and more"] * kind.continuation
        learned = "the rest" if kind.continuation else "the clip"
        rows.append(f"| `{kind.layout}` | {', '.join(given)} | {learned} | {', '.join(needed) or 'text'} |")
    return rows


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
