"""What counts as the same words in the dialect `clean`."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.vocabulary import comparable_text
from catalogs.vocabulary.chinese_numbers import spell_chinese, spell_digits
from catalogs.vocabulary.comparable_text import compared_units, is_unspaced, normalize, rules_in_use, simplified
from catalogs.vocabulary.languages import languages

DEMO_LANGUAGES = ("en", "es", "fr", "it", "ru")
_CHINESE = dict(zip("零一二三四五六七八九", range(10), strict=True))


@pytest.mark.parametrize(
    ("language", "written", "heard"),
    [
        ("en", "Press one, or two hundred five.", "press 1 or 205"),
        ("en", "the first message", "The 1st message"),
        ("en", "dial one two three, zero seven", "dial 1, 2, 3, 0 7"),
        ("en", "five dollars at seven percent", "$5 at 7%"),
        ("en", "one thousand messages", "1,000 messages"),
        ("it", "zero zero sette", "007"),
        ("fr", "１", "un"),
        ("en", "I'm sorry -- the colour ...", "I am sorry the color"),
        ("es", "Marque uno para aceptar esta grabacion.", "marque 1 para aceptar esta grabación"),
        ("fr", "appuyez sur vingt-et-un", "Appuyez sur 21."),
        ("it", "E' impostato per: premere due", "è impostato per premere 2"),
        ("ru", "нажмите решётку или один", "Нажмите решетку, или 1!"),
        ("zh", "你好，世界。", "你好 世界"),
        ("ja", "こんにちは。", "こんにちは"),
        ("en", "I don’t know", "I do not know"),
        ("en-US", "It's five dollars", "it is $5"),
        ("es-419", "esta grabación", "esta grabacion"),
        ("ar", "إنَّ الكِتَابَ ٱلأَوَّل مـــهم", "ان الكتاب الاول مهم"),
        ("ar", "مسؤول على شيئًا", "مسوول علي شييا"),
        ("he", "שָׁלוֹם עוֹלָם", "שלום עולם"),
        ("th", "สวัสดี\u200bครับ ผม 5 คน", "สวัสดีครับผมห้าคน"),
        ("km", "ខ្ញុំ\u200bស្រលាញ់ អ្នក", "ខ្ញុំស្រលាញ់អ្នក"),
        ("lo", "ສະ ບາຍ\u200bດີ", "ສະບາຍດີ"),
        ("my", "မင်္ဂ\u200dလာ ပါ", "မင်္ဂလာပါ"),
        ("hi", "\u0958लम ५", "\u0915\u093cलम 5"),
        ("ja", "ﾃﾚﾋﾞを２台", "テレビを二台"),
        ("ko", "\u1100\u1161\u1103\u1161 3", "가다 삼"),
        ("tr", "IŞIK İyi", "ışık iyi"),
        ("de", "Straße 21", "straße einundzwanzig"),
        ("zh", "他1998年买了2个苹果", "他一九九八年买了两个苹果"),
        ("yue", "１５个", "十五个"),
    ],
)
def test_the_same_words_compare_equal(language: str, written: str, heard: str) -> None:
    assert compared_units(written, language) == compared_units(heard, language) != []


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("en", "press one", "press two"),
        ("fr", "ou", "où"),
        ("fr", "le message a été effacé", "le message a ete efface"),
        ("ru", "мой", "мои"),
        ("es", "el", "la"),
        ("hi", "कि", "की"),
        ("ar", "مدرسة", "مدرسه"),
        ("ja", "おばさん", "おばーさん"),
        ("th", "ปา", "ป่า"),
        ("tr", "kız", "kiz"),
        ("zh", "十四", "四十"),
    ],
)
def test_other_words_stay_other_words(language: str, one: str, other: str) -> None:
    assert compared_units(one, language) != compared_units(other, language)


def test_units_are_words_or_characters() -> None:
    assert compared_units("Hello, world!", "en") == ["hello", "world"]
    assert compared_units("你好，世界。", "zh") == ["你", "好", "世", "界"]
    assert normalize("नमस्ते दुनिया।", "hi") == "नमस्ते दुनिया"
    assert normalize("...", "en") == normalize("", "fr") == ""


@given(number=st.integers(0, 99_999), language=st.sampled_from(DEMO_LANGUAGES))
@settings(max_examples=150, deadline=None)
def test_a_number_is_the_same_in_digits_and_in_words(number: int, language: str) -> None:
    from num2words import num2words

    assert normalize(str(number), language) == normalize(num2words(number, lang=language), language) != ""


@given(text=st.text(max_size=60), language=st.sampled_from([*languages(), "yue", "ca", "xx"]))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_compared(text: str, language: str) -> None:
    for unit in compared_units(text, language):
        assert unit and not any(c.isspace() or (c.isupper() and c.lower() != c) for c in unit)


@given(text=st.text(max_size=60), language=st.sampled_from([*languages(), "yue"]))
@settings(max_examples=150, deadline=None)
def test_normalized_text_is_composed_and_has_no_spaces_where_the_script_has_none(text: str, language: str) -> None:
    plain = normalize(text, language)
    assert plain == unicodedata.normalize("NFC", plain)
    assert not (is_unspaced(language) and any(c.isspace() for c in plain))


def test_a_mark_that_loses_the_space_before_it_is_composed() -> None:
    assert normalize("C¸0", "my") == "ç0"


@given(number=st.integers(0, 10**12 - 1))
def test_chinese_numbers_are_read_back(number: int) -> None:
    assert _read_chinese(spell_chinese(str(number))) == number


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("0", "零"),
        ("10", "十"),
        ("110", "一百一十"),
        ("305", "三百零五"),
        ("120034", "十二万零三十四"),
        ("100000001", "一亿零一"),
        ("100101000", "一亿零一十万一千"),
        ("007", "零零七"),
        ("1234567890123", "一二三四五六七八九零一二三"),
    ],
)
def test_chinese_numbers(digits: str, words: str) -> None:
    assert spell_chinese(digits) == words
    assert spell_digits(digits) == "".join(list(_CHINESE)[int(digit)] for digit in digits)


def _read_chinese(text: str) -> int:
    """Read 十二万零三十四 as 120034: groups of ten thousand, each up to 9,999."""
    if "亿" in text:
        before, _, after = text.rpartition("亿")
        return _read_chinese(before) * 10**8 + _read_chinese(after)
    if "万" in text:
        before, _, after = text.rpartition("万")
        return _read_chinese(before) * 10**4 + _read_chinese(after)
    total = digit = 0
    for sign in text:
        if sign in _CHINESE:
            digit = _CHINESE[sign]
        else:
            total += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[sign]
            digit = 0
    return total + digit


@pytest.mark.parametrize("language", sorted(languages()))
def test_a_very_long_number_is_no_error(language: str) -> None:
    assert normalize("7" * 60, language)


def test_chinese_becomes_simplified() -> None:
    pytest.importorskip("opencc", reason="OpenCC is not installed: traditional characters stay as they are")
    assert normalize("我聽說計程車", "zh") == normalize("我听说计程车", "zh")
    assert simplified("聽說", "yue") == "听说"
    assert simplified("聴說", "ja") == "聴說"


def test_the_rules_name_their_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = rules_in_use()
    assert {"rules", "whisper-normalizer", "num2words", "opencc"} == set(rules)
    monkeypatch.setattr(comparable_text, "VERSION", 10**6)
    assert rules_in_use() != rules
