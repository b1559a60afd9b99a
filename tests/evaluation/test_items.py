"""Items: identity by content, and their lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from evaluation.errors import EvaluationError
from evaluation.items import Item, distinct, from_row, read_items, to_row, write_items
from evaluation.lists.own import read_panel


def clip(path: Path, level: float = 0.1) -> Path:
    soundfile.write(path, np.full(800, level, np.float32), 16_000)
    return path


def test_an_item_is_its_content_and_not_its_name_or_place(tmp_path: Path) -> None:
    first, same = clip(tmp_path / "a.wav"), clip(tmp_path / "b.wav")
    other = clip(tmp_path / "c.wav", 0.2)
    item = Item("Hello.", "en", name="1", reference=first, reference_text="Hi.", instruction="calm")
    assert replace(item, name="2", list_name="x", reference=same, groups={"speaker": "s"}).id == item.id
    changed = [
        replace(item, text="Hello!"),
        replace(item, language="de"),
        replace(item, reference=other),
        replace(item, reference=None),
        replace(item, reference_text="Ho."),
        replace(item, instruction="loud"),
    ]
    assert len({item.id, *(one.id for one in changed)}) == 7


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("cmn", "zh"),
        ("jpn", "ja"),
        ("kor", "ko"),
        ("Chinese", "zh"),
        ("de-DE", "de"),
        ("wuu", "wuu"),
        ("Elvish", "Elvish"),
    ],
)
def test_a_spelling_of_a_language_becomes_its_code_and_the_id_stays(given: str, code: str) -> None:
    item = from_row({"text": "Hello.", "language_id": given}, Path("/"))
    # Runs that were made before have this id, of the language as the list spells it.
    assert item.language == code and item.id == Item("Hello.", given).id
    assert to_row(item)["language_id"] == given and from_row(to_row(item), Path("/")) == item


_WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text.strip())


@given(text=_WORDS, instruction=st.one_of(st.just(""), _WORDS), group=_WORDS)
def test_a_row_gives_the_item_back(text: str, instruction: str, group: str) -> None:
    item = Item(text, "fr", name="n", list_name="l", instruction=instruction, groups={"accent": group})
    row = json.loads(json.dumps(to_row(item)))
    assert from_row(row, Path("/")) == item


def test_a_written_list_is_read_back_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path / "sub" / "list.jsonl", [Item("Hello.", "en", list_name="l", reference=Path("a.wav"))])
    monkeypatch.chdir("/")
    (item,) = read_items(tmp_path / "sub" / "list.jsonl")
    assert item.reference == tmp_path / "a.wav"
    assert item.list_name == "l"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "Hello."}', "language_id is missing"),
        ('{"language_id": "en", "text": " "}', "text is missing"),
        ('{"text": "Hello.", "language_id": "en", "ref_audio": "gone.wav"}', "no audio file at"),
        ('{"text": "Hello.", "language_id": "en", "speaker": {"a": 1}}', "speaker is dict"),
        ("[1]", "not an object"),
        ("{", "Expecting"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"text": "Hello.", "language_id": "en"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"line 3: ") as told:
        read_items(path)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"text": "Grüße", "language_id": "de"}', encoding="latin-1")
    with pytest.raises(EvaluationError, match=r"list\.jsonl is not UTF-8 text"):
        read_items(tmp_path / "list.jsonl")
    (tmp_path / "voice.wav").touch()
    (tmp_path / "voice.txt").write_text("Grüße", encoding="latin-1")
    with pytest.raises(EvaluationError, match=r"voice\.txt is not UTF-8 text"):
        read_panel(str(tmp_path))


def test_of_two_items_with_one_content_the_first_stays() -> None:
    one, two = Item("Hello.", "en", name="1"), Item("Hello.", "en", name="2")
    assert [item.name for item in distinct([one, two])] == ["1"]
