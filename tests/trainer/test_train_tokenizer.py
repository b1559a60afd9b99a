"""The tokenizer of models from scratch: any text can be spelled, and the marks stand where the model looks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.model.tokenizer import train_tokenizer
from voxcpm.sequence.prompt_layout import AUDIO_END, AUDIO_START, REFERENCE_END, REFERENCE_START
from voxcpm.sequence.text_tokenizer import TextTokenizer

TEXTS = [
    "Kids are talking by the door.",
    "Dogs are sitting by the door.",
    "(A calm, low voice) Dogs are sitting by the door, and the kids are talking.",
    "今天天气很好，我们去公园散步吧。",
    "Können wir das später besprechen?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 420, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> TextTokenizer:
    return TextTokenizer.load(folder)


@given(st.text(max_size=60))
@example("Kids are talking 今天天气 \U0001f600")
@example(" ")
@example("<|audio_start|>")
@example("a  b\u00a0c\t\n")
def test_any_text_comes_back(folder: Path, text: str) -> None:
    from tokenizers import Tokenizer

    bpe = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = bpe.encode(text, add_special_tokens=False).ids
    spelt = bpe.decode(ids, skip_special_tokens=False)
    # The space mark is the one character that cannot be told from a space. Text that is not a mark gets one space in front.
    plain = text.replace("\u2581", " ")
    assert spelt in (plain, f" {plain}")


def test_marks_are_in_the_official_places(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert (vocabulary["<unk>"], vocabulary["<s>"], vocabulary["</s>"]) == (0, 1, 2)
    assert vocabulary["<|audio_start|>"] == AUDIO_START == 101
    assert vocabulary["<|audio_end|>"] == AUDIO_END == 102
    assert vocabulary["<|audio_prompt_start|>"] == REFERENCE_START == 103
    assert vocabulary["<|audio_prompt_end|>"] == REFERENCE_END == 104
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


@pytest.mark.parametrize("text", [*TEXTS, "Zwölf Boxkämpfer jagen Viktor.", "Ẹ káàárọ̀", "\U0001f600"])
def test_the_model_s_own_reader_knows_every_piece(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids and 0 not in ids and not {1, 2} & set(ids)
    assert all(0 < i < tokenizer.size for i in ids)
    assert not set(ids) & set(range(101, 109))


def test_texts_of_the_corpus_are_shorter_than_their_letters(tokenizer: TextTokenizer) -> None:
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 2


def test_it_is_as_large_as_asked_for_at_most_and_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 420, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert TextTokenizer.load(folder).size <= 420


def test_a_corpus_of_one_word_still_spells_everything(tmp_path: Path) -> None:
    train_tokenizer(["a"], 512, tmp_path)
    assert 0 not in TextTokenizer.load(tmp_path).encode("zażółć gęślą jaźń")
