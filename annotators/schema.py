"""The format of a description, the same for every annotator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Attributes(BaseModel):
    """The parts of a description that measurements can check; None if the annotator cannot tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gender: Literal["male", "female"] | None = None
    age: Literal["child", "teen", "young", "middle", "senior"] | None = None
    accent: str | None = None
    texture: list[str] = Field(default_factory=list, max_length=3)
    emotion: str | None = None
    intensity: float | None = Field(None, ge=0, le=1)
    rate: Literal["slow", "normal", "fast", "varied"] | None = None
    pitch: Literal["low", "mid", "high", "varied"] | None = None
    energy: Literal["soft", "normal", "loud", "varied"] | None = None
    scenario: str | None = None


class VoiceDescription(BaseModel):
    """Voice and style of one clip in words. `brief`: at most 8 words; `full`: one or two sentences, never the transcript."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    brief: str
    full: str
    language: str = "en"
    """Language the description is written in."""
    attributes: Attributes = Attributes()


@dataclass(frozen=True)
class Clip:
    """Input of an annotator: the segment's measured row and, if the annotator `listens`, its audio (FLAC)."""

    row: dict[str, Any]
    flac: bytes | None = None

    @property
    def segment_id(self) -> str:
        return str(self.row["segment_id"])


@dataclass(frozen=True)
class Answer:
    """An annotator's answer for one clip; `error` is the reason if `description` is None (a later pass tries again)."""

    segment_id: str
    description: VoiceDescription | None = None
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
