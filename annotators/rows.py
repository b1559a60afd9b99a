"""A description as columns of `catalogs.corpus.columns.DESCRIPTIONS`."""

from __future__ import annotations

from typing import Any

from annotators.schema import Attributes, VoiceDescription
from catalogs.vocabulary.voices import REGISTERS, THREE, UNSURE


def description_columns(description: VoiceDescription) -> dict[str, Any]:
    """Return the columns that hold a description: the English captions by register, all captions, and its attributes."""
    attributes = description.attributes
    return {
        "language": "en",
        **{register: description.caption(register) for register in REGISTERS},
        "captions": [vars(caption) for caption in description.captions],
        "attributes": _three_levels(attributes),
        "labels": attributes.model_dump(exclude={"evidence"}),
        "evidence": attributes.evidence or None,
    }


def _three_levels(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes as older readers know them: three levels, null if unsure. `intensity` was a number and stays null."""

    def known(name: str) -> str | None:
        value = getattr(attributes, name)
        if name in THREE:
            return THREE[name].get(value)
        return None if value in (UNSURE, "") else value

    single = {
        name: known(name) for name in ("gender", "age", "accent", "emotion", "rate", "pitch", "energy", "scenario")
    }
    return {**single, "texture": list(attributes.texture) or None, "intensity": None}
