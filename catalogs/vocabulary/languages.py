"""Languages: VoxCPM2's 30 and its nine Chinese dialects, their codes, and the unit of their error rates."""

from __future__ import annotations

import functools
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Unit = Literal["char", "word"]

#: Unicode blocks of scripts without spaces between words: (first, last) code points.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Kana
    (0x3400, 0x9FFF),  # Han
    (0xAC00, 0xD7AF),  # Hangul (has spaces, but their placement varies too much to count as an error)
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True)
class Language:
    """One of VoxCPM2's languages; `code` is ISO 639-1, `script` ISO 15924, `unit` the unit of error rates."""

    code: str
    name: str
    script: str
    unit: Unit
    whisper: str


@dataclass(frozen=True)
class Dialect:
    """One of the nine Chinese dialects; `tag` is its name in control text, `whisper` the recognizer's code."""

    key: str
    name: str
    tag: str
    codes: tuple[str, ...]
    whisper: str


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "languages.toml").read_text(encoding="utf-8"))


@functools.cache
def languages() -> dict[str, Language]:
    """Return VoxCPM2's 30 languages by code."""
    return {
        code: Language(code, entry["name"], entry["script"], entry["unit"], entry.get("whisper", code))
        for code, entry in _table()["languages"].items()
    }


@functools.cache
def dialects() -> dict[str, Dialect]:
    """Return VoxCPM2's nine Chinese dialects by key."""
    return {
        key: Dialect(key, entry["name"], entry["tag"], tuple(entry["codes"]), entry.get("whisper", "zh"))
        for key, entry in _table()["dialects"].items()
    }


def dialect(code: str | None) -> Dialect | None:
    """Return the Chinese dialect that a code such as `yue` or `zh-CN-x-sichuan` names; None if it names none."""
    wanted = _normal(code)
    return next((one for one in dialects().values() if wanted in one.codes or wanted == one.key), None)


def language(code: str | None) -> Language | None:
    """Return the language that a code names, ignoring its region (`en-US`, `zh-CN`, `nb`, `yue`); None outside the 30."""
    wanted = _normal(code)
    if not wanted:
        return None
    if dialect(wanted):
        return languages()["zh"]
    base = wanted.split("-")[0]
    return languages().get(_table()["aliases"].get(base, base))


def is_chinese(code: str | None) -> bool:
    """Return True if a code names Chinese or one of its dialects."""
    known = language(code)
    return known is not None and known.code == "zh"


def language_name(code: str | None) -> str:
    """Return the English name of a language; the code itself outside the 30, `unknown` for None."""
    known = language(code)
    return known.name if known else (code or "unknown")


def whisper_code(code: str | None) -> str | None:
    """Return the recognizer's code for a language; codes outside the 30 pass through without their region."""
    if code is None:
        return None
    if one := dialect(code):
        return one.whisper
    known = language(code)
    return known.whisper if known else _normal(code).split("-")[0]


def text_unit(code: str | None, text: str = "") -> Unit:
    """Return the unit of error rates, characters or words; decided by the script of `text` if the language is not known."""
    known = language(code)
    if known:
        return known.unit
    letters = [c for c in text if unicodedata.category(c)[0] in "LM"]
    unspaced = sum(any(first <= ord(c) <= last for first, last in _UNSPACED) for c in letters)
    return "char" if letters and unspaced * 2 > len(letters) else "word"


def text_units(text: str, code: str | None = None) -> list[str]:
    """Split text into the units of an error rate: characters (without spaces) or words."""
    if text_unit(code, text) == "word":
        return text.split()
    return [character for character in text if not character.isspace()]


def _normal(code: str | None) -> str:
    return (code or "").strip().lower().replace("_", "-")
