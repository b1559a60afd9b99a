"""What is stated of the rights to a recording, and how it is read from a row of a manifest or a table.

Nothing is inferred: what nobody states is missing, and a license is recorded with who states it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from catalogs.urls import public, redacted
from catalogs.vocabulary.licenses import CONSENTS, NOT_STATED, canonical

#: Fields of a manifest, a table or a JSON beside a recording, each with the names that are read.
RIGHTS_NAMES: dict[str, tuple[str, ...]] = {
    "license": ("license", "licence"),
    "attribution": ("attribution",),
    "source_url": ("source_url",),
    "consent": ("consent",),
    "purposes": ("purposes",),
    "owner_speaker": ("owner_speaker", "speaker_id"),
}
_HELD = 65_536
"""Different statements that are kept: many recordings share one, and a run may hold millions of recordings."""


class RightsError(ValueError):
    """Rights that cannot be understood; the message is one line."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What is stated of the rights to a recording (`catalogs.corpus.columns.RIGHTS`); None or empty: nothing is stated."""

    license: str | None = None
    license_source: str | None = None
    attribution: str | None = None
    source_url: str | None = None
    consent: str | None = None
    purposes: tuple[str, ...] = ()
    owner_speaker: str | None = None

    def row(self) -> dict[str, Any]:
        """Return it as columns of `recordings`."""
        return asdict(self) | {"purposes": list(self.purposes) or None}

    def over(self, other: Rights) -> Rights:
        """Return the same, with what is not stated here taken from `other`. A license and who states it stay together."""
        if other == NO_RIGHTS or self == NO_RIGHTS:
            return self if other == NO_RIGHTS else other
        licensed = self if self.license else other
        return Rights(
            licensed.license,
            licensed.license_source,
            self.attribution or other.attribution,
            self.source_url or other.source_url,
            self.consent or other.consent,
            self.purposes or other.purposes,
            self.owner_speaker or other.owner_speaker,
        )


NO_RIGHTS = Rights()
"""Nothing is stated."""


def rights_of(row: Mapping[str, Any], said_by: str) -> Rights:
    """Return the rights that a row states, under the names of RIGHTS_NAMES. said_by: who states them (`license_source`).

    Licenses become SPDX identifiers; one that says that nothing is known is missing. Raises RightsError for a consent that is
    not one of `CONSENTS`.
    """
    values = {field: _first(row, names) for field, names in RIGHTS_NAMES.items()}
    if not any(values.values()):
        return NO_RIGHTS
    purposes = values.pop("purposes")
    return _rights(said_by, purposes=purposes_of(purposes), **{field: _text(value) for field, value in values.items()})


@functools.lru_cache(maxsize=_HELD)
def _rights(
    said_by: str,
    license: str | None,
    attribution: str | None,
    source_url: str | None,
    consent: str | None,
    purposes: tuple[str, ...],
    owner_speaker: str | None,
) -> Rights:
    spdx = canonical(license) if license else NOT_STATED
    known = None if spdx == NOT_STATED else spdx
    return Rights(
        known,
        said_by if known else None,
        redacted(attribution) if attribution else None,
        public(source_url) if source_url else None,
        _consent(consent) if consent else None,
        purposes,
        owner_speaker,
    )


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    values = (row.get(name) for name in names)
    return next((value for value in values if value not in (None, "", [], ()) and not isinstance(value, Mapping)), None)


def _text(value: Any) -> str | None:
    """Return a value as text in one line, None if it is blank or not a single value."""
    if isinstance(value, bool | bytes) or not isinstance(value, str | int | float):
        return None
    return " ".join(str(value).split()) or None


def purposes_of(value: Any) -> tuple[str, ...]:
    """Return a list, or a text with commas or semicolons, or with a JSON list, as single purposes."""
    if isinstance(value, str):
        try:
            loaded = json.loads(value) if value.lstrip().startswith("[") else None
        except ValueError:
            loaded = None
        value = loaded if isinstance(loaded, list) else re.split(r"[,;]", value)
    if not isinstance(value, list | tuple):
        return ()
    return tuple(dict.fromkeys(text for one in value if (text := _text(one))))


def _consent(text: str) -> str:
    found = re.sub(r"[\s_]+", "-", text.strip().lower())
    found = "license" if found == "licence" else found
    if found not in CONSENTS:
        raise RightsError(f"consent is one of {', '.join(CONSENTS)}, not {text!r}")
    return found


assert set(RIGHTS_NAMES) == {field.name for field in fields(Rights)} - {"license_source"}
