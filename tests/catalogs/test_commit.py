"""A unit is visible whole or not at all, whatever happens while it is committed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpus_builders import SmallUnit, make_unit, verdict

from catalogs.corpus import commit
from catalogs.corpus.commit import (
    CorpusError,
    UnitContent,
    commit_unit,
    committed_units,
    create_corpus,
    read_records,
    sweep_tmp,
)
from catalogs.corpus.fsck import fsck
from catalogs.corpus.history import quarantine_now
from catalogs.corpus.reader import Corpus

UNIT = make_unit("a", 4)
STEPS = ("fsync", "replace", "link", "mkdir")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product may catch it."""


def _break_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> list[int]:
    """Let the file system fail at call number `step` (and, as for a dead process, at every later call)."""
    calls = [0]

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] >= step:
                raise error
            return function(*arguments, **options)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return calls


def _count_steps(root: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        calls = _break_at(patch, 10**9, Killed())
        commit_unit(root, UNIT)
    return calls[0]


def _broken_and_repeated(root: Path, step: int, error: BaseException) -> None:
    """Commit with a file system that fails from call number `step` on; check what is visible, and that the next one converges."""
    create_corpus(root)
    with pytest.MonkeyPatch.context() as patch:
        _break_at(patch, step, error)
        try:
            commit_unit(root, UNIT)
            finished = True
        except (Killed, OSError):
            finished = False
    visible = committed_units(root)
    assert visible in (set(), {UNIT.unit_id})
    if finished:
        assert visible == {UNIT.unit_id}
    if visible:
        assert len(Corpus(root).table("index")) == 4
    assert [problem for problem in fsck(root) if problem.severity == "error"] == []
    record = commit_unit(root, UNIT)
    assert committed_units(root) == {UNIT.unit_id}
    assert record["segments"] == 4
    fsck(root, repair=True)
    assert fsck(root) == []
    assert len(Corpus(root)) == len(UNIT.rows)


def test_a_broken_commit_shows_nothing_and_the_next_one_converges(tmp_path: Path) -> None:
    """At each of its steps, by a full disk and by a kill; and at none."""
    create_corpus(tmp_path / "c")
    steps = _count_steps(tmp_path / "c")
    assert 15 <= steps <= 40
    for step in range(1, steps + 2):
        for number, error in enumerate((OSError(28, "No space left on device"), Killed())):
            _broken_and_repeated(tmp_path / f"{step} {number}", step, error)


def test_a_second_commit_changes_nothing(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    first = commit_unit(tmp_path / "c", UNIT)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*") if path.is_file()}
    different = make_unit("a", 4, stats={"wall_s": 99.0})
    assert commit_unit(tmp_path / "c", different) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*") if path.is_file()} == before


def test_the_first_record_wins_a_race_and_the_loser_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "c"
    create_corpus(root)
    rows = [dict(row) for row in UNIT.rows]
    rows[0]["text"] = "another transcript of the same unit"
    other = make_unit("a", 4, rows=rows)
    assert other.unit_id == UNIT.unit_id
    link = commit._link_record

    def overtaken(draft: Path, final: Path) -> dict[str, Any] | None:
        monkeypatch.setattr(commit, "_link_record", link)
        commit_unit(root, other)  # The other worker gets there between our files and our record.
        return link(draft, final)

    monkeypatch.setattr(commit, "_link_record", overtaken)
    winner = commit_unit(root, UNIT)
    assert winner == next(read_records(root))
    assert Corpus(root).table("index").column("text")[0].as_py() == rows[0]["text"]
    assert fsck(root) == []


def test_without_hard_links_the_record_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    create_corpus(tmp_path / "c")
    first = commit_unit(tmp_path / "c", UNIT)
    assert commit_unit(tmp_path / "c", UNIT) == first
    assert fsck(tmp_path / "c") == []


def test_a_really_full_disk_is_an_oserror_with_nothing_visible(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    try:
        create_corpus(mounted / "c")
        big = make_unit("big", 8, seconds=20.0)
        with pytest.raises(OSError) as caught:
            commit_unit(mounted / "c", big)
        assert caught.value.errno == 28
        assert committed_units(mounted / "c") == set()
        assert not any((mounted / "c" / "tmp").iterdir())
        commit_unit(mounted / "c", make_unit("a", 1))
        assert fsck(mounted / "c") == []
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_reader_sees_monotone_counts_while_units_are_committed(tmp_path: Path) -> None:
    root = tmp_path / "c"
    create_corpus(root)
    units = [make_unit(f"u{n}", 3) for n in range(25)]
    counts: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                corpus = Corpus(root)
                table = corpus.table("index")
                assert table.num_rows == len(corpus) == 3 * len(list(corpus.records))
                counts.append(table.num_rows)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for unit in units:
        commit_unit(root, unit)
    done.set()
    reader.join()
    assert failures == []
    assert counts == sorted(counts)
    assert len(Corpus(root)) == 75


def _writer(root: Path, units: list[SmallUnit]) -> tuple[int, int]:
    """Start a process that commits units; return its id, and what to read one byte per step from."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sync = os.fsync

            def counted(handle: Any) -> None:
                os.write(writing, b".")
                sync(handle)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", counted)
                for unit in units:
                    commit_unit(root, unit)
        finally:
            os._exit(1)
    os.close(writing)
    return pid, reading


@pytest.mark.kill
def test_a_killed_writer_loses_and_doubles_nothing(tmp_path: Path) -> None:
    root = tmp_path / "c"
    create_corpus(root)
    units = [make_unit(f"k{number}", 3) for number in range(30)]
    killed = 0
    # Each time at another step of a unit, some units after the last: a unit takes about ten.
    for steps in (3, 27, 51, 78, 10**9):
        pid, steps_seen = _writer(root, units)
        with os.fdopen(steps_seen, "rb", buffering=0) as seen:
            reached = sum(1 for _ in itertools.islice(iter(lambda: seen.read(1), b""), steps))
            killed += reached == steps
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert [problem for problem in fsck(root) if problem.severity == "error"] == []
    assert killed == 4
    assert len(committed_units(root)) == 30
    assert len(Corpus(root)) == 90
    sweep_tmp(root)
    fsck(root, repair=True)
    assert fsck(root) == []


def test_a_unit_without_speech_is_committed_too(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    record = commit_unit(tmp_path / "c", make_unit("silent", 0))
    assert record["segments"] == 0
    assert {file["kind"] for file in record["files"]} == {"recordings"}
    assert fsck(tmp_path / "c") == []


def test_a_misspelt_column_is_refused(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    unit = make_unit("a", 1)
    rows = [dict(unit.rows[0], dnsmos_overall=3.0)]
    with pytest.raises(ValueError, match="dnsmos_overall"):
        commit_unit(tmp_path / "c", UnitContent(unit.unit_id, unit.fingerprint, unit.sessions, rows, unit.recordings))
    assert committed_units(tmp_path / "c") == set()


def test_a_verdict_is_persisted_at_once_and_once(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    first = quarantine_now(tmp_path / "c", verdict())
    assert quarantine_now(tmp_path / "c", verdict()) == first
    files = list((tmp_path / "c" / "quarantine").rglob("*.parquet"))
    assert files == [first]
    assert pq.read_table(first).column("error").to_pylist() == ["not an audio file"]
    assert fsck(tmp_path / "c") == []


def test_folders_that_are_no_corpus_are_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(CorpusError, match="not empty"):
        create_corpus(tmp_path)
    with pytest.raises(CorpusError, match="not a corpus"):
        Corpus(tmp_path)
    for place in ("holiday.jpg", "holiday.jpg/corpus"):
        with pytest.raises(CorpusError, match=r"holiday.jpg is a file; choose a folder for the corpus"):
            create_corpus(tmp_path / place)
    create_corpus(tmp_path / "new")
    (tmp_path / "new" / "corpus.json").write_text('{"schema_version": 99}')
    with pytest.raises(CorpusError, match="newer"):
        create_corpus(tmp_path / "new")
    (tmp_path / "new" / "corpus.json").write_text('{"schema_version": 1}')
    with pytest.raises(CorpusError, match="older voxmill"):
        Corpus(tmp_path / "new")
