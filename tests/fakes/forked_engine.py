"""An engine whose one actor is a forked process, and a run over it: it can be killed at a chosen change on the disk."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile

from catalogs.corpus.commit import UnitContent, bind_fingerprint, create_corpus, sweep_tmp
from catalogs.corpus.history import read_history
from catalogs.corpus.locks import only_run, own_scratch
from pipeline import prepare
from pipeline.config import load_config
from pipeline.engine.api import ContentLost, Event, Output, SessionDone, UnitWritten
from pipeline.engine.progress import Progress
from pipeline.records import Segment, Session, Source
from pipeline.runs.output import CorpusOutput
from pipeline.runs.plan import PlannedUnit, plan_units
from pipeline.runs.summary import Summary
from pipeline.runs.work import Work

FINGERPRINT = "f0e1" * 4
FORK = multiprocessing.get_context("fork")


@cache
def clip() -> bytes:
    """A second of noise."""
    sink = io.BytesIO()
    soundfile.write(sink, np.random.default_rng(0).normal(0, 0.1, 8000), 8000, format="FLAC")
    return sink.getvalue()


def die_at(step: int, notes: Path) -> None:
    """SIGKILL this process in the place of its step-th change on the disk. Each kill adds a line to `notes`."""
    # Of this process: actors are forked from the driver, and inherit its functions.
    done, mine = 0, os.getpid()

    def counted(honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += os.getpid() == mine
            if done == step and os.getpid() == mine:
                with notes.open("a") as file:
                    file.write(f"{honest.__name__}\n")
                os.kill(os.getpid(), signal.SIGKILL)
            return honest(*arguments, **options)

        return call

    for name in ("fsync", "replace", "link", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def process(session: Session) -> Session:
    """Two segments of a second in each recording of four."""
    for recording in session.recordings:
        recording.duration_s, recording.silence_s, recording.sample_rate, recording.channels = 4.0, 2.0, 8000, 1
        for number in range(2):
            start, name = 2.0 * number, f"{recording.source.source_id}-{number}"
            source = recording.source.source_id
            segment = Segment(source, number, start, start + 1.0, segment_id=name, flac=clip(), flac_rate=8000)
            session.segments.append(segment)
    return session


def act(pipe: Connection, output: Output, step: int, notes: Path) -> None:
    """Do what an actor does until the driver is gone."""
    if step:
        die_at(step, notes)
    contents: dict[str, Any] = {}
    while True:
        try:
            what = pipe.recv()
        except EOFError:
            os._exit(0)
        if isinstance(what, Session):
            done, contents[what.session_id] = output.split(process(what))
            pipe.send(done)
        elif set(what.sessions) <= set(contents):
            pipe.send(output.write(what, (contents.pop(name) for name in what.sessions)))
        else:
            pipe.send(None)


class ForkedEngine:
    """Content is lost with the actor, as it is with a node."""

    def __init__(self, output: Output, step: int, notes: Path) -> None:
        self._output, self._notes, self._units = output, notes, list[UnitContent]()
        self._plans: dict[str, Session] = {}
        self._start(step)

    def _start(self, step: int) -> None:
        self._pipe, theirs = FORK.Pipe()

        def live() -> None:
            # Of what it has from the driver, the locks would outlive that, and the end of the pipe would hide its death.
            os.closerange(3, theirs.fileno())
            os.closerange(theirs.fileno() + 1, 1024)
            with suppress(BrokenPipeError):
                act(theirs, self._output, step, self._notes)
            os._exit(0)

        self._actor = FORK.Process(target=live, daemon=True)
        self._actor.start()
        theirs.close()

    def _ask(self, what: Any) -> Any:
        try:
            self._pipe.send(what)
            return self._pipe.recv()
        except (EOFError, OSError):
            self._start(0)
            return None

    def run(self, sessions: Iterable[Session]) -> Iterator[Event]:
        """See `Engine.run`."""
        for session in sessions:
            self._plans[session.session_id] = session
            yield self._done(session)
            yield from self._write()
        yield from self._write()

    def _done(self, session: Session) -> SessionDone:
        done = self._ask(session)
        return done if isinstance(done, SessionDone) else self._done(session)

    def _write(self) -> Iterator[Event]:
        while self._units:
            unit = self._units.pop(0)
            if (record := self._ask(unit)) is not None:
                yield UnitWritten(record)
                continue
            yield ContentLost(tuple(unit.sessions))
            for name in unit.sessions:
                yield self._done(self._plans[name])

    def write(self, unit: UnitContent) -> None:
        """See `Engine.write`."""
        self._units.append(unit)

    def close(self) -> None:
        """End the actor."""
        self._pipe.close()
        self._actor.join()


def sources(count: int) -> list[Source]:
    """Recordings, two in a session."""
    return [
        Source(f"{n:016x}", f"/data/{n}.wav", f"{n}.wav", f"s{n // 2:03d}", 64_000, f"{n:064x}") for n in range(count)
    ]


class Planned:
    """Units as `pipeline.runs.work.Work` gives them to a run."""

    def __init__(self, units: list[PlannedUnit]) -> None:
        self._units = units
        self.planned_s = {session.session_id: session.seconds for unit in units for session in unit.sessions}

    def follow(self, progress: Progress) -> None:
        """See `Work.follow`."""
        progress.sessions += sum(len(unit.sessions) for unit in self._units)

    def announced(self, expect: Callable[[PlannedUnit], None]) -> Iterator[PlannedUnit]:
        """See `Work.announced`."""
        for unit in self._units:
            expect(unit)
            yield unit


def run(root: Path, count: int, victim: str = "", step: int = 0) -> int:
    """Prepare `count` recordings in a forked process, and kill it or its actor at a step; return its exit status.

    The file `kills` beside the corpus gets a line for each kill.
    """
    notes = root.parent / "kills"

    def drive() -> None:
        create_corpus(root)
        bind_fingerprint(root, FINGERPRINT)
        config = load_config()
        with only_run(root), own_scratch(root / "tmp") as scratch:
            sweep_tmp(root)
            done = read_history(root).done(lambda row: False)
            found = groupby(sources(count), key=lambda source: source.session_id)
            sessions = [(name, members, [4.0] * len(members)) for name, part in found if (members := list(part))]
            units = list(plan_units(sessions, done, FINGERPRINT, 12.0))
            output = CorpusOutput(root, config.thresholds)
            patched: Any = prepare
            patched.make_engine = lambda *_: ForkedEngine(output, step if victim == "actor" else 0, notes)
            if victim == "driver":
                die_at(step, notes)
            summary = Summary(str(root), count, fingerprint=FINGERPRINT)
            prepare._run(root, scratch, cast(Work, Planned(units)), config, summary, read_history(root), prepare.ignore)
            assert summary.units == len(units) and summary.sessions == sum(len(unit.sessions) for unit in units)
            assert summary.segments == 4 * summary.sessions

    driver = FORK.Process(target=drive)
    driver.start()
    driver.join()
    return int(driver.exitcode or 0)
