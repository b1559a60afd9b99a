"""The macros for questions about a corpus: counted by hand, and `what_if` against the thresholds themselves."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import duckdb
import pytest
from corpus_builders import make_unit
from described_corpus import described_corpus, write

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.corpus.thresholds import RULES, Thresholds, change_thresholds
from catalogs.query.question_columns import FIELDS, QUESTION_COLUMNS, SCORES
from catalogs.query.view_columns import MACRO_COLUMNS, VIEW_COLUMNS, VIEW_WORDS
from catalogs.query.views import QueryError, build_catalog, connect, count_kept, query


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    path = tmp_path_factory.mktemp("questions") / "c"
    described_corpus(path)
    build_catalog(path)
    return path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 segments whose scores lie on both sides of every limit, some of them null. Not to be changed."""
    root = tmp_path_factory.mktemp("scored") / "c"
    create_corpus(root)
    unit, rng = make_unit("a", 120, seconds=0.6), random.Random(16)
    default = Thresholds()
    for row in unit.rows:
        if not row["kept"]:
            continue
        row |= {"language": rng.choice(["en", "zh", None]), "speaker": rng.choice("abc"), "license": "CC0-1.0"}
        row |= {"pitch_low_hz": rng.uniform(80, 250), "formant_hz": rng.uniform(3000, 4500)}
        row["flags"] = rng.choice([[], [], ["file_head"], ["file_tail", "upsampled"]])
        for rule in rng.sample(RULES, 2):
            if rule.column != "duration_s":
                row[rule.column] = rng.choice([None, getattr(default, rule.setting) * rng.uniform(0.5, 1.5)])
    commit_unit(root, unit)
    build_catalog(root)
    return root


def asked(root: Path, sql: str) -> list[dict[str, Any]]:
    """The rows that any DuckDB client gets, from the catalog that was built last."""
    with duckdb.connect(str(root / "catalog.duckdb"), read_only=True) as connection:
        found: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
    return found


def test_hours_and_losses_add_up_to_all_segments(scored: Path) -> None:
    [[count, seconds, kept]] = query(
        scored, "select count(*), sum(duration_s), sum(duration_s) filter (kept) from segments"
    )[1]
    for field in FIELDS:
        hours, losses = (asked(scored, f"from {macro}('{field}')") for macro in ("hours", "losses"))
        assert sum(row["segments"] for row in hours) == sum(row["segments"] for row in losses) == count
        assert sum(row["hours"] for row in losses) * 3600 == pytest.approx(seconds)
        assert sum(row["kept_hours"] for row in hours) * 3600 == pytest.approx(kept)
        assert sum(row["share"] for row in hours) == pytest.approx(1)
    by_language = {row["value"]: row["kept_segments"] for row in asked(scored, "from hours()")}
    assert by_language == dict(query(scored, "select language, count(*) filter (kept) from segments group by 1")[1])
    with pytest.raises(QueryError, match=r"unknown field accent; known: session_id, source_id, .*language"):
        query(scored, "from hours('accent')")


def test_balance_is_the_entropy_of_the_kept_hours(scored: Path) -> None:
    rows = query(scored, "select language, sum(duration_s) from segments where kept group by 1")[1]
    known = {language: seconds for language, seconds in rows if language}
    shares = [seconds / sum(known.values()) for seconds in known.values()]
    entropy = -sum(share * math.log2(share) for share in shares)
    [found] = asked(scored, "from balance('language')")
    assert (found["values"], found["largest"]) == (2, max(known, key=known.__getitem__))
    assert found["entropy"] == pytest.approx(entropy) and found["effective"] == pytest.approx(2**entropy)
    assert found["top_10_share"] == pytest.approx(1) and found["largest_share"] == pytest.approx(max(shares))
    assert found["unknown_hours"] == pytest.approx(sum(seconds for language, seconds in rows if not language) / 3600)


@pytest.mark.parametrize("score", SCORES)
def test_the_worst_clips_are_kept_and_nearest_to_their_limit(scored: Path, score: str) -> None:
    found = [row["value"] for row in asked(scored, f"from worst('{score}', clips := 5)")]
    values = [row[0] for row in query(scored, f"select {score} from segments where kept and {score} is not null")[1]]
    if len(SCORES[score]) == 1:
        worst = sorted(values, reverse=SCORES[score][0].side == "above")[:5]
    else:
        worst = sorted(values, key=lambda value: -max(2 / value, value / 30))[:5]
    assert found == pytest.approx(worst) and found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.setting)
def test_what_if_says_what_the_threshold_does(scored: Path, rule: Any) -> None:
    now, default = Thresholds(), getattr(Thresholds(), rule.setting)
    limits = (default * 0.8, default * 1.2, None)
    before, *kept = count_kept(scored, now, *(now.model_copy(update={rule.setting: limit}) for limit in limits))
    for limit, after in zip(limits, kept, strict=True):
        rows = asked(scored, f"from what_if('{rule.setting}', {'null' if limit is None else limit})")
        total, parts = rows[0], rows[1:]
        assert total["language"] == "all" and {row["language"] for row in parts} == {"en", "zh", "unknown"}
        assert before + total["segments_gained"] - total["segments_lost"] == after
        assert sum(row["hours_gained"] - row["hours_lost"] for row in parts) == pytest.approx(
            total["hours_then"] - total["hours_now"]
        )


def test_what_if_starts_from_the_thresholds_of_the_corpus(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    unit = make_unit("a", 6)
    for number, row in enumerate(unit.rows):
        row["snr_db"] = 10.0 + 5 * number
    commit_unit(tmp_path / "c", unit)
    change_thresholds(tmp_path / "c", ["min_snr_db=null"])
    build_catalog(tmp_path / "c")
    [kept] = query(tmp_path / "c", "select count(*) from segments where kept")[1][0]
    [row] = [row for row in asked(tmp_path / "c", "from what_if('min_snr_db', 21)") if row["language"] == "all"]
    assert row["segments_gained"] == 0
    assert kept - row["segments_lost"] == count_kept(tmp_path / "c", Thresholds(min_snr_db=21))[0] > 0
    with pytest.raises(QueryError, match="unknown threshold min_snr; known: max_duration_s"):
        query(tmp_path / "c", "from what_if('min_snr', 21)")


def test_pairs_are_of_both_directions(scored: Path) -> None:
    [one, other, cosine] = query(scored, "select segment_id, reference_id, cosine from reference_pairs limit 1")[1][0]
    assert ("reference", other, cosine) in {
        (r["role"], r["segment_id"], r["cosine"]) for r in asked(scored, f"from pairs('{one}')")
    }
    assert ("spoken", one) in {(r["role"], r["segment_id"]) for r in asked(scored, f"from pairs('{other}')")}


def test_similar_voices_of_a_speaker_or_a_segment(scored: Path) -> None:
    of_a = asked(scored, "from similar_voices('a')")
    assert {row["speaker"] for row in of_a} == {"b", "c"} and of_a[0]["distance"] <= of_a[1]["distance"]
    [segment] = query(scored, "select segment_id from segments where speaker = 'a' and kept limit 1")[1][0]
    assert asked(scored, f"from similar_voices('{segment}', voices := 1)") == of_a[:1]


def test_annotators_are_compared_as_they_answered(described: Path) -> None:
    # `old` has no labels: nothing to compare.
    assert asked(described, "from between_annotators()") == []
    assert {
        (r["annotator"], r["clips"], r["described"], r["verified"], r["checks"])
        for r in asked(described, "from coverage()")
    } >= {("llm@1", 4, 3, 3, 7)}


def test_agreement_of_two_annotators_is_beyond_chance(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    unit = make_unit("a", 9)
    commit_unit(tmp_path / "c", unit)
    ids = [row["segment_id"] for row in unit.rows]
    answers = {"x": ["male", "male", "male", "female", "unsure"], "y": ["male", "male", "female", "female", "male"]}
    for annotator, given in answers.items():
        rows = [
            {"segment_id": segment, "annotator": annotator, "status": "ok", "labels": {"gender": gender}}
            for segment, gender in zip(ids, given, strict=False)
        ]
        write(tmp_path / "c", annotator, rows, DESCRIPTIONS)
    build_catalog(tmp_path / "c")
    [row] = asked(tmp_path / "c", "from between_annotators()")
    # Of four clips three are equal; by chance 3/4 * 1/2 + 1/4 * 1/2.
    assert row == {
        "annotator": "x", "other_annotator": "y", "attribute": "gender", "clips": 4, "agree": 0.75, "kappa": pytest.approx(0.5),
    }  # fmt: skip


def test_every_view_column_and_macro_has_a_comment_in_plain_duckdb(scored: Path) -> None:
    connection = duckdb.connect(str(build_catalog(scored)), read_only=True)
    views = dict(connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall())
    assert views == VIEW_WORDS and all(views.values())
    columns = connection.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    ).fetchall()
    assert {(view, name): words for view, name, words in columns} == {
        (view, column.name): column.words for view, declared in VIEW_COLUMNS.items() for column in declared
    }
    assert all(words for _, _, words in columns)
    macros = connection.execute("SELECT function_name, comment FROM duckdb_functions() WHERE NOT internal").fetchall()
    assert {name for name, _ in macros} == {*MACRO_COLUMNS, "corpus_folder"} and all(words for _, words in macros)
    connection.close()


def test_questions_have_their_columns_and_defaults(scored: Path) -> None:
    with connect(scored) as connection:
        for macro, columns in QUESTION_COLUMNS.items():
            assert connection.sql(f"FROM {macro}()").columns == [column.name for column in columns]
