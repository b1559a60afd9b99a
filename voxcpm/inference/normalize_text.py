"""Text normalization (`normalize=True`): remove markdown, spell out numbers. Phoneme input in braces is not changed.

English and Chinese numbers are spelled out here. If the `wetext` package is installed, its rules (dates, units, money) are
used instead. Texts in other languages keep their digits, which the model can read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

_PHONEMES = re.compile(r"(\{[^{}]*\})")
_HAN = re.compile(r"[\u4e00-\u9fff]")
#: Letters that English does not use; a text with one of them keeps its digits.
_NOT_ENGLISH = re.compile(r"[^\W\d_a-zA-Z]")
_NUMBER = re.compile(r"(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(%?)(?!\w)")
_HAN_NUMBER = re.compile(r"(\d+)(\.\d+)?(%?)")
#: Marks, and what each match becomes. Where a pattern finds the beginning of a mark without its end, it takes what it has read
#: and leaves it as it is: a later beginning in it has no end either, and a text of n beginnings would be read n times.
_MARKDOWN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"```.*?```", re.S), lambda found: " "),
    (
        re.compile(r"!?\[([^\]]*+)(?:\]\([^)]*+(\))?)?"),
        lambda found: found[0] if found[2] is None else found[1],
    ),
    (re.compile(r"https?://\S+"), lambda found: " "),
    (
        re.compile(r"(?m)^\s*+((?:#{1,6}|[-*+>]|\d+\.)\s+)?"),
        lambda found: found[0] if found[1] is None else "",
    ),
    (re.compile(r"(\*\*|__|~~|`)(.+?)\1"), lambda found: found[2]),
    (
        re.compile(r"(?<!\w)[*_](?:(\S(?:.*?\S)?)[*_](?!\w)|\S.*)"),
        lambda found: found[0] if found[1] is None else found[1],
    ),
)
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_HAN_DIGITS = "零一二三四五六七八九"


def normalise_text(text: str) -> str:
    """Return the normalized text; parts in braces are not changed."""
    parts = _PHONEMES.split(text)
    return "".join(part if part.startswith("{") and part.endswith("}") else _normalise(part) for part in parts)


class TextNormalizer:
    """The official package's name for `normalise_text`."""

    def __init__(self, tokenizer: object | None = None) -> None:
        self.tokenizer = tokenizer  #: not used

    def normalize(self, text: str, split: bool = False) -> str:
        """Return the normalized text. Raises ValueError for `split`, which the official class has without a result."""
        if split:
            raise ValueError(
                "TextNormalizer.normalize does not split: use split=False, and VoxCPM.generate_long for long texts"
            )
        return normalise_text(text)


def strip_markdown(text: str) -> str:
    """Remove the markdown of headings, emphasis, links, lists and code."""
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return text


def _normalise(text: str) -> str:
    text = strip_markdown(text)
    chinese = bool(_HAN.search(text))
    if not chinese and _NOT_ENGLISH.search(text):
        return text
    return _rules(chinese)(text)


@cache
def _rules(chinese: bool) -> Callable[[str], str]:
    """Return what spells out numbers. Kept, because a text may have thousands of parts between phonemes."""
    try:
        from wetext import Normalizer
    except ImportError:
        return _spell_chinese if chinese else _spell_english
    return Normalizer(lang="zh" if chinese else "en", operator="tn").normalize


def _spell_english(text: str) -> str:
    def spell(match: re.Match[str]) -> str:
        whole, fraction, percent = match.groups()
        if (len(whole) > 1 and whole.startswith("0")) or len(whole) > 15:
            words = " ".join(_ONES[int(d)] for d in whole if d != ",")
        else:
            words = english_number(int(whole.replace(",", "")))
        if fraction:
            words += " point " + " ".join(_ONES[int(d)] for d in fraction[1:])
        return words + (" percent" if percent else "")

    return _NUMBER.sub(spell, text)


def english_number(n: int) -> str:
    """Return a number, 0 <= n < 10^15, in English words."""
    if n < 20:
        return _ONES[n]
    if n < 100:
        return _TENS[n // 10] + (f"-{_ONES[n % 10]}" if n % 10 else "")
    scale, name = next((s, name) for s, name in _SCALES if n >= s)
    rest = f" {english_number(n % scale)}" if n % scale else ""
    return f"{english_number(n // scale)} {name}{rest}"


def _spell_chinese(text: str) -> str:
    def spell(match: re.Match[str]) -> str:
        whole, fraction, percent = match.groups()
        year = text[match.end() : match.end() + 1] == "年" and len(whole) == 4
        if year or (len(whole) > 1 and whole.startswith("0")) or len(whole) > 12:
            words = "".join(_HAN_DIGITS[int(d)] for d in whole)
        else:
            words = chinese_number(int(whole))
        if fraction:
            words += "点" + "".join(_HAN_DIGITS[int(d)] for d in fraction[1:])
        return ("百分之" if percent else "") + words

    return _HAN_NUMBER.sub(spell, text)


def chinese_number(n: int) -> str:
    """Return a number, 0 <= n < 10^12, in Chinese characters."""
    if n < 10:
        return _HAN_DIGITS[n]
    for scale, name in ((10**8, "亿"), (10**4, "万")):
        if n >= scale:
            rest = n % scale
            gap = "零" if rest and rest < scale // 10 else ""
            return chinese_number(n // scale) + name + (gap + chinese_number(rest) if rest else "")
    words = ""
    for scale, name in ((1000, "千"), (100, "百"), (10, "十")):
        digit, n = divmod(n, scale)
        if digit:
            words += ("" if name == "十" and digit == 1 and not words else _HAN_DIGITS[digit]) + name
        elif words and n and not words.endswith("零"):
            words += "零"
    return words + (_HAN_DIGITS[n] if n else "")
