"""What an export is asked to contain: the clips, their splits, their audio and their columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from catalogs.corpus.ids import short_hash


class ExchangeError(ValueError):
    """An export or import cannot be done as asked; the message is one line that says what to do."""


SameText = Literal["link", "leave-out"]


@dataclass(frozen=True)
class Split:
    """One part of an export: its name and its share of the seconds, 0-1."""

    name: str
    share: float


ALL = (Split("train", 1.0),)
"""An export without splits."""


def parse_splits(text: str) -> tuple[Split, ...]:
    """Return the splits that a user wrote as train=0.9,validation=0.05,test=0.05. The first one takes what others cannot.

    Raises ExchangeError unless the names are words, all different, and the shares add up to 1.
    """
    splits = []
    for piece in text.split(","):
        name, found, share = (part.strip() for part in piece.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not found or not name.isidentifier() or not 0 < value <= 1:
            raise ExchangeError(f"a split is written as train=0.9,validation=0.05,test=0.05, not {text}")
        splits.append(Split(name, value))
    if len({split.name for split in splits}) < len(splits):
        raise ExchangeError(f"each split has its own name, not as in {text}")
    total = sum(split.share for split in splits)
    if abs(total - 1) > 1e-6:
        raise ExchangeError(f"the shares of the splits add up to 1, not to {total:g}: {text}")
    return tuple(splits)


@dataclass(frozen=True)
class Request:
    """All that decides the content of an export. Two exports of one corpus with equal requests are equal.

    where: an SQL condition on the view `segments`. license_allow: empty for all, see `catalogs.vocabulary.licenses.allowed_sql`.
    same_text: `link` keeps all clips of one text in one split; `leave-out` leaves clips out whose text an earlier split has.
    audio: `flac`, `wav` or `none`. sample_rate: in Hz, None for the stored one. prefix: the folder that manifests name, None for
    the export's own absolute path, "" for paths relative to the manifest.
    """

    to: str
    where: str = "kept"
    license_allow: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ALL
    seed: int = 0
    same_text: SameText = "link"
    columns: tuple[str, ...] = ()
    text: str = "text"
    audio: str = "flac"
    sample_rate: int | None = None
    prefix: str | None = None
    version: int = field(default=1)
    """Raised when the same request would write other files."""

    def described(self) -> dict[str, Any]:
        """Return the request as JSON values, for export.json."""
        return {
            "to": self.to,
            "where": self.where,
            "license_allow": list(self.license_allow),
            "splits": {split.name: split.share for split in self.splits},
            "seed": self.seed,
            "same_text": self.same_text,
            "columns": list(self.columns),
            "text": self.text,
            "audio": self.audio,
            "sample_rate": self.sample_rate,
            "prefix": self.prefix,
            "version": self.version,
        }


def request_key(request: Request, corpus: str) -> str:
    """Return a hash of a request and of the corpus' state: an export is only continued with the same."""
    return short_hash("export", corpus, str(sorted(request.described().items())))


def known(name: str, names: Sequence[str], what: str) -> str:
    """Return `name` if it is one of `names`. Raises ExchangeError that lists them."""
    if name not in names:
        raise ExchangeError(f"unknown {what} {name}; there are: {', '.join(names)}")
    return name
