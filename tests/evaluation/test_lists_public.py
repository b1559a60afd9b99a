"""The layouts of published test lists, on small copies of them and on the real files."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from list_folders import cv3_subset, minimax_folder, put, seed_folder, sound

from evaluation.errors import EvaluationError
from evaluation.lists import open_lists
from evaluation.lists.base import find_file
from evaluation.lists.cv3 import without_quotes
from evaluation.lists.instruct import plain_instruction

LINE = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|")).map(str.strip).filter(bool)


# --- seed ---


def test_the_lists_of_a_seed_folder_have_their_names_languages_and_recordings(tmp_path: Path) -> None:
    items = open_lists([f"seed:{seed_folder(tmp_path)}"])
    assert [(item.list_name, item.language, item.name) for item in items] == [
        ("seed-en", "en", "u0"), ("seed-en", "en", "u1"), ("seed-zh", "zh", "u0"), ("seed-hard", "zh", "h0"),
    ]  # fmt: skip
    first = items[0]
    assert (first.text, first.reference_text) == ("Say zero.", "Words zero.")
    assert first.reference == tmp_path / "en/prompt-wavs/p0.wav"
    assert [item.human and item.human.parent.parent.name for item in items] == ["en", None, "zh", None]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("u7|Only text.", ("Only text.", None, "")),
        ("u7|Say it.|prompt-wavs/p0.wav", ("Say it.", "p0.wav", "")),
        ("u7.wav|Words.|prompt-wavs/p0.wav|Say it.", ("Say it.", "p0.wav", "Words.")),
        ("u7|Words.|prompt-wavs/p0.wav|Say it.|wavs/u0.wav", ("Say it.", "p0.wav", "Words.")),
    ],
)
def test_a_line_has_two_to_five_fields(tmp_path: Path, line: str, wanted: tuple[str, str | None, str]) -> None:
    path = put(seed_folder(tmp_path) / "en/some.lst", f"\ufeff{line}\r\n")
    (item,) = open_lists([f"seed:{path}"])
    clip = item.reference.name if item.reference else None
    assert (item.text, clip, item.reference_text) == wanted and item.name == "u7"
    assert item.list_name == "seed-en-some" and (item.human is not None) == (line.count("|") == 4)


@given(before=LINE, after=LINE, where=st.integers(0, 3), fields=st.sampled_from([2, 3, 4, 5]))
def test_a_bar_within_a_text_is_an_error_with_the_line(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str, where: int, fields: int
) -> None:
    broken = f"{before}|{after}"
    values = ["u0", "Words.", "prompt-wavs/p0.wav", "Say it.", "wavs/u0.wav"][:fields]
    if fields == 3:
        values = ["u0", "Say it.", "prompt-wavs/p0.wav"]
    texts = [at for at, value in enumerate(values) if value.endswith(".")]
    values[texts[where % len(texts)]] = broken
    folder = tmp_path_factory.getbasetemp() / "bars"
    if not folder.is_dir():
        seed_folder(folder)
    path = put(folder / "en/bars.lst", "u0|Fine.\n\n" + "|".join(values) + "\n")
    with pytest.raises(EvaluationError, match=r"bars\.lst, line 3: .*must not contain \|") as told:
        open_lists([f"seed:{path}"])
    assert "\n" not in str(told.value)


def test_missing_prompts_are_counted_and_missing_recordings_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = seed_folder(tmp_path)
    (root / "zh/wavs/u0.wav").unlink()
    with caplog.at_level(logging.WARNING):
        (item,) = open_lists([f"seed:{root / 'zh/meta.lst'}"])
    assert item.human is None and "1 of 1 recordings of the texts are missing" in caplog.text
    (root / "en/prompt-wavs/p1.wav").unlink()
    with pytest.raises(EvaluationError, match=r"1 of 2 audio files are missing, first .*p1\.wav; unpack"):
        open_lists([f"seed:{root}"])


def test_a_folder_without_a_language_needs_the_option(tmp_path: Path) -> None:
    path = put(tmp_path / "mine" / "meta.lst", "u1|Hallo.\n")
    with pytest.raises(EvaluationError, match="add ,language=CODE"):
        open_lists([f"seed:{path}"])
    (item,) = open_lists([f"seed:{path},language=German"])
    assert (item.language, item.list_name) == ("de", "seed-de")


# --- paths in lists of others ---


@pytest.mark.parametrize("name", ["/etc/x.wav", "../x.wav", "a/../../x.wav", "x.wav", ""])
def test_a_published_list_names_no_file_outside_its_tree(tmp_path: Path, name: str) -> None:
    """The folder of the list is two below a file that nobody meant to give."""
    (tmp_path / "x.wav").write_bytes(b"private")
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    assert find_file(folder, name) is None


def test_a_path_may_begin_at_a_folder_that_the_list_is_below(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "zero_shot" / "ja"
    folder.mkdir(parents=True)
    (folder / "1.wav").write_bytes(b"a clip")
    for name in ("1.wav", "zero_shot/ja/1.wav", "data/zero_shot//ja/1.wav", "ja/1.wav", "elsewhere/ja/1.wav"):
        assert find_file(folder, name) is not None, name
    assert find_file(folder, "other/2.wav") is None


# --- cv3 ---


def test_scp_paths_are_found_from_any_folder_above_or_beside_the_list(tmp_path: Path) -> None:
    folder = cv3_subset(tmp_path / "repo/data/zero_shot/ja")
    items = open_lists([f"cv3:{folder}"])
    assert [(item.name, item.language, item.list_name) for item in items] == [
        ("u1", "ja", "cv3-ja"), ("u2", "ja", "cv3-ja"),
    ]  # fmt: skip
    assert [item.reference for item in items] == [folder / f"waveform/prompt_u{n}.wav" for n in (1, 2)]
    assert items[0].reference_text == "words of u1"
    moved = tmp_path / "alone/ja"
    moved.parent.mkdir()
    folder.rename(moved)
    assert open_lists([f"cv3:{moved}"])[0].reference == moved / "waveform/prompt_u1.wav"
    (moved / "waveform/prompt_u2.wav").unlink()
    with pytest.raises(EvaluationError, match=r"1 of 2 audio files are missing, first .*waveform/prompt_u2\.wav"):
        open_lists([f"cv3:{moved}"])


def test_csv_quoting_is_undone_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    folder = cv3_subset(tmp_path / "data/zero_shot/en")
    assert [item.text for item in open_lists([f"cv3:{folder}"])] == ["Plain text.", 'He said "no", twice.']
    assert open_lists([f"cv3:{folder},quotes=keep"])[1].text == '"He said ""no"", twice."'
    with pytest.raises(EvaluationError, match="quotes=off is not one of undo, keep"):
        open_lists([f"cv3:{folder},quotes=off"])


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_what_a_csv_writer_quotes_is_read_back(text: str) -> None:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="").writerow([text])
    assert without_quotes(sink.getvalue()) == text


@pytest.mark.parametrize("text", ['"Yes," he said, "no"', '"', "", 'a "b" c', '"a"b""'])
def test_text_that_is_not_a_quoted_field_stays(text: str) -> None:
    assert without_quotes(text) == text


def test_every_subset_of_cv3_has_its_name_and_groups(tmp_path: Path) -> None:
    data = tmp_path / "data"
    cv3_subset(data / "cross_lingual_zeroshot/to_ko", texts={"c1": "안녕."})
    cv3_subset(data / "emotion_zeroshot/en/sad", texts={"sad_high_1": "Oh.", "sad_low_2": "Ah."})
    cv3_subset(data / "zero_shot/hard_zh", texts={"h1": "八百标兵。"})
    cv3_subset(data / "zero_shot_clone_10speak/anna/hard_en", texts={"k1": "Six sick."})
    continued = cv3_subset(data / "subjective_continue/rhyme/zh", texts={"r1": "床前。"})
    put(continued / "gt_wav.scp", "r1 data/subjective_continue/rhyme/zh/waveform/prompt_r1.wav\n")
    items = open_lists([f"cv3:{data}"])
    assert [(item.list_name, item.language, dict(item.groups)) for item in items] == [
        ("cv3-to-ko", "ko", {"direction": "to_ko"}),
        ("cv3-emotion-en-sad", "en", {"emotion": "sad", "level": "high"}),
        ("cv3-emotion-en-sad", "en", {"emotion": "sad", "level": "low"}),
        ("cv3-continue-rhyme-zh", "zh", {}),
        ("cv3-hard-zh", "zh", {}),
        ("cv3-clone-hard-en", "en", {"speaker": "anna"}),
    ]
    assert items[3].human == continued / "waveform/prompt_r1.wav"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("prompt_text", "u1 words\n", "1 of 2 ids of text are missing, first u2"),
        ("text", "u1 One.\nu1 Two.\n", "line 2: the id u1 comes twice"),
        ("text", "u1\n", "line 1: no value after the id 'u1'"),
    ],
)
def test_faults_of_kaldi_files_are_named(tmp_path: Path, name: str, content: str, fault: str) -> None:
    folder = cv3_subset(tmp_path / "data/zero_shot/en")
    put(folder / name, content)
    with pytest.raises(EvaluationError, match=fault):
        open_lists([f"cv3:{folder}"])


# --- minimax ---


def test_minimax_has_a_voice_per_label_and_one_voice_is_enough(tmp_path: Path) -> None:
    root = minimax_folder(tmp_path)
    items = open_lists([f"minimax:{root}"])
    assert [(item.list_name, item.language, item.groups["speaker"], item.groups["gender"]) for item in items] == [
        ("minimax-yue", "yue", "cantonese_female", "female"),
        ("minimax-de", "de", "german_female", "female"),
        ("minimax-de", "de", "german_male", "male"),
        ("minimax-de", "de", "german_female", "female"),
    ]
    assert [item.reference_text for item in items] == ["講嘢。", "Das Wort.", "Ein Satz.", "Das Wort."]
    assert len({item.id for item in items}) == 4, "the same text in another voice is another item"
    assert items[0].reference is not None and soundfile.info(items[0].reference).samplerate == 16_000
    for one in ("german", "de", "German"):
        assert len(open_lists([f"minimax:{root}:{one}"])) == 3
    with pytest.raises(EvaluationError, match="no language 'fr'; it has de, yue"):
        open_lists([f"minimax:{root}:fr"])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("german_female|Eins | zwei", "must not contain"),
        ("french_female|Bonjour", "not `german_<gender>"),
        ("german_other|Hallo", "the voice german_other has no clip .*fetch the folder speaker"),
        ("german_femal|Hallo", "the voice german_femal has no clip .*there is german_female"),
        ("german_female|", "the text is empty"),
    ],
)
def test_faults_of_minimax_lines_are_named(tmp_path: Path, line: str, fault: str) -> None:
    root = minimax_folder(tmp_path)
    put(root / "text/german.txt", f"# header\n\ngerman_female|Gut.\n{line}\n")
    with pytest.raises(EvaluationError, match=f"german.txt, line 4: .*{fault}"):
        open_lists([f"minimax:{root}"])


def test_the_real_texts_of_minimax(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    from evaluation.lists import minimax

    folder = shared / "evaluation" / "minimax"
    if not folder.is_dir():
        pytest.skip(f"no texts at {folder}")
    every = minimax.read(str(folder))
    assert Counter(Counter(item.list_name for item in every).values()) == {100: 24}
    assert {item.language for item in every} >= {"yue", "zh", "cs", "ro", "uk", "ar", "vi"}
    assert not [item for item in every if item.text.startswith("#") or "|" in item.text or item.reference]
    with caplog.at_level(logging.WARNING):
        items = open_lists([f"minimax:{folder}"])
    assert len(items) == 2399 and "1 of 2400 items repeat" in caplog.text, "one Portuguese sentence is there twice"
    assert Counter(item.language for item in items)["pt"] == 99
    few = open_lists([f"minimax:{folder}"], limit=48)
    assert set(Counter(item.language for item in few).values()) == {2}


# --- instruct ---


def test_an_item_per_instruction_and_embedded_recordings_by_digest(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"r{n}",
            "text": f"Text {n}.",
            "APS": "Gender: female (young)\nPitch: high",
            "DSD": "Calm.",
            "RP": "A queen.",
            "reference_audio": {"bytes": sound(n % 2), "path": f"{n}.wav"},
        }
        for n in range(3)
    ]
    table = pa.Table.from_pylist(rows)
    (tmp_path / "data").mkdir()
    pq.write_table(table.slice(0, 2), tmp_path / "data/en-00000-of-00002.parquet")
    pq.write_table(table.slice(2), tmp_path / "data/en-00001-of-00002.parquet")
    items = open_lists([f"instruct:{tmp_path / 'data'}"], options={"cache": tmp_path / "cache"})
    assert [item.name for item in items] == [f"r{n}-{kind}" for n in range(3) for kind in ("APS", "DSD", "RP")]
    assert {item.list_name for item in items} == {"instruct-en"} and items[0].groups == {"kind": "APS"}
    assert items[0].instruction == "Gender: female youngPitch: high"
    assert all(item.reference is None for item in items)
    assert [item.human.read_bytes() for item in items if item.human] == [sound(n % 2) for n in range(3) for _ in "123"]
    assert len(list((tmp_path / "cache").rglob("*.wav"))) == 2, "the same recording is stored once"
    some = open_lists([f"instruct:{tmp_path / 'data'}:rp+aps,cache={tmp_path / 'few'}"], limit=1)
    assert len(some) == 1 and len(list((tmp_path / "few").rglob("*.wav"))) == 1, "only what was chosen is extracted"


def test_the_input_of_the_judge_and_paths_of_recordings(tmp_path: Path) -> None:
    put(tmp_path / "clips/a.wav", sound(1))
    row = {"id": 1, "text": "你好。", "reference_audio": "clips/a.wav"}
    row |= {kind: {"instruction": f"{kind} text", "gen_path": "x.wav"} for kind in ("APS", "DSD", "RP")}
    path = put(tmp_path / "example_zh.jsonl", json.dumps(row) + "\n")
    items = open_lists([f"instruct:{path}:DSD"])
    assert [(item.instruction, item.language, item.human) for item in items] == [
        ("DSD text", "zh", tmp_path / "clips/a.wav")
    ]
    with pytest.raises(EvaluationError, match="no kind of instruction 'XYZ'; known: APS, DSD, RP"):
        open_lists([f"instruct:{path}:XYZ"])
    put(path, json.dumps(row | {"RP": ""}) + "\n")
    with pytest.raises(EvaluationError, match="row 1: RP is empty"):
        open_lists([f"instruct:{path}"])
    put(path, json.dumps(row | {"reference_audio": "clips/b.wav"}) + "\n")
    with pytest.raises(EvaluationError, match=r"row 1: reference_audio: no audio file at .*clips/b\.wav"):
        open_lists([f"instruct:{path}"])


@given(st.text())
def test_an_instruction_can_stand_in_parentheses(text: str) -> None:
    plain = plain_instruction(text)
    assert not set("()\n\r") & set(plain)
    assert [sign for sign in text if sign not in "()\n\r"] == list(text.translate(str.maketrans("", "", "()\n\r")))


# --- librispeech-pc ---


def test_the_real_cross_sentence_list(shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = shared / "evaluation" / "librispeech_pc_test_clean_cross_sentence.lst"
    if not path.is_file():
        pytest.skip(f"no list at {path}")
    with pytest.raises(EvaluationError, match=r"the audio of 1127 of 1127 prompts is missing; add ,root=FOLDER"):
        open_lists([f"librispeech-pc:{path}"])
    with caplog.at_level(logging.WARNING):
        items = open_lists([f"librispeech-pc:{path},missing=text"])
    assert len(items) == 1127 and "1127 items have no reference" in caplog.text
    assert items[0].text.startswith("But the more forgetfulness") and items[0].text.endswith("awoke.")
    assert {item.language for item in items} == {"en"} and len({item.groups["speaker"] for item in items}) > 30
    put(tmp_path / "LibriSpeech/test-clean/4992/41806/4992-41806-0009.flac", sound(1, "FLAC"))
    put(tmp_path / "flat/4992-23283-0001.wav", sound(2))
    found = open_lists([f"librispeech-pc:{path},root={tmp_path},missing=skip"])
    assert 2 <= len(found) < 20 and "items are left out" in caplog.text
    assert {item.reference.name for item in found if item.reference} == {"4992-41806-0009.flac", "4992-23283-0001.wav"}
    assert found[0].reference_text.startswith("exclaimed Bill Harmon")


def test_a_line_of_another_form_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.lst", "1-2-3\t1.0\tWords.\t1-2-4\t2.0\tText.\n1-2-3 1.0 Words. 1-2-4 2.0 Text.\n")
    with pytest.raises(EvaluationError, match="line 2: not `id, seconds"):
        open_lists([f"librispeech-pc:{path},missing=text"])


# --- parquet copies of the hub ---


def test_parquet_copies_have_the_prompt_as_reference(tmp_path: Path) -> None:
    rows = [
        {
            "utt": f"u{n}.wav",
            "target_text": f"Text {n}",
            "prompt_text": f"Words {n}",
            "prompt_audio": {"bytes": sound(n)},
        }
        for n in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "ko-00000-of-00001.parquet")
    items = open_lists([f"parquet:{tmp_path},name=cv3-ko,cache={tmp_path / 'cache'}"])
    assert [(item.name, item.text, item.reference_text, item.language, item.list_name) for item in items] == [
        (f"u{n}", f"Text {n}", f"Words {n}", "ko", "cv3-ko") for n in range(4)
    ]
    assert [item.reference.read_bytes() for item in items if item.reference] == [sound(n) for n in range(4)]
    put(tmp_path / "ko-00001-of-00001.parquet", b"PAR1 damaged")
    with pytest.raises(EvaluationError, match=r"ko-00001-of-00001\.parquet cannot be read"):
        open_lists([f"parquet:{tmp_path}"])
