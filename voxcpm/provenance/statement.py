"""What a file says about itself: that its speech is synthetic, what made it, and when.

The statement is one JSON object in the comment of a file. Beside it stands the label `AIGC`, whose fields the Chinese standard
GB 45438-2025 names. Both are ASCII, so that every format and every HTTP header can hold them.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

COMMENT = "COMMENT"
"""The tag that holds the statement. Converters such as FFmpeg copy a comment from format to format."""

AIGC = "AIGC"
"""The tag that holds the label."""

ENCODER = "ENCODER"
"""The tag that names the program."""

_LONGEST = 200
"""Most characters of one text of a statement."""

_MOST_TEXT = 16_384
"""Most characters of a tag that is read as a statement."""


@cache
def generator() -> str:
    """Return the name and the version of this program, e.g. `voxmill 0.1.0`."""
    try:
        return f"voxmill {importlib.metadata.version('voxmill')}"
    except importlib.metadata.PackageNotFoundError:
        return "voxmill"


def now() -> str:
    """Return the time in UTC as ISO 8601 with seconds, e.g. `2026-11-30T06:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Statement:
    """Says that audio is synthetic. A field that is None is left out."""

    model: str | None = None  #: name of the model, not its path
    checkpoint: str | None = None  #: digest of the checkpoint's files (`checkpoint_digest`)
    seed: int | None = None  #: with it, the same request gives the same audio
    request_id: str | None = None
    created: str | None = field(default_factory=now)  #: ISO 8601, UTC
    generator: str = field(default_factory=generator)

    def __post_init__(self) -> None:
        """Make each text one line of at most 200 characters."""
        for name in ("model", "checkpoint", "request_id", "created", "generator"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _one_line(value))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set as JSON values, `synthetic` first."""
        values = {
            "generator": self.generator,
            "model": self.model,
            "checkpoint": self.checkpoint,
            "seed": self.seed,
            "created": self.created,
            "request_id": self.request_id,
        }
        return {"synthetic": True} | {name: value for name, value in values.items() if value is not None}

    def to_json(self) -> str:
        """Return the statement as one line of ASCII JSON."""
        return json.dumps(self.to_dict())

    def label(self) -> str:
        """Return the label `AIGC` as one line of ASCII JSON. Label 1 means certainly generated."""
        parts = (self.checkpoint, self.seed, self.created)
        produced = self.request_id or "-".join(str(part) for part in parts if part is not None)
        return json.dumps(
            {
                "Label": "1",
                "ContentProducer": self.generator,
                "ProduceID": produced,
                "ReservedCode1": "",
                "ContentPropagator": "",
                "PropagateID": "",
                "ReservedCode2": "",
            }
        )

    def tags(self) -> dict[str, str]:
        """Return the tags of a file, as in Vorbis comments: name -> ASCII text."""
        return {ENCODER: self.generator, COMMENT: self.to_json(), AIGC: self.label()}

    def headers(self) -> dict[str, str]:
        """Return the headers of an HTTP answer. `X-Synthetic: 1` also marks raw PCM, which holds no tags."""
        named = {
            "X-Synthetic": "1",
            "X-Generator": self.generator,
            "X-Checkpoint": self.checkpoint,
            "X-Seed": None if self.seed is None else str(self.seed),
            "X-Created": self.created,
        }
        # A header holds ASCII only.
        return {name: value.encode("ascii", "replace").decode() for name, value in named.items() if value is not None}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Statement | None:
        """Return the statement of a file with these tags, in any case of their names; None if they hold none.

        A label of another program is a statement too: it names the program and the id that it gave.
        """
        found = {name.lower(): text for name, text in tags.items() if len(text) <= _MOST_TEXT}
        for name in ("comment", "description"):
            if name in found and (statement := _from_json(found[name])) is not None:
                return statement
        return _from_label(found.get("aigc", ""))


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", str(text))[:_LONGEST].strip()


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text, or an empty one if there is none."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _from_json(text: str) -> Statement | None:
    values = _object(text)
    if values.get("synthetic") is not True or not isinstance(values.get("generator"), str):
        return None
    texts = {
        name: value if isinstance(value := values.get(name), str) else None
        for name in ("model", "checkpoint", "request_id", "created")
    }
    seed = values.get("seed")
    whole = isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 2**64
    return Statement(**texts, seed=seed if whole else None, generator=values["generator"])


def _from_label(text: str) -> Statement | None:
    values = _object(text)
    label = values.get("Label")
    if not (label == "1" or (isinstance(label, int | float) and math.isclose(label, 1) and label is not True)):
        return None
    producer, produced = values.get("ContentProducer"), values.get("ProduceID")
    return Statement(
        request_id=produced if isinstance(produced, str) and produced else None,
        created=None,
        generator=producer if isinstance(producer, str) and producer else "not named",
    )
