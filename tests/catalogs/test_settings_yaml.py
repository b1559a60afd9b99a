"""YAML 1.2: only true and false are booleans, in every file and every `--set`; what is written is read back equal."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from catalogs.corpus.thresholds import load_thresholds
from catalogs.settings import SettingsError, dump_settings, load_settings, load_yaml, read_yaml
from pipeline.config import load_config
from trainer.config import load_train_config

#: Words that YAML 1.1 reads as something other than text, and their neighbors.
TRAPS = (
    *"off Off OFF on no No NO yes y n Y N 1:30 1:30.5 190:20:30 2024-01-01 2001-12-14T21:59:43Z 1_000 0b11 010".split(),  # noqa: SIM905
    *"0o17 0x1f 1e3 1.5e3 +.5 .inf -.INF .nan ~ null true False = << 09 -0 +1 .5 5. é".split(),  # noqa: SIM905
    *("a\x85b", "\u2028", "\ufeff", "a\r\n b ", "x" * 90 + " y" * 30),
)


class Group(BaseModel):
    """Settings of every kind of value."""

    word: str = ""
    number: float | None = None
    switch: bool = False
    words: list[str] = []
    weights: dict[str, float] = {}


@pytest.mark.parametrize(
    "word", ["off", "on", "no", "yes", "y", "n", "Off", "NO", "1:30", "2024-01-01", "1_000", "0b11"]
)
def test_a_word_that_yaml_1_1_reads_otherwise_is_text(word: str) -> None:
    assert load_yaml(f"a: {word}") == {"a": word}
    assert load_yaml(f"{word}: 2") == {word: 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("true", True), ("FALSE", False), ("010", 10), ("0o17", 15), ("0xff", 255), ("1e3", 1000.0), ("-.5", -0.5)),
        *(("~", None), ("", None), ("-3", -3), ("'no'", "no")),
    ],
)
def test_what_yaml_1_2_defines_is_read_so(text: str, value: object) -> None:
    found = load_yaml(f"a: {text}")["a"]
    assert found == value and type(found) is type(value)


def test_documented_words_of_prepare_are_taken_as_override_and_in_a_file(tmp_path: Path) -> None:
    overrides = ["separate.mode=off", "transcribe.second_pass=off", "sources.language=no"]
    file = tmp_path / "prepare.yaml"
    file.write_text(
        "separate: {mode: off}\ntranscribe: {second_pass: off}\nsources: {language: no}\n", encoding="utf-8"
    )
    for config in (load_config(None, overrides), load_config(file)):
        found = config.model_dump()
        assert found["separate"]["mode"] == "off" and found["transcribe"]["second_pass"] == "off"
        assert config.sources.language == "no"


def test_norwegian_is_a_key_of_the_trainer_s_language_weights() -> None:
    config = load_train_config("toy", ["corpus=c", "output=o", "phases.toy.language_weights={no: 2}"])
    assert config.phases["toy"].language_weights == {"no": 2.0}


@pytest.mark.parametrize(("text", "value"), [("no", False), ("off", False), ("yes", True), ("true", True)])
def test_a_switch_still_takes_the_old_words(text: str, value: bool) -> None:
    assert load_settings(Group, None, [f"switch={text}"]).switch is value


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        Group,
        word=st.text() | st.sampled_from(TRAPS),
        number=st.none() | st.floats(allow_nan=False),
        switch=st.booleans(),
        words=st.lists(st.text() | st.sampled_from(TRAPS)),
        weights=st.dictionaries(st.text() | st.sampled_from(TRAPS), st.floats(allow_nan=False)),
    )
)
def test_settings_that_were_written_are_read_back_equal(group: Group) -> None:
    text = dump_settings(group)
    assert Group.model_validate(load_yaml(text)) == group
    # A 1.1 reader (an older voxmill, another tool) understands the same file.
    assert Group.model_validate(yaml.safe_load(text)) == group


@settings(max_examples=100, deadline=None)
@given(st.text(string.ascii_letters + string.digits + "-+.:_~= ") | st.sampled_from(TRAPS))
def test_files_of_the_old_version_are_read_the_same_way(word: str) -> None:
    """PyYAML quotes every word of 1.1; the exception are numbers in 1.2's wider notation, which settings never held."""
    if isinstance(load_yaml(word) if word.strip() and word[0] not in "-=:" else "", float | int):
        return
    old = yaml.safe_dump({"mode": word, "weights": {word: 2.0}, "flags": [word], "on": True, "at": 1e-05, "no": None})
    assert load_yaml(old) == yaml.safe_load(old)


def test_an_old_corpus_thresholds_are_read(tmp_path: Path) -> None:
    values: dict[str, Any] = {"min_snr_db": 1e-05, "require_text": False, "drop_flags": ["stock_phrase"]}
    (tmp_path / "prepare.yaml").write_text(
        yaml.safe_dump(
            {"name": "off", "separate": {"mode": "off"}, "sources": {"language": "no"}, "thresholds": values}
        ),
        encoding="utf-8",
    )
    assert load_thresholds(tmp_path).model_dump(mode="json").items() >= values.items()


@settings(max_examples=100, deadline=None)
@given(st.text("{}[]:,-&*!|>'\"#%@` \n\tab01e.<?~", max_size=30))
def test_any_text_is_settings_or_one_line(text: str) -> None:
    try:
        load_settings(Group, None, [f"word={text}"])
        load_yaml(text)
    except SettingsError as error:
        assert "\n" not in str(error)
    except yaml.YAMLError:
        pass


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"word: a\nnumber: 1\nword: b\n", "the key word is written twice"),
        (b"word: \xff\xfe\n", "not UTF-8"),
        (b"- word\n", "must hold key: value pairs, not a list"),
        (b"word: [a\n", r"is not valid YAML: expected .* \(line 2, column 1\)$"),
        (b"[" * 1000, "is not valid YAML"),
        (b"number: " + b"9" * 5000, "is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(data)
    with pytest.raises(SettingsError, match=words) as refused:
        read_yaml(file)
    assert str(file) in str(refused.value) and "\n" not in str(refused.value)


def test_a_merged_mapping_is_not_taken_for_a_key_written_twice() -> None:
    text = "a: &a {x: 1}\nouter: {inner: &b {<<: *a, x: 2}}\nc: {<<: *b, y: 3}\n"
    assert load_yaml(text)["c"] == {"x": 2, "y": 3}


@pytest.mark.parametrize(
    ("override", "words"),
    [("words=one", r"write a list in brackets: words=\[one\]"), ("word=5", "in quotes: word='\"5\"'")],
)
def test_a_value_of_the_wrong_kind_says_how_to_write_it(override: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(Group, None, [override])
