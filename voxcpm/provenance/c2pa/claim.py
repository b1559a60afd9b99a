"""What a manifest says: that speech is generated, by what, from which clips, and whether it may be used for training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from voxcpm.provenance.statement import Statement
from voxcpm.watermark.speech import METHOD

Role = Literal["reference", "prompt", "voice"]
"""A clip whose voice is used, one that is continued, and a file that `--save-voice` made of clips."""

Use = Literal["allowed", "notAllowed", "constrained"]
"""What the assertion `cawg.training-mining` says of a use."""

USES: tuple[Use, ...] = get_args(Use)

GENERATION = "org.voxmill.generation"
"""Label of our assertion: the fields of the statement, and the hashes of the clips."""

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""Start of the names in which IPTC says how a file was made."""

_TRAINING = ("cawg.ai_generative_training", "cawg.ai_training", "cawg.data_mining")


@dataclass(frozen=True)
class Clip:
    """A clip that speech was made with. Only its hash is stated, not its name and not its sound."""

    sha256: str | None  #: 64 hexadecimal digits, of the bytes of the file; None: not known, and not stated
    role: Role = "reference"

    @classmethod
    def of(cls, path: str | Path, role: Role = "reference") -> Clip:
        """Return a clip by its file. Raises OSError."""
        with Path(path).open("rb") as file:
            return cls(hashlib.file_digest(file, "sha256").hexdigest(), role)


def manifest_of(
    statement: Statement, clips: Sequence[Clip] = (), payload: int | None = None, training: Use = "notAllowed"
) -> dict[str, Any]:
    """Return a manifest as the C2PA library takes it.

    payload: 16 bits that our watermark carries in the samples; None: they hold none. training: whether others may train
    on the speech. Raises ValueError for other values.
    """
    if training not in USES:
        raise ValueError(f"the use for training {training!r} is not one of {', '.join(USES)}")
    if payload is not None and not 0 <= payload < 1 << 16:
        raise ValueError(f"the payload {payload} of a watermark is outside 0..65535")
    name, _, version = statement.generator.partition(" ")
    agent = {"name": name} | ({"version": version} if version else {})
    # One file may have both roles, but an identity stands for one ingredient.
    by_hash = {clip.sha256: clip.role for clip in clips if clip.sha256 is not None}
    ingredients = [
        {"title": role, "relationship": "inputTo", "instance_id": f"sha256:{sha256}"}
        for sha256, role in by_hash.items()
    ]
    assertions = [
        _assertion("c2pa.actions.v2", {"actions": [_created(statement, agent, clips, ingredients)]}),
        _assertion("cawg.training-mining", {"entries": {use: {"use": training} for use in _TRAINING}}),
        _assertion(GENERATION, statement.to_dict() | _hashes(clips)),
    ]
    if payload is not None:
        block = {"scope": {}, "value": f"{payload:04x}"}
        assertions.append(_assertion("c2pa.soft-binding", {"alg": METHOD, "blocks": [block]}))
    return {"claim_generator_info": [agent], "ingredients": ingredients, "assertions": assertions}


def _created(
    statement: Statement, agent: dict[str, str], clips: Sequence[Clip], ingredients: list[dict[str, str]]
) -> dict[str, Any]:
    # Speech that continues a recording is what IPTC calls a composite: an extension by a generative model.
    continued = any(clip.role == "prompt" for clip in clips)
    kind = "compositeWithTrainedAlgorithmicMedia" if continued else "trainedAlgorithmicMedia"
    action: dict[str, Any] = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPES + kind,
        "softwareAgent": agent,
    }
    if statement.created is not None:
        action["when"] = statement.created
    if ingredients:
        action["parameters"] = {"ingredientIds": [one["instance_id"] for one in ingredients]}
    return action


def _hashes(clips: Sequence[Clip]) -> dict[str, Any]:
    known = [{"sha256": clip.sha256, "role": clip.role} for clip in clips if clip.sha256 is not None]
    return {"clips": known} if known else {}


def _assertion(label: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"label": label, "data": data}
