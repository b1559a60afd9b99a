"""The format of a description, the same for every annotator. What a provider may not put into its schema is enforced here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from catalogs.vocabulary.voices import CLOSED, LISTS, REGISTERS, UNSURE

if TYPE_CHECKING:
    import pyarrow as pa

KeptRows = Callable[[Sequence[str]], "Iterator[pa.Table]"]
"""Each call iterates over all kept segments, some thousands of rows at a time, with the INDEX columns that it names."""
MOST_EMPHASIS = 3
MOST_SCENARIO_WORDS = 8
MOST_EVIDENCE_WORDS = 25


class Attributes(BaseModel):
    """The attributes of a voice and its delivery in closed vocabularies (catalogs/vocabulary/voices.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gender: str = UNSURE
    age: str = UNSURE
    accent: str = UNSURE
    """A name of the accent table in lower case, or the speaker's first language."""
    texture: tuple[str, ...] = ()
    pitch: str = UNSURE
    pitch_range: str = UNSURE
    rate: str = UNSURE
    energy: str = UNSURE
    clarity: str = UNSURE
    emotion: str = UNSURE
    strength: str = UNSURE
    arousal: str = UNSURE
    valence: str = UNSURE
    delivery: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    emphasis: tuple[str, ...] = ()
    """Words of the clip that were heard stressed. They never enter a caption."""
    scenario: str = ""
    """Situation in which one speaks so, at most 8 words."""
    evidence: str = ""
    """What was heard that led to the answer, at most 25 words."""

    @model_validator(mode="after")
    def _in_vocabulary(self) -> Self:
        for name, allowed in CLOSED.items():
            value = getattr(self, name)
            if value != UNSURE and value not in allowed:
                raise ValueError(f"{name} is {value!r}, not one of {', '.join(allowed)} or {UNSURE}")
        for name, (known, most) in LISTS.items():
            values = getattr(self, name)
            if len(values) > most or not set(values) <= set(known):
                raise ValueError(f"{name} is {list(values)}: at most {most} of {', '.join(known)}")
        if len(self.emphasis) > MOST_EMPHASIS:
            raise ValueError(f"emphasis has {len(self.emphasis)} words; at most {MOST_EMPHASIS} are allowed")
        for name, most in (("scenario", MOST_SCENARIO_WORDS), ("evidence", MOST_EVIDENCE_WORDS)):
            if len(getattr(self, name).split()) > most:
                raise ValueError(f"{name} has more than {most} words")
        return self


@dataclass(frozen=True)
class Caption:
    """One text that describes a clip. Raises ValueError for what a training text must not hold."""

    register: str
    """One of REGISTERS."""
    language: str
    """Language that it is written in."""
    text: str

    def __post_init__(self) -> None:
        if self.register not in REGISTERS:
            raise ValueError(f"register is {self.register!r}, not one of {', '.join(REGISTERS)}")
        if not self.text.strip() or any(sign in self.text for sign in '()（）[]\n"“”「」'):
            raise ValueError(f"the {self.register} caption is empty or has brackets, quotes or line breaks")


class VoiceDescription(BaseModel):
    """Voice and style of one clip: attributes, and captions in registers and languages. Never words of the clip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: Attributes = Attributes()
    captions: tuple[Caption, ...] = ()

    def caption(self, register: str, language: str = "en") -> str | None:
        """Return the caption of a register in a language, or None."""
        return next((c.text for c in self.captions if (c.register, c.language) == (register, language)), None)


@dataclass(frozen=True)
class Clip:
    """Input of an annotator: the segment's measured row (INDEX columns) and, if the annotator `listens`, its audio (FLAC)."""

    row: dict[str, Any]
    flac: bytes | None = None

    @property
    def segment_id(self) -> str:
        return str(self.row["segment_id"])


@dataclass(frozen=True)
class Answer:
    """An annotator's answer for one clip. If `description` is None, `error` is the reason."""

    segment_id: str
    description: VoiceDescription | None = None
    error: str | None = None


def captions_of(texts: dict[tuple[str, str], str]) -> tuple[Caption, ...]:
    """Return captions from {(register, language): text}, in the order of the registers."""
    ordered: Sequence[tuple[str, str]] = sorted(texts, key=lambda key: (REGISTERS.index(key[0]), key[1]))
    return tuple(Caption(register, language, texts[register, language]) for register, language in ordered)
