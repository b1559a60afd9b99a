"""Settings of a listening test."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Kind = Literal["acr", "cmos", "ab", "abx", "mushra"]
Scale = Literal["naturalness", "similarity", "instruction"]
Language = Literal["en", "de", "zh", "es", "fr"]


FORMAT = 1
"""Version of the key and of files of answers."""
PAGE = "send/listen.html"
KEY = "key/KEEP-PRIVATE-key.json"
"""Where a test has its page and its key."""


class ListenSettings(BaseModel):
    """Settings of one test; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "acr"
    """`acr`: one clip, five labeled points. `cmos`: the second clip beside the first, -3 to +3. `ab`: the better of two, or no
    difference. `abx`: the clip that is closer to the voice X, or no difference. `mushra`: all systems at once, 0 to 100."""
    scales: tuple[Scale, ...] = Field(("naturalness",), min_length=1)
    """Questions of `acr`. `similarity` needs items with a reference clip, `instruction` items with an instruction."""
    items: int = Field(24, gt=0)
    """Items to draw from those that every system has spoken."""
    sessions: int = Field(40, gt=0)
    """Listeners that are planned for. Listener number `sessions` + 1 gets the plan of listener 1."""
    human: bool = False
    """Add the recordings of the items as the system `human`."""
    against: str | None = None
    """`cmos`, `ab`, `abx`: compare every system with this one only. None: every pair of systems."""
    reference: str = "human"
    """`mushra`: the system that is the reference; `human` without such a run: the recordings of the items."""
    training: int = Field(2, ge=0)
    """Trials at the start that do not count."""
    attention: int = Field(2, ge=0)
    """Trials in which beeps are counted."""
    gold: bool = True
    """Ask once for the better of a clip and the same clip, hard-clipped. Not in `mushra`, which has its hidden reference."""
    repeats: float = Field(0.05, ge=0, le=0.5)
    """Share of trials that are asked twice; at least one, if there are eight trials or more."""
    headphone_trials: int = Field(6, ge=0, le=6)
    """Trials of the headphone check: the quietest of three tones, one of them in antiphase. 0: no check."""
    tone_s: float = Field(0.8, gt=0.05)
    """Seconds of each tone of the headphone check."""
    lufs: float = Field(-23.0, ge=-40, le=-14)
    """Loudness of every clip by ITU-R BS.1770, as far as its peak allows."""
    peak_dbfs: float = Field(-1.0, le=0)
    """Highest peak after the gain. A clip that reaches it stays quieter than `lufs`; the key records it."""
    audio: Literal["opus", "flac"] | None = None
    """Coding of the clips at 48 kHz: Opus at about 80 kbit/s or FLAC with 16 bits. None: `flac` for mushra, otherwise `opus`."""
    embed: bool = True
    """Put the clips into the page. False: into the folder `audio` beside it."""
    show_text: bool = False
    """Show the text of an item."""
    language: Language | None = None
    """Language of the page. None: that of most items, or English."""
    title: str = ""
    """Heading of the page. Empty: a general one."""
    consent: str = ""
    """Text of the consent. Empty: a general one."""
    contact: str = ""
    """Where the answers are to be sent; shown at the end."""
    seed: int | None = None
    """Seed of every draw. None: a secret one; with a known seed, a listener who knows it could rebuild the plan."""

    @field_validator("scales")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a scale is named twice")
        return value

    @property
    def coding(self) -> str:
        """`opus` or `flac`."""
        return self.audio or ("flac" if self.kind == "mushra" else "opus")
