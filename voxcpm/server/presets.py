"""OpenAI's voice names as designed voices: each is made once from a description and a seed, and then kept as a reference.

Without a reference the model speaks with another voice for every seed. Clients such as Pipecat accept these names only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Design:
    """What a designed voice is made from. text: what it says in its reference, about eight seconds."""

    description: str
    seed: int
    text: str = ""

    @property
    def prompt(self) -> str:
        """The text for the model: the description in parentheses, then what is spoken."""
        return f"({self.description}){self.words}"

    @property
    def words(self) -> str:
        """What is spoken."""
        return self.text or DESIGN_TEXT


DESIGN_TEXT = (
    "Good morning, and welcome. Today we will walk along the river, cross the old bridge, and talk about the things that "
    "we have learned this week."
)
DESIGN_PATCHES = 75
"""Longest reference of a designed voice, in patches of 160 ms: 12 s."""

PRESETS: dict[str, Design] = {
    "alloy": Design("A young adult with a neutral, balanced voice, speaking clearly at an even pace", 101),
    "ash": Design("A young man with a warm, slightly rough voice, relaxed and friendly", 102),
    "ballad": Design("A man with a soft, melodic voice, slow and expressive", 103),
    "cedar": Design("A middle-aged man with a deep, calm and grounded voice", 104),
    "coral": Design("A young woman with a bright, cheerful and welcoming voice", 105),
    "echo": Design("A man with a smooth, even and resonant voice, speaking at a moderate pace", 106),
    "fable": Design("A storyteller with a lively voice and a British accent", 107),
    "marin": Design("A woman with a clear, natural and confident voice", 108),
    "nova": Design("A young woman with an energetic, crisp voice, speaking quickly", 109),
    "onyx": Design("A man with a very deep, authoritative voice, speaking slowly", 110),
    "sage": Design("A woman with a gentle, thoughtful voice, speaking calmly", 111),
    "shimmer": Design("A woman with a light, soft and optimistic voice", 112),
    "verse": Design("A young man with an animated, varied voice, like an actor reading a poem", 113),
}
"""OpenAI's thirteen names."""
