"""Chinese numbers in words: recognizers write digits, and num2words does not know the language."""

from __future__ import annotations

_DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿")
_MOST = 10_000 ** len(_GROUPS) - 1


def spell_chinese(digits: str) -> str:
    """Return a whole number in simplified characters: `305` is 三百零五. Digit by digit if it starts with 0 or is longer than
    12 digits."""
    number = int(digits) if len(digits) <= 4 * len(_GROUPS) else _MOST + 1
    if digits.startswith("0") or number > _MOST:
        return spell_digits(digits)
    text, gap = "", False
    for place in range(len(_GROUPS) - 1, -1, -1):
        group = number // 10_000**place % 10_000
        if group:
            # A group without thousands has the zero before it, as has one after an empty group.
            zero = "零" if text and (group < 1000 or gap) else ""
            text += zero + _spell_group(group) + _GROUPS[place]
        gap = not group
    return text.removeprefix("一") if text.startswith("一十") else text


def spell_digits(digits: str) -> str:
    """Return digits one by one: `1998` is 一九九八, as in a year."""
    return "".join(_DIGITS[int(digit)] for digit in digits)


def _spell_group(number: int) -> str:
    """Return 1 to 9,999 in words, without a zero before it."""
    text, gap = "", False
    for place in range(3, -1, -1):
        digit = number // 10**place % 10
        if digit:
            text += ("零" if gap and text else "") + _DIGITS[digit] + _PLACES[place]
        gap = not digit
    return text
