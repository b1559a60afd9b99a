"""The macros over descriptions and checks: what they count, by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from corpus_builders import make_unit, redone_in_part
from described_corpus import captions, described_corpus, write

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.schema import CHECKS, DESCRIPTIONS
from catalogs.query.view_columns import MACRO_COLUMNS, MACRO_WORDS
from catalogs.query.views import QueryError, connect, query

ABOUT_SEGMENTS = {"hours", "losses", "balance", "worst", "similar_voices", "what_if"}
FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "made_by_fae81e6" / "corpus"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    path = tmp_path_factory.mktemp("macros") / "c"
    described_corpus(path)
    return path


def of(root: Path, macro: str, annotator: str = "llm@1") -> list[dict[str, Any]]:
    """The rows of an annotator, without its name."""
    names, rows = query(root, f"SELECT * EXCLUDE (annotator) FROM {macro}() WHERE annotator = '{annotator}'")
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_confusion_and_repairs_count_claims(root: Path) -> None:
    assert [tuple(row.values()) for row in of(root, "confusion")] == [
        ("gender", "json", "female", "female", 2, 0),
        ("gender", "json", "male", "female", 1, 1),
        ("gender", "prose", "female", "female", 1, 0),
        ("gender", "prose", "male", "female", 1, 1),
    ]
    assert [tuple(row.values()) for row in of(root, "repairs")] == [
        ("gender", "json", "value", 1),
        ("gender", "prose", "phrase", 1),
        ("leak", "prose", "dropped", 1),
    ]
    assert of(root, "confusion", "old") == []


def test_agreement_is_of_what_was_answered(root: Path) -> None:
    found = {row.pop("attribute"): row for row in of(root, "agreement")}
    third = pytest.approx(1 / 3)
    gender = {"descriptions": 3, "unsure": 0, "agree": pytest.approx(2 / 3), "contradict": third, "unchecked": 0}
    assert found["gender"] == gender | {"prose_claims": 2, "prose_contradict": 0.5}
    # The dropped description was repaired to "unsure", but the annotator had answered "young".
    assert (found["age"]["unsure"], found["age"]["unchecked"]) == (0, third)
    assert (found["rate"]["unsure"], found["pitch"]["unsure"], found["pitch"]["agree"]) == (1, 0, None)
    assert "leak" not in found and of(root, "agreement", "old") == []


def test_verdicts_are_by_spoken_language(root: Path) -> None:
    english, chinese = of(root, "verdicts")
    assert english == {
        "language": "en", "descriptions": 2, "agree": 1, "repaired": 1, "dropped": 0, "not_compared": 0, "leaks": 0,
    }  # fmt: skip
    assert (chinese["language"], chinese["descriptions"], chinese["dropped"], chinese["leaks"]) == ("zh", 1, 1, 1)
    assert [row["not_compared"] for row in of(root, "verdicts", "old")] == [2, 2]


def test_discarded_clips_have_a_kind_of_reason(root: Path, tmp_path: Path) -> None:
    assert [tuple(row.values()) for row in of(root, "discarded")] == [
        ("blocked", "SAFETY", 1, 0.25, "blocked:SAFETY"),
        ("dropped", "leak", 1, 0.25, "ok"),
    ]
    copy = Path(shutil.copytree(root, tmp_path / "c"))
    ids = [row[0] for row in query(copy, "SELECT segment_id FROM segments WHERE kept ORDER BY seq")[1]]
    statuses = (
        "failed:invalid: gender is 'robot'",
        "failed:no reply: a (long) story: of 3",
        "unasked",
        "failed:max_tokens",
    )
    rows = [
        {"segment_id": segment, "annotator": "x", "status": status}
        for segment, status in zip(ids, statuses, strict=True)
    ]
    write(copy, "x", rows, DESCRIPTIONS)
    assert [(row["outcome"], row["reason"]) for row in of(copy, "discarded", "x")] == [
        ("failed", "invalid"),
        ("failed", "max_tokens"),
        ("failed", "no reply"),
        ("unasked", ""),
    ]


def test_voices_are_compared_as_answered_and_as_repaired(root: Path) -> None:
    [row] = of(root, "voice_consistency")
    # Voice a: warm and clear against warm. Voice b has one description only.
    assert row == {
        "voices": 1, "pairs": 1, "gender": 1.0, "age": 1.0, "gender_answered": 0.0, "age_answered": 1.0, "texture": 0.5,
    }  # fmt: skip


def test_captions_are_counted_in_words_or_signs(root: Path) -> None:
    english, chinese = of(root, "caption_variety")
    # Twice "A young woman speaks.": three different pairs of six.
    assert english == {
        "register": "full", "language": "en", "captions": 2, "duplicates": 1, "length": 4.0, "longest": 4.0,
        "distinct_2": 0.5, "opening": "a young woman", "opening_share": 1.0,
    }  # fmt: skip
    assert (chinese["length"], chinese["opening"], chinese["duplicates"]) == (9.5, "一位年轻", 0)
    # 8 and 9 pairs: 一位 位年 年轻 轻女 女性 and 说话 are in both.
    assert chinese["distinct_2"] == pytest.approx(11 / 17)
    old = of(root, "caption_variety", "old")
    assert [(row["register"], row["captions"], row["duplicates"]) for row in old] == [("brief", 4, 3), ("full", 4, 3)]


def test_spending_is_by_the_model_that_answered(root: Path) -> None:
    answered, silent = of(root, "spending")
    assert (answered["model_version"], answered["clips"], answered["described"]) == ("llm-001", 3, 3)
    assert (answered["tokens_in"], answered["tokens_out"], answered["cost_usd"]) == (300, 150, 1.5)
    assert answered["usd_per_hour"] == pytest.approx(1.5 / (3 * 1.5 / 3600))
    assert (answered["captions"], answered["usd_per_1000_captions"]) == (4, 375.0)
    assert (silent["model_version"], silent["clips"], silent["described"], silent["cost_usd"]) == (None, 1, 0, 0.5)


def test_macros_have_the_declared_columns_and_words(root: Path) -> None:
    assert MACRO_WORDS.keys() == MACRO_COLUMNS.keys()
    for macro, columns in MACRO_COLUMNS.items():
        names, rows = query(root, f"describe {macro}()")
        assert names == ["column_name", "column_type", "comment"]
        assert [(name, words) for name, _, words in rows] == [(column.name, column.words) for column in columns]
    comments = (
        "SELECT function_name, comment FROM duckdb_functions() WHERE NOT internal AND function_type = 'table_macro'"
    )
    assert dict(query(root, comments)[1]) == MACRO_WORDS
    with pytest.raises(QueryError, match=r"confusion is a macro, not a table; write confusion\(\)"):
        query(root, "SELECT * FROM confusion")


@pytest.mark.parametrize("segments", [None, 3])
def test_without_descriptions_macros_have_no_rows(tmp_path: Path, segments: int | None) -> None:
    create_corpus(tmp_path / "c")
    if segments:
        commit_unit(tmp_path / "c", make_unit("a", segments))
    with connect(tmp_path / "c") as connection:
        for name in ("checks", *(f"{macro}()" for macro in MACRO_COLUMNS.keys() - ABOUT_SEGMENTS)):
            assert connection.execute(f"SELECT * FROM {name}").fetchall() == []


def test_macros_open_a_corpus_of_an_older_version(tmp_path: Path) -> None:
    root = Path(shutil.copytree(FIXTURE, tmp_path / "c"))
    with connect(root) as connection:
        described = connection.execute("SELECT count(*) FROM descriptions WHERE status = 'ok'").fetchall()[0][0]
        assert described > 0
        for macro in MACRO_COLUMNS:
            connection.execute(f"SELECT * FROM {macro}()").fetchall()
        assert connection.execute("SELECT sum(descriptions) FROM verdicts()").fetchall() == [(described,)]


def test_checks_of_replaced_segments_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "c"
    a, b = redone_in_part(root)
    rows = [
        {
            "segment_id": segment,
            "annotator": "x",
            "attribute": "rate",
            "claimed": "fast",
            "state": "agree",
            "where": "json",
        }
        for segment in (*a, *b, "unknown")
    ]
    write(root, "x/checks/ff", rows, CHECKS, "f" * 16)
    assert {row[0] for row in query(root, "SELECT segment_id FROM checks")[1]} == set(b)


def test_a_damaged_answer_counts_as_the_labels(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "c"))
    [segment] = query(copy, "SELECT segment_id FROM segments WHERE kept ORDER BY seq LIMIT 1")[1][0]
    row = {"segment_id": segment, "annotator": "x", "status": "ok", "labels": {"gender": "unsure"}, "answered": "{"}
    write(copy, "x", [row | {"captions": captions("", "!")}], DESCRIPTIONS)
    assert of(copy, "agreement", "x")[0]["unsure"] == 1
    assert [row["length"] for row in of(copy, "caption_variety", "x")] == [0.0, 0.0]
