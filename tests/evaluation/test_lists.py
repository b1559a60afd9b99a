"""Our own lists, and what all lists have in common: options, languages, samples, faults."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from list_folders import minimax_folder, put

from catalogs.vocabulary.languages import languages
from evaluation.errors import EvaluationError
from evaluation.items import Item, read_items, write_items
from evaluation.languages import language_code
from evaluation.lists import LISTS, describe_lists, open_lists
from evaluation.lists.base import sample

LINE = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|")).map(str.strip).filter(bool)


def test_the_panel_takes_its_voices_from_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(800, 0.1 if name == "a" else 0.2, np.float32), 16_000)
    (tmp_path / "a.txt").write_text("The words of a.\n", encoding="utf-8")
    items = open_lists([f"panel:{tmp_path}"])
    assert [item.reference.name if item.reference else "" for item in items[:3]] == ["a.wav", "b.wav", "a.wav"]
    assert [item.reference_text for item in items[:2]] == ["The words of a.", ""]
    assert {item.speaker for item in items} == {"a", "b"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="no audio file"):
        open_lists([f"panel:{tmp_path / 'empty'}"])


def test_the_panel_is_two_sentences_per_language_in_their_scripts() -> None:
    items = open_lists(["panel"])
    assert Counter(item.language for item in items) == dict.fromkeys(languages(), 2)
    assert len({item.text for item in items}) == 60 and {item.list_name for item in items} == {"panel"}
    prefixes = {
        "Arab": ("ARABIC",), "Mymr": ("MYANMAR",), "Hani": ("CJK",), "Latn": ("LATIN",), "Grek": ("GREEK",),
        "Hebr": ("HEBREW",), "Deva": ("DEVANAGARI",), "Jpan": ("CJK", "HIRAGANA", "KATAKANA"), "Khmr": ("KHMER",),
        "Kore": ("HANGUL",), "Laoo": ("LAO",), "Cyrl": ("CYRILLIC",), "Thai": ("THAI",),
    }  # fmt: skip
    unspaced = {"my", "zh", "ja", "km", "lo", "th"}
    for item in items:
        letters = [sign for sign in item.text if unicodedata.category(sign)[0] in "LM"]
        allowed = prefixes[languages()[item.language].script]
        assert all(unicodedata.name(sign).startswith(allowed) for sign in letters), item.text
        assert not any(sign.isnumeric() and unicodedata.category(sign)[0] == "N" for sign in item.text), item.text
        assert unicodedata.normalize("NFC", item.text) == item.text
        if item.language in unspaced:
            assert 15 <= len(item.text) <= 60, item.text
        else:
            assert 6 <= len(item.text.split()) <= 14, item.text
        assert item.reference is None and not item.instruction


def test_a_written_list_is_read_back(tmp_path: Path) -> None:
    items = open_lists([f"minimax:{minimax_folder(tmp_path / 'm')}"])
    write_items(tmp_path / "mine.jsonl", items)
    again = open_lists([str(tmp_path / "mine.jsonl")])
    assert [item.id for item in again] == [item.id for item in items]
    assert again == read_items(tmp_path / "mine.jsonl") == open_lists([f"jsonl:{tmp_path / 'mine.jsonl'}"])
    assert [item.list_name for item in again] == [item.list_name for item in items]


def test_items_that_two_lists_share_are_spoken_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path / "de" / "meta.lst", "a|Hallo.\nb|Tag.\nc|Hallo.\n")
    with caplog.at_level(logging.WARNING):
        items = open_lists([f"seed:{path}", f"seed:{path},limit=1", "panel,limit=3"])
    assert [item.name for item in items[:2]] == ["a", "b"] and len(items) == 5
    assert "1 of 3 items repeat the content of another" in caplog.text


def test_languages_are_chosen_by_code_or_name(tmp_path: Path) -> None:
    assert [item.language for item in open_lists(["panel"], languages=["German", "fr"])] == ["fr", "fr", "de", "de"]
    with pytest.raises(EvaluationError, match="no item in cs; the lists have ar, da"):
        open_lists(["panel"], languages=["de", "czech"])
    with pytest.raises(EvaluationError, match="did you mean german"):
        open_lists(["panel"], languages=["germann"])
    assert len(open_lists([f"minimax:{minimax_folder(tmp_path)}"], languages=["yue"])) == 1
    mine = put(
        tmp_path / "mine.jsonl", '{"text": "Hallo.", "language_id": "de-DE"}\n{"text": "x", "language_id": "conlang"}\n'
    )
    assert [item.text for item in open_lists([str(mine)], languages=["german"])] == ["Hallo."]


@pytest.mark.parametrize(
    ("name", "code"),
    [("de-DE", "de"), ("zh_CN", "zh"), ("Cantonese", "yue"), ("yue", "yue"), ("Norwegian", "no"), ("nb", "no"),
     ("fil", "tl"), ("czech", "cs"), ("cs-CZ", "cs"), ("zh-HK", "zh-hk")],
)  # fmt: skip
def test_language_codes(name: str, code: str) -> None:
    assert language_code(name) == code


TEXTS = st.lists(st.text("abcdef", min_size=1), unique=True, min_size=2, max_size=40)


@given(texts=TEXTS, limit=st.integers(1, 10), seed=st.integers(0, 3))
def test_a_sample_is_in_order_and_stays_when_the_list_grows(texts: list[str], limit: int, seed: int) -> None:
    items = [Item(text, "en", name=text) for text in texts]
    chosen = sample(items, limit, seed)
    assert len(chosen) == min(limit, len(items))
    assert [item.text for item in items if item in chosen] == [item.text for item in chosen]
    assert sample(items[::-1], limit, seed)[::-1] == chosen, "order does not matter"
    grown = sample([Item("new", "en", name="new"), *items], limit, seed)
    assert len({item.text for item in chosen} - {item.text for item in grown}) <= 1
    assert sample(chosen, limit, seed) == chosen


def test_another_seed_is_another_sample_and_languages_are_even() -> None:
    first, second = (open_lists(["panel"], limit=30, seed=seed) for seed in (0, 1))
    assert {item.language for item in first} == {item.language for item in second} == set(languages())
    assert [item.name for item in first] != [item.name for item in second]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("sed:x.lst", "no kind of list 'sed'; did you mean seed"),
        ("seed:", "no path after seed; example: seed:"),
        ("seed", "no path after seed:; example"),
        ("seed:/nowhere/en/meta.lst", "no list at /nowhere"),
        ("panel:x", "has no audio file"),
        ("panel,limit=0", "limit=0 is not a whole number above 0"),
        ("panel,langauge=de", "no option 'langauge'"),
        ("seed:x.lst,lang=de", "no option 'lang'; did you mean language"),
        ("minimax:/nowhere", "no folder at /nowhere"),
        ("instruct:/nowhere", "no file or folder at /nowhere"),
        ("corpus:/nowhere", "nowhere"),
        ("my.jsonl", "no list at my.jsonl"),
        ("cv3:/nowhere", "has no subset of CV3-Eval"),
        ("parquet:/nowhere", "no Parquet file at /nowhere"),
        ("hf:nothing", "neither a folder nor OWNER/NAME"),
        ("librispeech-pc:/nowhere.lst", "cannot be read"),
    ],
)
def test_wrong_specifications_are_one_clear_line(spec: str, fault: str) -> None:
    with pytest.raises(EvaluationError) as told:
        open_lists([spec])
    assert fault in str(told.value) and "\n" not in str(told.value)


def test_a_path_without_a_kind_and_options_that_no_list_has(tmp_path: Path) -> None:
    path = put(tmp_path / "meta.lst", "a|b\n")
    with pytest.raises(EvaluationError, match=f"state its kind before the path, such as seed:{path}"):
        open_lists([str(path)])
    with pytest.raises(EvaluationError, match="no list that is given has the option recipe"):
        open_lists(["panel"], options={"recipe": "design"})
    with pytest.raises(EvaluationError, match="no list is given"):
        open_lists([])
    latin = put(tmp_path / "en/meta.lst", b"a|caf\xe9\n")
    with pytest.raises(EvaluationError, match=r"meta\.lst is not UTF-8"):
        open_lists([f"seed:{latin}"])


def test_every_kind_is_described() -> None:
    rows = describe_lists()
    assert [row["name"] for row in rows] == list(LISTS) == sorted(LISTS)
    assert all(
        row[name] for row in rows for name in ("what", "items", "license", "where", "example", "unit", "options")
    )
    for row in rows:
        kind = row["example"].partition(":")[0].partition(",")[0]
        assert kind == row["name"] or row["example"].endswith(".jsonl")
