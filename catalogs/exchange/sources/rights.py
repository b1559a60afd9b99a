"""What a row of an import states of its rights, as the columns of `recordings` hold it. Nothing is inferred."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from catalogs.corpus.columns import RIGHTS
from catalogs.vocabulary.licenses import CONSENTS, NOT_STATED, canonical

NAMES = tuple(column.name for column in RIGHTS)
_SOURCES = ("manifest", "sidecar", "rules", "corpus")
_SECRET = re.compile(r"token|sig|secret|password|credential|key|expires", re.IGNORECASE)


class RightsError(ValueError):
    """Rights that cannot be understood; the message is one line."""


def rights_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rights that a row states, without the license. Raises RightsError for a consent that is not known."""
    found: dict[str, Any] = {}
    for name in ("attribution", "owner_speaker"):
        if isinstance(row.get(name), str) and row[name].strip():
            found[name] = " ".join(row[name].split())
    if isinstance(row.get("source_url"), str) and row["source_url"].strip():
        found["source_url"] = without_secrets(row["source_url"].strip())
    if row.get("license_source") in _SOURCES:
        found["license_source"] = row["license_source"]
    if row.get("consent"):
        consent = re.sub(r"[\s_]+", "-", str(row["consent"]).strip().lower())
        if consent not in CONSENTS:
            raise RightsError(f"consent is one of {', '.join(CONSENTS)}, not {str(row['consent'])[:50]!r}")
        found["consent"] = consent
    purposes = row.get("purposes")
    pieces = re.split(r"[,;]", purposes) if isinstance(purposes, str) else purposes
    if isinstance(pieces, list | tuple):
        found["purposes"] = list(dict.fromkeys(text for one in pieces if (text := " ".join(str(one).split())))) or None
    return {name: value for name, value in found.items() if value is not None}


def stated_license(given: Any, fallback: str | None, source: str | None) -> tuple[str | None, str | None]:
    """Return the license as an SPDX identifier and who states it: the row (as `source` says), or the whole import."""
    for text, said_by in ((given, source or "manifest"), (fallback, "corpus")):
        if text and str(text).strip() and (spdx := canonical(str(text))) != NOT_STATED:
            return spdx, said_by
    return None, None


def without_secrets(url: str) -> str:
    """Return an address without user and password, and without a query that looks like a signature."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=host, query="" if _SECRET.search(parts.query) else parts.query))
    except ValueError:
        return ""
