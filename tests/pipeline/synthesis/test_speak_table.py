"""`speak --table`: columns in and out, bad rows, crossing, ids, formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from speaking import (
    Speak,
    clips,
    files_of,
    loaded_once,
    rows_of,
    speak,
    write_csv,
    write_rows,
)

from pipeline.synthesis.table.folder import TABLE_FILE
from pipeline.synthesis.table.read_table import SpeechTableError, open_table
from pipeline.synthesis.table.rows import file_name, open_job
from voxcpm.provenance.files import read_marks
from voxcpm.provenance.statement import Statement

__all__ = ["clips", "loaded_once", "speak"]


def test_every_format_gives_the_same_speech_and_its_columns(speak: Speak, tmp_path: Path) -> None:
    rows = [{"text": "Hi", "n": 1, "x": 0.5}, {"text": "Ho", "n": 2, "x": 1.5}, {"text": "Hi", "n": 3, "x": 2.5}]
    audio = {}
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        table = write_rows(tmp_path, suffix, rows)
        out = tmp_path / f"out{suffix}"
        summary = speak(table, out)
        found = rows_of(out)
        assert (summary.rows, summary.spoken, summary.failed) == (3, 3, {})
        typed = rows if suffix in (".jsonl", ".parquet") else [{k: str(v) for k, v in row.items()} for row in rows]
        assert [{key: row[key] for key in ("text", "n", "x")} for row in found] == typed
        assert [row["row"] for row in found] == [0, 1, 2] and {row["status"] for row in found} == {"ok"}
        assert len({row["seed"] for row in found}) == 3, "the same text in two rows is spoken in two ways"
        for row in found:
            info = soundfile.info(out / row["audio"])
            assert info.samplerate == row["sample_rate"] == 48_000
            assert info.frames / 48_000 == pytest.approx(row["seconds"])
        audio[suffix] = {name: data for name, data in files_of(out).items() if name.startswith("audio")}
        assert summary.seconds == pytest.approx(sum(row["seconds"] for row in found))
    assert all(found == audio[".csv"] and len(found) == 3 for found in audio.values())
    where = str(tmp_path / "out.csv" / TABLE_FILE)
    import duckdb

    assert duckdb.sql(f"select count(*) from read_parquet('{where}') where seconds > 0").fetchall() == [(3,)]  # type: ignore[union-attr]


def test_columns_of_a_parquet_keep_their_types_and_come_back_in_order(speak: Speak, tmp_path: Path) -> None:
    table = pa.table(
        {
            "sentence": pa.array(["Hi", ""], pa.large_string()),
            "seed": pa.array([5.0, float("nan")], pa.float32()),
            "nothing": pa.nulls(2),
            "tags": pa.array([["a"], []]),
            "label": pa.array(["x", "y"]).dictionary_encode(),
            "at": pa.array([1, None], pa.timestamp("ms")),
        }
    )
    pq.write_table(table.replace_schema_metadata({"huggingface": "{}"}), tmp_path / "t.parquet")
    speak(tmp_path / "t.parquet", tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / TABLE_FILE)
    assert found.schema.names[:6] == table.schema.names and not (found.schema.metadata or {}).get(b"huggingface")
    assert found.select(table.schema.names).drop_columns("seed").equals(table.drop_columns("seed"))
    assert [found.schema.field(name).type for name in ("tags", "at")] == [pa.list_(pa.string()), pa.timestamp("ms")]
    assert found.column("speech_seed").to_pylist() == [5, None]


def test_a_bad_row_fails_with_its_reason_and_stops_nothing(speak: Speak, clips: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "good", "text": "Hi", "reference": "ref.wav"},
        {"id": "blank", "text": "  "},
        {"id": "gone", "text": "Hi", "reference": "gone.wav"},
        {"id": "silent", "text": "Hi", "reference": "silent.wav"},
        {"id": "wordless", "text": "Hi", "prompt": "prompt.wav"},
        {"id": "clipless", "text": "Hi", "prompt_text": "It was"},
        {"id": "styled", "text": "Hi", "prompt": "prompt.wav", "prompt_text": "It was", "description": "calm"},
        {"id": "good", "text": "Ho"},
        {"id": "seeded", "text": "Hi", "seed": "twelve"},
        {"id": "guided", "text": "Hi", "cfg": 77},
        {"id": "prompted", "text": "Hi", "prompt": "prompt.wav", "prompt_text": "It was", "seed": "7", "cfg": 1.5},
    ]
    table = write_rows(clips, ".jsonl", rows)
    summary = speak(table, clips / "out", "unit=4", "generate.batch=4")
    found = {row["row"]: row for row in rows_of(clips / "out")}
    codes = [(row["error"] or "").partition(":")[0] for row in found.values()]
    assert codes == [
        *("", "empty_text", "missing_clip", "not_spoken", "prompt_without_text", "prompt_text_without_prompt"),
        *("description_with_prompt", "repeated_id", "bad_seed", "bad_cfg", ""),
    ]
    assert summary.spoken == 2 and sum(summary.failed.values()) == 9
    assert "silent.wav is silent" in found[3]["error"] and "item" not in found[3]["error"]
    assert all(row["audio"] is None and row["status"] == "failed" for row in found.values() if row["error"])
    assert found[10]["speech_seed"] == 7
    assert len(list((clips / "out" / "audio").rglob("*.flac"))) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "words,n\nHi,1\n", "has no column text (or target_text, infer_text, transcript"),
        ("t.csv", "text\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.jsonl", "", "has no column text"),
        ("t.jsonl", '{"text": "Hi"}\n{"text": ', "line 2: not JSON"),
        ("t.jsonl", '["Hi"]\n', "line 1: expected an object"),
        ("t.jsonl", '{"text": "\\ud800"}\n', "line 1: half of a surrogate pair"),
        ("t.jsonl", '{"text": 3}\n', "the column text holds int64; it must hold text"),
        ("t.jsonl", '{"text": "Hi", "reference": {"path": "a"}}\n', "the column reference holds struct<path: string>"),
        ("t.jsonl", '{"text": "Hi", "seed": true}\n', "the column seed holds bool; it must hold numbers"),
        ("t.csv", "text,seed,speech_seed\nHi,1,2\n", "the table has the columns seed and speech_seed"),
        ("t.parquet", "not Parquet", "not a readable Parquet file"),
        ("t.xlsx", "", "a table is a file that ends with one of .parquet, .csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SpeechTableError) as raised:
        open_job(tmp_path / name, None, None, 0, 64)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_latin_1_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("text\nh\xf6\n".encode("latin-1"))
    with pytest.raises(SpeechTableError, match="not UTF-8"):
        open_job(tmp_path / "t.csv", None, None, 0, 64)


def test_mixed_values_of_json_lines_become_text(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": [1], "c": {}}, {"a": "x", "b": [2.5], "d": None}, {"a": {"k": 1}, "b": None}]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (batch,) = open_table(path).batches()
    assert batch.to_pydict() == {
        "a": ["1", "x", '{"k": 1}'], "b": [[1.0], [2.5], None], "c": ["{}", None, None], "d": [None] * 3
    }  # fmt: skip


def test_a_long_table_is_read_in_batches_and_crossed_in_order(clips: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "text,n", *(f"Line {number},{number}" for number in range(1100)))
    words = write_csv(tmp_path / "words.txt", "calm", "", "loud")
    job = open_job(table, clips / "*.wav", words, 0, 7)
    assert (job.folds, job.lines) == (6, 6600) and job.survey.speech_s > 0
    done = {0, 3, *range(500, 900)}
    seen, ids = 0, set()
    for unit in job.read_units(done):
        assert unit.number not in done
        for place, (line, carried) in enumerate(zip(unit.lines, unit.carried.to_pylist(), strict=True)):
            at = unit.number * 7 + place
            assert line.row == at // 6 == int(carried["n"]) and line.request and line.request.text == f"Line {at // 6}"
            assert (line.voice, line.description) == (
                ("prompt", "ref", "silent")[at % 6 // 2],
                ("calm", "loud")[at % 2],
            )
            assert line.request.reference == str(clips / f"{line.voice}.wav")
            ids.add(line.id)
        seen += len(unit.lines)
    assert seen == len(ids) == 6600 - 7 * len(done)


def test_texts_are_crossed_with_voices_and_descriptions(speak: Speak, clips: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "id,text", "a,Hi", "b,Ho")
    voices = write_csv(clips / "voices.csv", "id,reference", "ann,ref.wav", "ben,prompt.wav")
    words = write_csv(tmp_path / "words.txt", "calm")
    speak(table, tmp_path / "out", "unit=3", voices=voices, descriptions=words)
    found = rows_of(tmp_path / "out")
    assert [(row["speech_id"], row["voice"], row["description"]) for row in found] == [
        ("a-v1-d1", "ann", "calm"), ("a-v2-d1", "ben", "calm"), ("b-v1-d1", "ann", "calm"), ("b-v2-d1", "ben", "calm"),
    ]  # fmt: skip
    assert all(row["status"] == "ok" for row in found) and len({row["seed"] for row in found}) == 4


@pytest.mark.parametrize(
    ("table", "voices", "words", "message"),
    [
        ("text,reference\nHi,a\n", "reference\nref.wav\n", None, "has the column reference itself"),
        ("text,description\nHi,a\n", None, "calm", "has the column description itself"),
        ("text\nHi\n", "reference\ngone.wav\n", None, "row 1: no audio file at gone.wav"),
        ("text\nHi\n", "prompt,prompt_text\nprompt.wav,\n", None, "row 1: a prompt and its prompt_text"),
        ("text\nHi\n", "reference\n", None, "has no rows"),
        ("text\nHi\n", "prompt,prompt_text\nprompt.wav,It was\n", "calm", "already sets the style"),
        ("text\nHi\n", None, "\n", "has no descriptions"),
        ("text\nHi\n", None, "calm\ncalm", "the same description twice"),
    ],
)
def test_what_cannot_be_crossed_is_one_line(
    clips: Path, table: str, voices: str | None, words: str | None, message: str
) -> None:
    given: dict[str, Path | None] = {}
    for name, content in (("t.csv", table), ("v.csv", voices), ("w.txt", words)):
        given[name] = None if content is None else clips / name
        if content is not None:
            (clips / name).write_text(content, encoding="utf-8")
    with pytest.raises(SpeechTableError, match=message):
        open_job(clips / "t.csv", given["v.csv"], given["w.txt"], 0, 64)


def test_no_clip_at_a_pattern_is_one_line(clips: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no clips at"):
        open_job(write_csv(clips / "t.csv", "text", "Hi"), "nowhere/*.wav", None, 0, 64)


@pytest.mark.parametrize("name", ["a", "LJ001-0001", "../../etc/passwd", "/abs", ".hidden", "x" * 300, "声", "a b"])
def test_an_id_names_a_file_in_the_folder(name: str) -> None:
    made = file_name(name)
    assert len(made) <= 110 and not made.startswith(".") and set(made).isdisjoint("/\\ \0")
    assert (made == name) == (name in ("a", "LJ001-0001"))


def test_ids_of_other_kinds_do_not_share_a_file() -> None:
    names = [file_name(name) for name in ("a/b", "a\\b", "a b", "a_b", "a:b")]
    assert len(set(names)) == 5


def test_a_row_is_the_same_alone_and_in_company(speak: Speak, tmp_path: Path) -> None:
    texts = ["Hi", "It was the best", "Hello", "Ho"]
    table = write_csv(tmp_path / "t.csv", "text,seed", *(f"{text},{seed}" for seed, text in enumerate(texts)))
    alone = write_csv(tmp_path / "alone.csv", "text,seed", "It was the best,1")
    speak(table, tmp_path / "many", "unit=4", "generate.batch=4", "format=wav")
    speak(alone, tmp_path / "one", "format=wav")
    paths = [
        tmp_path / "many" / rows_of(tmp_path / "many")[1]["audio"],
        tmp_path / "one" / rows_of(tmp_path / "one")[0]["audio"],
    ]
    many, one = (soundfile.read(path)[0] for path in paths)
    assert many.shape == one.shape and np.abs(many - one).max() < 1e-3 and np.abs(one).max() > 1e-3


def test_what_a_limit_cuts_is_tried_again_with_the_next_seed(speak: Speak, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "text,seed", *(f"Hi,{seed}" for seed in (10, 20, 30, 40, 50, 60)))
    once, again = speak(table, tmp_path / "once", "unit=6"), speak(table, tmp_path / "again", "unit=6", "retry=3")
    first, later = rows_of(tmp_path / "once"), rows_of(tmp_path / "again")
    assert once.unended > again.unended and again.retried == once.unended
    for before, after in zip(first, later, strict=True):
        assert before["attempts"] == 1 and before["speech_seed"] == int(before["seed"])
        assert (after["attempts"] > 1) == (before["ending"] != "stop")
        assert after["speech_seed"] == int(after["seed"]) + after["attempts"] - 1


@pytest.mark.parametrize("kind", ["wav", "mp3", "ogg", "opus"])
def test_the_format_is_an_option(speak: Speak, tmp_path: Path, kind: str) -> None:
    table = write_csv(tmp_path / "t.csv", "text", "Hi")
    speak(table, tmp_path / "out", f"format={kind}")
    (row,) = rows_of(tmp_path / "out")
    path = tmp_path / "out" / row["audio"]
    assert path.suffix == f".{kind}" and soundfile.info(path).samplerate == 48_000
    # Without the time, the files of a repeated run are the same.
    assert read_marks(path) == Statement("checkpoint", row["model"], row["seed"], created=None)
