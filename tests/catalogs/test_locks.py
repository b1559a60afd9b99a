"""Drafts of living writers are never swept, those of dead ones always, and one run at a time works on a corpus."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from catalogs.corpus.commit import create_corpus, sweep_tmp, write_in_corpus
from catalogs.corpus.locks import CorpusBusyError, dead_scratch, only_run, own_scratch, run_at_work

_WRITER = """
import sys
from catalogs.corpus.locks import own_scratch
with own_scratch(sys.argv[1]) as folder:
    (folder / "draft").write_bytes(b"12345")
    print(folder, flush=True)
    sys.stdin.readline()
"""


def _writer(tmp: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process with a draft of five bytes, and its scratch folder."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp)], text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_living_writer_keeps_its_drafts_and_a_killed_one_is_swept(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    tmp = tmp_path / "c" / "tmp"
    living, folder = _writer(tmp)
    try:
        killed, abandoned = _writer(tmp)
        assert sweep_tmp(tmp_path / "c") == 0 and (abandoned / "draft").is_file()
        killed.kill()
        killed.communicate()
        assert {path.name for path in dead_scratch(tmp)} == {abandoned.name, f"{abandoned.name}.lock"}
        assert sweep_tmp(tmp_path / "c") == 5
        assert {path.name for path in tmp.iterdir()} == {folder.name, f"{folder.name}.lock"}
        assert (folder / "draft").read_bytes() == b"12345"
    finally:
        living.communicate("\n")
    assert living.returncode == 0
    assert list(tmp.iterdir()) == []


def test_what_has_no_lock_has_no_owner(tmp_path: Path) -> None:
    """Older versions left files and folders without a lock."""
    create_corpus(tmp_path / "c")
    tmp = tmp_path / "c" / "tmp"
    (tmp / "half").write_bytes(b"x" * 7)
    (tmp / "spool" / "s").mkdir(parents=True)
    (tmp / "spool" / "s" / "a.wav").write_bytes(b"y" * 11)
    with own_scratch(tmp) as folder:
        assert sweep_tmp(tmp_path / "c") == 18
        assert folder.is_dir()
    assert list(tmp.iterdir()) == []


def meets(work: Callable[[], object], between: Callable[[], object], place: int) -> bool:
    """Do `work`, and `between` right before its call number `place` of a built-in function; False if it makes fewer."""
    calls = 0

    def hear(frame: FrameType, event: str, called: Any) -> None:
        nonlocal calls
        calls += event == "c_call"
        if event == "c_call" and calls == place:
            sys.setprofile(None)
            between()

    sys.setprofile(hear)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls == place


def test_a_sweep_between_any_two_steps_of_a_writer_changes_nothing(tmp_path: Path) -> None:
    place, final = 1, tmp_path / "annotations" / "x"
    while meets(lambda: write_in_corpus(tmp_path, final, b"words"), lambda: sweep_tmp(tmp_path), place):
        assert final.read_bytes() == b"words" and list((tmp_path / "tmp").iterdir()) == []
        final.unlink()
        place += 1
    assert place > 30, "fewer steps than there are: not all were tried"


def test_a_writer_whose_lock_was_swept_as_it_began_has_another_one(tmp_path: Path) -> None:
    """Otherwise a second sweep would take its folder from it."""

    def begin_and_sweep() -> None:
        with own_scratch(tmp_path / "tmp") as folder:
            assert sweep_tmp(tmp_path) == 0 and folder.is_dir()

    place = 1
    while meets(begin_and_sweep, lambda: sweep_tmp(tmp_path), place):
        place += 1
    assert place > 30, "fewer steps than there are: not all were tried"


@pytest.mark.parametrize("other", ["sweep", "writer begins", "writer ends", "writer comes and goes"])
def test_whatever_comes_between_any_two_steps_of_a_sweep(tmp_path: Path, other: str) -> None:
    tmp = tmp_path / "tmp"
    place, reached = 0, True
    while reached:
        place += 1
        with ExitStack() as alive, ExitStack() as later:
            (tmp / "w-dead").mkdir(parents=True)
            (tmp / "w-dead" / "draft").write_bytes(b"12345")
            (tmp / "w-dead.lock").touch()
            (tmp / "old").write_bytes(b"x" * 7)
            writers = [] if other != "writer ends" else [alive.enter_context(own_scratch(tmp))]

            def between(writers: list[Path] = writers, alive: ExitStack = alive, later: ExitStack = later) -> None:
                if other == "sweep":
                    sweep_tmp(tmp_path)
                elif other == "writer begins":
                    writers.append(later.enter_context(own_scratch(tmp)))
                elif other == "writer ends":
                    alive.close()
                    writers.clear()
                else:
                    write_in_corpus(tmp_path, tmp_path / "annotations" / "x", b"words")

            reached = meets(lambda: sweep_tmp(tmp_path), between, place)
            assert {path.name for path in tmp.iterdir()} == {
                name for w in writers for name in (w.name, f"{w.name}.lock")
            }
        assert list(tmp.iterdir()) == []
    assert place > 30, "fewer steps than there are: not all were tried"


def test_writers_and_sweepers_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Threads change places in the middle of a sweep: what another sweep or its writer removed meanwhile does not raise."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    done = threading.Event()
    failures: list[BaseException] = []

    def sweep() -> None:
        try:
            while not done.is_set():
                sweep_tmp(tmp_path)
        except BaseException as error:
            failures.append(error)

    sweepers = [threading.Thread(target=sweep) for _ in range(4)]
    switches = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(100):
            write_in_corpus(tmp_path, tmp_path / "annotations" / str(number), b"words")
    finally:
        done.set()
        for sweeper in sweepers:
            sweeper.join()
        sys.setswitchinterval(switches)
    assert failures == []
    assert len(list((tmp_path / "annotations").iterdir())) == 100


def test_a_second_run_is_refused_and_a_look_at_the_lock_refuses_nobody(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    assert not run_at_work(tmp_path / "c")
    with only_run(tmp_path / "c"):
        assert run_at_work(tmp_path / "c")
        with pytest.raises(CorpusBusyError, match=r"at work on .*c .*wait for it"), only_run(tmp_path / "c"):
            pass
    assert not run_at_work(tmp_path / "c")
    with only_run(tmp_path / "c"):
        pass
