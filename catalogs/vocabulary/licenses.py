"""Licenses: SPDX identifiers, their other spellings, what they allow, and conditions on them.

A license is what somebody stated, never what we conclude. `canonical` only unites the spellings of one license; a text that
names none of the table becomes `LicenseRef-...`, of which nothing is known here.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

NOT_STATED = "NOASSERTION"
"""SPDX's word for a license that nobody states: what `unknown`, `none` and similar texts become."""
CONSENTS = ("explicit", "license", "public-domain", "employment", "none", "unknown")
"""On what ground a speaker's voice may be used, as the data's owner states it."""
WORDS = ("commercial", "stated", "any")
"""What a list of allowed licenses may hold beside identifiers and globs."""

_REFERENCE = "LicenseRef-"
_LONGEST = 64
"""Characters of the name after `LicenseRef-`; a longer text is cut and ends with a hash of the whole."""
_NO_STATEMENT = ("noassertion", "unknown", "none", "null", "n/a", "nan", "not stated", "unspecified", "not specified")
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWERED = str.maketrans(_UPPER, _UPPER.lower())
_FRAME = re.compile(r"^https?://(www\.)?|/(deed|legalcode)([.][a-z_-]+)?/?$")
_PUNCTUATION = re.compile(r"[^a-z0-9.+]+")


@dataclass(frozen=True)
class License:
    """A license of the table: SPDX identifier, and the four bits that its text states."""

    spdx: str
    commercial: bool
    derivatives: bool
    share_alike: bool
    attribution: bool


@functools.cache
def licenses() -> dict[str, License]:
    """Return the licenses of the table by SPDX identifier."""
    return {
        _identifier(name, version): License(
            _identifier(name, version),
            commercial=entry["commercial"],
            derivatives=entry["derivatives"],
            share_alike=entry["share_alike"],
            attribution=entry["attribution"],
        )
        for name, entry in _entries_of_file().items()
        for version in entry.get("versions", [""])
    }


@functools.cache
def _table() -> dict[str, tuple[str, ...]]:
    """Spellings by SPDX identifier."""
    return {
        _identifier(name, version): (
            _identifier(name, version),
            *(one.replace("{v}", version) for one in entry["names"]),
        )
        for name, entry in _entries_of_file().items()
        for version in entry.get("versions", [""])
    }


@functools.cache
def _entries_of_file() -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "licenses.toml").read_text(encoding="utf-8"))


def _identifier(name: str, version: str) -> str:
    return f"{name}-{version}" if version else name


@functools.cache
def _by_key() -> dict[str, str]:
    known = {_key(one): spdx for spdx, spellings in _table().items() for one in spellings}
    return known | {_key(one): NOT_STATED for one in _NO_STATEMENT}


def _key(text: str) -> str:
    """What is compared of a spelling: ASCII letters in lower case, digits, dots and plus signs."""
    return _PUNCTUATION.sub("", _FRAME.sub("", text.translate(_LOWERED).strip()))


@functools.lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """Return the SPDX identifier that a text names (`CC BY 4.0`, `cc-by-4.0`, a license's URL); `LicenseRef-<name>` for any
    other text, and `NOASSERTION` for a text that says that nothing is known (`unknown`).

    Nothing is inferred: `CC BY` without a version is `LicenseRef-cc-by`. The result of a result is the same. Raises
    ValueError for a blank text.
    """
    if not text.strip():
        raise ValueError("a license is blank: leave it out, or name it")
    if (found := _by_key().get(_key(text))) is not None:
        return found
    lowered = text.translate(_LOWERED).replace("+", "plus").strip()
    name = re.sub(r"[^a-z0-9.]+", "-", lowered.removeprefix(_REFERENCE.lower())).strip("-")
    if not name:
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    elif len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 9].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return _by_key().get(_key(_REFERENCE + name), _REFERENCE + name)


def allowed(license: str | None, allow: Sequence[str]) -> bool:
    """Return whether a list allows a license (any spelling; None: no license); `allowed_sql` says what a list may hold.

    Raises ValueError with one line for an entry that is none of these.
    """
    return any(entry.takes(license) for entry in _entries(allow))


def allowed_sql(allow: Sequence[str], column: str = "license") -> str:
    """Return an SQL condition (DuckDB) that is true where a list allows the license in `column`; it is never null.

    An entry is an SPDX identifier or another spelling of one, `LicenseRef-...`, a glob on identifiers (`CC-BY-*`, which also
    takes CC-BY-NC-4.0), or a word: `commercial` (licenses of the table that allow commercial use), `stated` (any license), `any`
    (also none). Case does not matter. The column holds identifiers as `canonical` returns them, or spellings of the table, as
    older corpora have them (for other texts of these: `allowed_among_sql`). `column` is put into the text as it is. Raises
    ValueError with one line for an entry that is none of these.
    """
    entries = _entries(allow)
    if any(entry.word == "any" for entry in entries):
        return "true"
    lowered = f"lower({column})"
    parts = [f"{lowered} GLOB {_quoted(entry.glob)}" for entry in entries if entry.glob]
    if any(entry.word == "stated" for entry in entries):
        parts.append(f"{lowered} NOT IN ({', '.join(map(_quoted, sorted({'', *_NO_STATEMENT})))})")
    if spellings := {one for entry in entries for spdx in entry.ids for one in _spellings(spdx)}:
        # A subquery, so that DuckDB makes a hash table: within OR, NOT or FILTER it compares each row with each element of a list.
        parts.append(f"{lowered} IN (SELECT unnest([{', '.join(map(_quoted, sorted(spellings)))}]))")
    return f"({column} IS NOT NULL AND ({' OR '.join(parts) or 'false'}))"


def allowed_among_sql(allow: Sequence[str], values: Iterable[str | None], column: str = "license") -> str:
    """Return the same condition as `allowed_sql`, for a column of which all different values are known.

    It allows what `allowed` allows, also where an older corpus has a license of no table in the owner's words. Raises ValueError
    as `allowed_sql` does.
    """
    if any(entry.word == "any" for entry in _entries(allow)):
        return "true"
    taken = sorted(value for value in values if value is not None and allowed(value, allow))
    return (
        f"({column} IS NOT NULL AND {column} IN (SELECT unnest(CAST([{', '.join(map(_quoted, taken))}] AS VARCHAR[]))))"
    )


def summary(hours: Mapping[str | None, float] | Mapping[str, float]) -> list[str]:
    """Return the strictest obligations among licenses as facts, one a line with its hours, the strictest first.

    `hours` are hours by license in any spelling, None for no license. The lines say what the licenses state. They conclude
    nothing about a model that is trained on the recordings.
    """
    facts: list[tuple[str, Callable[[License], bool]]] = [
        ("non-commercial data", lambda one: not one.commercial),
        ("data whose license forbids changes", lambda one: not one.derivatives),
        ("share-alike data (its effect on a trained model is disputed)", lambda one: one.share_alike),
        ("data whose authors must be named", lambda one: one.attribution),
    ]
    of: dict[str, float] = {}
    for license, amount in hours.items():
        spdx = canonical(license) if license and license.strip() else NOT_STATED
        of[spdx] = of.get(spdx, 0.0) + amount
    missing = of.pop(NOT_STATED, 0.0)
    known = licenses()
    lines = []
    if missing:
        lines.append(f"{missing:.2f} h of data without a license")
    if unknown := {spdx: amount for spdx, amount in of.items() if spdx not in known}:
        lines.append(_line("data whose license is not in the table: read its terms", unknown))
    for words, holds in facts:
        if those := {spdx: amount for spdx, amount in of.items() if spdx in known and holds(known[spdx])}:
            lines.append(_line(words, those))
    return lines


def _line(words: str, hours: Mapping[str, float]) -> str:
    return f"{sum(hours.values()):.2f} h of {words} ({', '.join(sorted(hours))})"


@dataclass(frozen=True)
class _Entry:
    """An entry of a list of allowed licenses: a word, identifiers, or a glob (in lower case) with those of the table it takes."""

    word: str = ""
    ids: tuple[str, ...] = ()
    glob: str = ""

    def takes(self, license: str | None) -> bool:
        if self.word == "any":
            return True
        if license is None or not license.strip():
            return False
        spdx = canonical(license)
        if self.word == "stated":
            return spdx != NOT_STATED
        return spdx in self.ids or (bool(self.glob) and fnmatchcase(spdx.lower(), self.glob))


def _entries(allow: Sequence[str]) -> list[_Entry]:
    if isinstance(allow, str) or not allow:
        raise ValueError("give a list of allowed licenses with at least one entry, e.g. CC-BY-4.0, or the word `any`")
    return [_entry(one) for one in allow]


def _entry(text: str) -> _Entry:
    lowered = text.strip().translate(_LOWERED)
    if lowered in WORDS:
        commercial = tuple(spdx for spdx, one in licenses().items() if one.commercial)
        return _Entry(lowered, commercial if lowered == "commercial" else ())
    if set(lowered) & set("*?["):
        known = (*licenses(), NOT_STATED)
        return _Entry(ids=tuple(one for one in known if fnmatchcase(one.translate(_LOWERED), lowered)), glob=lowered)
    if not lowered:
        raise ValueError("an allowed license is blank: give an SPDX identifier such as CC-BY-4.0")
    spdx = canonical(text)
    if spdx.startswith(_REFERENCE) and spdx not in licenses() and not lowered.startswith(_REFERENCE.lower()):
        near = difflib.get_close_matches(lowered, [*map(str.lower, licenses()), *WORDS], 1)
        meant = next((one for one in (*licenses(), *WORDS) if near and one.lower() == near[0]), spdx)
        raise ValueError(
            f"{text!r} is not a license that is known here: did you mean {meant}? Give an SPDX identifier, {spdx}, a glob such as"
            f" CC-BY-*, or {', '.join(WORDS)}"
        )
    return _Entry(ids=(spdx,))


def _spellings(spdx: str) -> Iterator[str]:
    """Yield the spellings of an identifier that the table lists, in lower case."""
    yield spdx.lower()
    if spdx == NOT_STATED:
        yield from _NO_STATEMENT
    for one in _table().get(spdx, ()):
        yield one.lower()
        yield one.lower().replace("-", " ")
        if "/" in one:
            yield from (
                f"{scheme}://{www}{one}{end}"
                for scheme in ("http", "https")
                for www in ("", "www.")
                for end in ("", "/")
            )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
