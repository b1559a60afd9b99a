"""Marks: what people said counts everywhere, nothing that was acknowledged is lost, and nothing that is there is changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from corpus_builders import FINGERPRINT, make_unit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogs.candidates.build import table_key
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.fsck import fsck
from catalogs.corpus.marks import MarkFile, Marks, last_marks, mark_files, read_marks
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import load_thresholds
from catalogs.query.views import count_kept, query

REPOSITORY = Path(__file__).resolve().parents[2]
WORD = {"word": "morning", "start": 0.5, "end": 0.75, "p": None}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two units of five segments, of which one has no audio."""
    create_corpus(tmp_path)
    bind_fingerprint(tmp_path, FINGERPRINT)
    for name in "ab":
        commit_unit(tmp_path, make_unit(name, 5))
    return tmp_path


def ids_of(root: Path, where: str = "kept") -> list[str]:
    return [row[0] for row in query(root, f"select segment_id from segments where {where} order by 1")[1]]


def shown(root: Path) -> dict[str, tuple[Any, ...]]:
    """(kept, text, text_source) of every segment, by the views."""
    rows = query(root, "select segment_id, kept, text, text_source from segments")[1]
    return {row[0]: row[1:] for row in rows}


def test_without_marks_nobody_decided(root: Path) -> None:
    assert ids_of(root, "human is not null or uncorrected_text is not null") == []
    assert query(root, "select count(*) from marks")[1] == [(0,)] and query(root, "from human_agreement()")[1] == []


def test_marks_count_in_views_reader_and_candidates(root: Path) -> None:
    low = make_unit("d", 4)
    for row in low.rows:
        row["dnsmos_ovr"] = 1.0
    commit_unit(root, low)
    rejected, (dropped, fixed, *_) = ids_of(root, "reasons = ['low_dnsmos']"), ids_of(root)
    silent = ids_of(root, "shard is null")[0]
    before, key = Corpus(root), table_key([Corpus(root)])
    assert len(rejected) == 3 and set(rejected).isdisjoint(before.kept()["segment_id"].to_pylist())

    file = MarkFile(root, "Ann")
    file.add(rejected[0], verdict="keep")
    file.add(dropped, verdict="drop", note="two voices")
    file.add(fixed, "unit", verdict="keep", text="good morning", words=[WORD])
    file.add(silent, verdict="keep")

    assert table_key([Corpus(root)]) != key, "a candidate table of before is out of date"
    rows = query(
        root, "select segment_id, kept, reasons, human, uncorrected_text from segments where human is not null"
    )[1]
    assert {row[0]: row[1:] for row in rows} == {
        rejected[0]: (True, [], "keep", None),
        dropped: (False, ["human"], "drop", None),
        fixed: (True, [], "keep", "good evening everyone"),
        silent: (False, ["too_short"], "keep", None),
    }, "there is nothing to keep of a segment without audio"
    assert query(root, "select reason from funnel where reason = 'human'")[1] == [("human",)]
    corpus = Corpus(root)
    by_reader = {row["segment_id"]: row for row in corpus.kept().to_pylist()}
    by_parts = [row for part in corpus.kept_parts(("text", "segment_id")) for row in part.to_pylist()]
    assert set(by_reader) == set(ids_of(root)) == {row["segment_id"] for row in by_parts}
    texts = {name: row[1] for name, row in shown(root).items() if row[0]}
    assert texts == {name: row["text"] for name, row in by_reader.items()}
    assert texts == {row["segment_id"]: row["text"] for row in by_parts} and texts[fixed] == "good morning"
    assert corpus.segment(fixed)["words"] == [WORD] and corpus.segment(fixed)["text_source"] == "human"
    assert fsck(root) == []
    assert before.index.equals(Corpus(root)._committed("index")), "what was committed is as it was"


def test_undo_brings_back_what_the_person_said_before(root: Path) -> None:
    one, file = ids_of(root)[0], MarkFile(root, "Ann")
    file.add(one, verdict="keep", text="first")
    second = file.add(one, verdict="drop", text="second")
    assert shown(root)[one] == (False, "second", "human")
    file.add(one, undoes=second["mark_id"])
    assert shown(root)[one] == (True, "first", "human")
    assert len(read_marks(root)) == 3, "an undone mark stays on the disk"


def test_people_disagree_and_the_latest_verdict_counts(root: Path) -> None:
    a, b, c = ids_of(root)[:3]
    ann, bob = MarkFile(root, "Ann"), MarkFile(root, "Bob")
    ann.add(a, verdict="drop", text="by Ann")
    bob.add(a, verdict="keep")
    for each in (b, c):
        ann.add(each, verdict="drop" if each == b else "keep")
        bob.add(each, verdict="drop" if each == b else "keep")
    assert shown(root)[a] == (True, "by Ann", "human"), "who keeps a clip does not take back another's text"
    columns, rows = query(root, "from human_agreement()")
    found = dict(zip(columns, rows[0], strict=True))
    assert (found["first"], found["second"], found["segments"], found["agree"]) == ("Ann", "Bob", 3, 2)
    # By hand: both drop b, both keep c; Ann keeps 1 of 3, Bob 2 of 3, so 4/9 by chance.
    assert found["kappa"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9)) and found["disputed"] == [a]


_MARK = st.tuples(
    st.integers(0, 2), st.sampled_from(["Ann", "Bo b", "Çé"]), st.sampled_from(["keep", "drop", None]),
    st.sampled_from([None, "x", "it's\n\"y\"", "日本"]), st.booleans(),
)  # fmt: skip


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_MARK, min_size=1, max_size=12))
def test_views_and_reader_agree_on_any_marks(root: Path, said: Sequence[tuple[int, str, Any, Any, bool]]) -> None:
    for path in mark_files(root):
        path.write_bytes(b"")
    ids = ids_of(root)[:3]
    files: dict[str, MarkFile] = {}
    made: list[dict[str, Any]] = []
    for segment, by, verdict, text, undo in said:
        file = files.setdefault(by, MarkFile(root, by))
        own = [row for row in made if row["by"] == by and row["undoes"] is None]
        if undo and own:
            made.append(file.add(own[-1]["segment_id"], undoes=own[-1]["mark_id"]))
        else:
            made.append(file.add(ids[segment], verdict=verdict, text=text))
    corpus = Corpus(root)
    index = {row["segment_id"]: row for row in corpus.index.to_pylist()}
    assert {name: (row["kept"], row["text"], row["text_source"]) for name, row in index.items()} == shown(root)
    assert set(corpus.kept()["segment_id"].to_pylist()) == set(ids_of(root))
    assert count_kept(root, load_thresholds(root)) == [len(ids_of(root))]
    ((gained, lost),) = query(root, "select segments_gained, segments_lost from what_if() where language = 'all'")[1]
    raised = load_thresholds(root).model_copy(update={"min_dnsmos_ovr": 3.0})
    assert count_kept(root, raised) == [len(ids_of(root)) + gained - lost]
    counting = query(root, "select mark_id from marks where counts order by 1")[1]
    last = last_marks(read_marks(root))
    assert [row[0] for row in counting] == sorted(row["mark_id"] for own in last.values() for row in own.values())


@pytest.mark.kill
def test_a_kill_loses_no_mark_that_was_acknowledged(root: Path) -> None:
    code = (
        "import sys; from catalogs.corpus.marks import MarkFile\n"
        "file = MarkFile(sys.argv[1], sys.argv[2])\n"
        "while True: print(file.add('s', verdict='keep', note='n' * 3000)['mark_id'], flush=True)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code, root, "Ann"], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    acknowledged = []
    for run in runs:
        assert run.stdout is not None
        acknowledged += [run.stdout.readline().strip() for _ in range(20)]
    for run in runs:
        run.send_signal(signal.SIGKILL)
        assert run.stdout is not None
        # The last line may be half of an id.
        acknowledged += [line.strip() for line in run.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        run.wait()
    assert set(acknowledged) <= {row["mark_id"] for row in read_marks(root)} and len(mark_files(root)) == 2


def test_threads_of_one_server_lose_nothing(root: Path) -> None:
    file = MarkFile(root, "Ann")
    threads = [threading.Thread(target=lambda: [file.add("s", verdict="keep") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [row["at"] for row in read_marks(root)]
    assert len(set(times)) == 80, "each has another time, so that the last one is known"


def test_half_a_mark_is_skipped_and_reported(root: Path) -> None:
    one, file = ids_of(root)[0], MarkFile(root, "Ann")
    file.add(one, verdict="drop")
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + whole[:-20])
    assert not shown(root)[one][0] and len(read_marks(root)) == 1
    assert [problem.severity for problem in fsck(root)] == ["notice"]
    file.path.write_bytes(b"not a mark\n" + whole)
    assert not shown(root)[one][0] and len(read_marks(root)) == 1
    (problem,) = fsck(root)
    assert problem.severity == "error" and "skip: 1" in problem.what


def test_a_mark_that_does_not_fit_on_the_disk_leaves_nothing(root: Path) -> None:
    code = (
        "import resource, signal, sys; from catalogs.corpus.marks import MarkFile\n"
        "file = MarkFile(sys.argv[1], 'Ann'); file.add('s', verdict='keep')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 100, -1))\n"
        "try: file.add('s', verdict='drop', note='x' * 500)\n"
        "except OSError: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)); file.add('s', note='after')"
    )
    subprocess.run([sys.executable, "-c", code, root], check=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert [row["note"] for row in read_marks(root)] == [None, "after"] and fsck(root) == []


@pytest.mark.parametrize("by", ["", "  ", "a\nb", "x" * 101])
def test_a_person_has_a_name(root: Path, by: str) -> None:
    with pytest.raises(ValueError, match="--by"):
        MarkFile(root, by)


def test_a_name_is_not_a_path(root: Path) -> None:
    file = MarkFile(root, "../../../etc/Ann")
    file.add("s", verdict="keep")
    assert file.path.parent == root / "annotations" / "human" and read_marks(root)[0]["by"] == "../../../etc/Ann"


@pytest.mark.parametrize("wrong", [{"verdict": "maybe"}, {"words": [{"word": 3, "start": "x"}]}, {"text": 7}])
def test_a_wrong_mark_is_refused(root: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a mark has"):
        MarkFile(root, "Ann").add("s", **wrong)
    assert read_marks(root) == [] and Marks.of(root).said == {}


def test_lines_are_plain_json(root: Path) -> None:
    file = MarkFile(root, "Ann")
    file.add("s", "u", verdict="keep", text="é\n")
    (line,) = file.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["text"] == "é\n"
