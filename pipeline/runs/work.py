"""The work of a run: units are planned while the sources are still being read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import chain, islice

from catalogs.corpus.history import History
from catalogs.durations import duration_text
from catalogs.words import counted
from pipeline.config import PrepareConfig
from pipeline.engine.progress import Progress
from pipeline.records import Source
from pipeline.runs.plan import PlannedUnit, measured, mixed, plan_units, unit_seconds
from pipeline.runs.sources import Given
from pipeline.runs.summary import Summary, refusal

log = logging.getLogger(__name__)


class Work:
    """The units of a run, planned one by one from what it was given. It counts what it meets in the summary.

    Raises what reading the sources raises, from `start` or while units are taken.
    """

    def __init__(
        self, given: Given, done: Container[str], history: History, config: PrepareConfig, summary: Summary
    ) -> None:
        self._given, self._done, self._history, self._summary = given, done, history, summary
        self.units = self.sessions = 0
        self.seconds = 0.0
        self.complete = False
        """Whether all sources are read, so that these counts are final."""
        self.planned_s: dict[str, float] = {}
        """Promised seconds of each session that was yielded."""
        self._progress: Progress | None = None
        self._guess = (0, 0.0)
        units = plan_units(
            measured(self._met(), done),
            done,
            summary.fingerprint,
            unit_seconds(config.unit_s, given.total_s),
            config.sources.session_s,
            history.generation,
            given.names,
        )
        self._planned: Iterator[PlannedUnit] = mixed(self._counted(units))

    def start(self) -> None:
        """Plan the first units and log how much there is to do."""
        self._planned = chain(list(islice(self._planned, 1)), self._planned)
        log.info(self._line())

    def announced(self, expect: Callable[[PlannedUnit], None]) -> Iterator[PlannedUnit]:
        """Yield the units; `expect` is called with each before."""
        for unit in self._planned:
            expect(unit)
            self.planned_s.update((session.session_id, session.seconds) for session in unit.sessions)
            yield unit

    def follow(self, progress: Progress) -> None:
        """Keep the totals of a run's progress: as estimated until all sources are read."""
        if not self.complete:
            share = self._given.share.of if self._given.share else 1
            sessions = max(self.sessions, round(len(self._given.names) / share))
            self._guess = (sessions - self.sessions, max(0.0, self._given.total_s / share - self.seconds))
        progress.sessions += self.sessions + self._guess[0]
        progress.audio_s += self.seconds + self._guess[1]
        self._progress = progress

    def _met(self) -> Iterator[tuple[str, Sequence[Source]]]:
        summary = self._summary
        for name, sources in self._given.sessions:
            summary.sources += len(sources)
            for source in sources:
                there = source.source_id in self._done
                summary.already_there += there
                summary.tried_again += not there and self._history.generation(source.source_id) is not None
            yield name, sources
        found = self._given.found
        summary.sources += len(found.refused)
        summary.ignored_files = found.ignored
        summary.quarantined += [refusal(row) for row in found.refused]

    def _counted(self, units: Iterator[PlannedUnit]) -> Iterator[PlannedUnit]:
        for unit in units:
            self._add(1, len(unit.sessions), unit.seconds)
            yield unit
        self.complete = True
        if self._progress is not None:
            self._progress.sessions -= self._guess[0]
            self._progress.audio_s -= self._guess[1]

    def _add(self, units: int, sessions: int, seconds: float) -> None:
        self.units += units
        self.sessions += sessions
        self.seconds += seconds
        if self._progress is not None:
            # What is planned now replaces a part of the guess.
            of_guess = min(self._guess[0], sessions), min(self._guess[1], seconds)
            self._guess = self._guess[0] - of_guess[0], self._guess[1] - of_guess[1]
            self._progress.sessions += sessions - of_guess[0]
            self._progress.audio_s += seconds - of_guess[1]

    def _line(self) -> str:
        summary = self._summary
        share = f" in share {self._given.share}" if self._given.share else ""
        line = f"{counted(summary.sources - len(summary.quarantined), 'recording')} found{share}"
        if summary.already_there:
            line += f", {summary.already_there} of them already in the corpus"
        if summary.tried_again:
            line += f", {summary.tried_again} of them tried again"
        if not self.complete:
            about = duration_text(self._given.total_s)
            return f"{line} so far; work begins, the rest is read meanwhile (about {about} in all)"
        return f"{line}; {counted(self.sessions, 'session')}, {duration_text(self.seconds)} to do"
