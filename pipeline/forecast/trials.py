"""Run excerpts through the real stages, to measure what a run over all of the recordings would cost and yield."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.audio.open import probe
from pipeline.config import PrepareConfig
from pipeline.engine.worker import Worker
from pipeline.forecast.sample import Excerpt, write_piece, write_survey
from pipeline.records import Recording, Session, Source
from pipeline.runs.to_rows import segment_rows
from pipeline.runtime.devices import count_gpus
from pipeline.stage import Stage
from pipeline.stages.transcribe import Transcribe

_LEAST_S = 0.5
_MOST_PROCESSES = 4


@dataclass
class ExcerptResult:
    """The result of one excerpt. Without any `cpu_s` it could not be decoded."""

    audio_s: float
    cpu_s: dict[str, float] = field(default_factory=dict)
    busy_s: dict[str, float] = field(default_factory=dict)
    kept_s: float = 0.0
    segments: int = 0
    segments_s: float = 0.0
    rejected_s: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    load_s: float = 0.0
    """Seconds that its process took to load the models."""


def run_trials(
    config: PrepareConfig, excerpts: Sequence[Sequence[Excerpt]], lengths: Mapping[str, float], scratch: Path
) -> Iterator[ExcerptResult]:
    """Yield the result of each excerpt, in order. `lengths`: seconds of the recordings by their source ids.

    If the run has actors, the trials run in processes with as many threads as an actor has. As many run at a time as there
    are cores (up to four): with all cores busy, everything takes longer than alone. Raises LoadError, and ValueError if a
    process died of an excerpt.
    """
    if config.engine.executor == "inline":
        trials = Trials(config, scratch)
        yield from (trials.run(pieces, lengths) for pieces in excerpts)
        return
    # Processes that share a GPU would not have the shares of it that actors have.
    on_gpu = bool(config.engine.gpus) and count_gpus() > 0
    processes = 1 if on_gpu else min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), len(excerpts))
    surroundings = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if not config.engine.gpus:
        surroundings["CUDA_VISIBLE_DEVICES"] = ""
    with _environment(surroundings), ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = [
            pool.submit(
                _run_here, config, scratch, pieces, {p.source.source_id: lengths[p.source.source_id] for p in pieces}
            )
            for pieces in excerpts
        ]
        try:
            for future in waiting:
                yield future.result()
        except BrokenProcessPool:
            raise ValueError(
                "a stage died on one of the excerpts, because of its audio or too little memory; "
                "without --dry-run such a recording is found and put into quarantine"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set the environment of processes that are started here to that of the engine's actors: one thread for BLAS and OpenMP
    (more of them spend CPU time on waiting for work), and no GPU if they have no share of one."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_trials: Trials | None = None
"""The trials of this process, if it is one of the pool's."""


def _run_here(
    config: PrepareConfig, scratch: Path, pieces: Sequence[Excerpt], lengths: Mapping[str, float]
) -> ExcerptResult:
    global _trials
    _trials = _trials or Trials(config, scratch)
    return _trials.run(pieces, lengths)


class Trials:
    """The stages of a run, in this process. Loads all models; raises LoadError."""

    def __init__(self, config: PrepareConfig, scratch: Path) -> None:
        self._config, self._scratch = config, scratch
        self._workers = [Worker(group.stages, str(scratch)) for group in config.groups()]
        self._surveyed: dict[str, float] = {}
        """Seconds that it took to detect a recording's language, by its source id."""
        started = time.perf_counter()
        for worker in self._workers:
            worker.load()
        self.load_s = time.perf_counter() - started

    def run(self, pieces: Sequence[Excerpt], lengths: Mapping[str, float]) -> ExcerptResult:
        """Put an excerpt through the stages as one session. `lengths`: seconds of the recordings by their source ids."""
        folder = self._scratch / f"trial-{os.getpid()}"
        folder.mkdir()
        read = [(piece, folder / f"{i}.wav") for i, piece in enumerate(pieces)]
        read = [(piece, path) for piece, path in read if write_piece(piece, path, self._scratch) > _LEAST_S]
        if not read:
            # As in the real run: it costs almost nothing and yields nothing.
            trial = ExcerptResult(sum(piece.length_s for piece in pieces))
        else:
            trial = self._run(read, lengths, folder)
        trial.load_s = self.load_s
        shutil.rmtree(folder)
        return trial

    def _run(self, read: Sequence[tuple[Excerpt, Path]], lengths: Mapping[str, float], folder: Path) -> ExcerptResult:
        survey_s = 0.0
        recordings = []
        for piece, path in read:
            whole_s = lengths[piece.source.source_id]
            part = piece.length_s < whole_s
            if part and not piece.source.language:
                survey_s += self._survey(piece.source, whole_s, folder) * piece.length_s / whole_s
            recordings.append(Recording(_source_of(piece.source, path, part)))
        trial = ExcerptResult(sum(probe(str(path)).duration_s for _, path in read))
        session = Session(recordings[0].source.session_id, "forecast", str(folder / "spool"), recordings)
        for worker in self._workers:
            session, outcome = worker.run(session, marked=False)
            trial.cpu_s |= outcome.cpu_s
            trial.busy_s |= outcome.busy_s
        for times in (trial.cpu_s, trial.busy_s):
            times[Transcribe.name] += survey_s
        rows = segment_rows(session, self._config.thresholds)
        trial.segments = len(rows)
        trial.kept_s = sum(row["duration_s"] for row in rows if row["kept"])
        trial.segments_s = sum(row["duration_s"] for row in rows)
        for row in rows:
            trial.rejected_s.update(dict.fromkeys(row["reasons"], row["duration_s"]))
        trial.bytes = sum(len(segment.flac) for segment in session.segments if segment.flac)
        return trial

    def _survey(self, source: Source, whole_s: float, folder: Path) -> float:
        """Detect a recording's language from all of it, as the run does, and not from the excerpt: its probability affects
        all segments. Return the seconds that the recognizer took for it, which do not depend on the recording's length."""
        if source.source_id not in self._surveyed:
            self._surveyed[source.source_id] = 0.0
            path = folder / "survey.wav"
            if write_survey(source, whole_s, path, self._scratch):
                session = Session("survey", "forecast", str(folder), [Recording(_source_of(source, path, True))])
                for name in ("decode", "detect_speech", "segment"):
                    session = self._stage(name)(session)
                transcribe = self._stage(Transcribe.name)
                assert isinstance(transcribe, Transcribe)
                started = time.perf_counter()
                transcribe.known_languages |= transcribe.find_languages(session)
                self._surveyed[source.source_id] = time.perf_counter() - started
        return self._surveyed[source.source_id]

    def _stage(self, name: str) -> Stage[Any]:
        return next(stage for worker in self._workers for stage in worker.stages if stage.name == name)


def _source_of(source: Source, path: Path, part: bool) -> Source:
    """Replace a source's file by an excerpt's. A part does not get the transcript of the whole recording."""
    excerpt = replace(source, path=str(path), bytes=path.stat().st_size, content_sha256="", extent=None)
    return replace(excerpt, text=None, spans=()) if part else excerpt
