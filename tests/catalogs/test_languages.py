"""The languages table is whole, and codes found in the wild lead to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalogs.vocabulary.languages import dialect, dialects, language, languages, text_unit, text_units, whisper_code


def test_there_are_30_languages_and_9_dialects() -> None:
    assert len(languages()) == 30
    assert len(dialects()) == 9
    assert len({one.name for one in languages().values()}) == 30
    assert {one.unit for one in languages().values()} == {"char", "word"}


def test_the_recogniser_knows_every_code() -> None:
    tokenizer = pytest.importorskip("faster_whisper.tokenizer")
    codes = {one.whisper for one in languages().values()} | {one.whisper for one in dialects().values()}
    assert codes <= set(tokenizer._LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("en-US", "en"),
        ("zh-CN", "zh"),
        ("ZH_cn", "zh"),
        ("nb", "no"),
        ("fil", "tl"),
        ("jpn", "ja"),
        ("ger", "de"),
        ("yue", "zh"),
        ("zh-CN-x-sichuan", "zh"),
    ],
)
def test_codes_lead_to_their_language(code: str, expected: str) -> None:
    found = language(code)
    assert found is not None
    assert found.code == expected


def test_unknown_languages_are_none_and_not_english() -> None:
    assert language("ur") is None
    assert language(None) is None
    assert whisper_code("ur-PK") == "ur"


def test_dialects_have_their_tag() -> None:
    found = dialect("zh-CN-x-sichuan")
    assert found is not None
    assert found.tag == "四川话"
    assert dialect("zh-CN") is None
    assert whisper_code("yue") == "yue"
    assert whisper_code("wuu") == "zh"


def test_error_rates_count_what_the_script_separates() -> None:
    assert text_units("你好 世界", "zh") == ["你", "好", "世", "界"]
    assert text_units("good evening everyone", "en") == ["good", "evening", "everyone"]
    assert text_unit(None, "สวัสดีครับ") == "char"
    assert text_unit("ur", "آپ کیسے ہیں") == "word"
    assert text_unit(None, "") == "word"


def test_every_language_of_the_real_recordings_is_understood(corpora: Path) -> None:
    lines = (corpora / "world" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    found = {json.loads(line).get("language") for line in lines} - {None, "mul", "ur"}
    assert [code for code in found if language(code) is None] == []
