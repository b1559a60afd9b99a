"""The base class of stages: declared inputs, outputs, resources and weights, without any part of the engine.

A stage declares what it reads and writes, loads its model once per actor and maps a session to a session. It never decides
what is *kept*: soft scores are recorded, and thresholds are applied later, as a query.
"""

from __future__ import annotations

import abc
import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from catalogs.corpus.attempts import Cause
from catalogs.files import has_no_space, is_full_disk, one_line
from pipeline.records import Quarantined, Recording, Segment, Session
from pipeline.runtime.batches import free_memory, is_out_of_memory, length_buckets
from pipeline.runtime.failures import StopRunError, Tally, cause_of, missing_library, trace_of


class StageConfig(BaseModel):
    """Settings of one stage: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Resources:
    """What a stage needs. `cpus`: its CPU time relative to the other stages (`transcribe` on the CPU is 1); pools are sized
    by it. `memory_bytes`: what one actor needs; a run does not start on a machine that has less."""

    cpus: float = 0.2
    gpus: float = 0.0
    memory_bytes: int = 512 * 1024**2


Config = TypeVar("Config", bound=StageConfig)
Item = TypeVar("Item", Recording, Segment)
Given = TypeVar("Given")
Made = TypeVar("Made")


class StageError(RuntimeError):
    """One item could not be processed, for a reason that the user can act on. The message becomes the quarantine reason."""

    cause: ClassVar[Cause] = "data"
    """What is at fault: `data` is final, `machine` is tried again by the next run."""


class StoreError(OSError):
    """A request to a store (a web server, an object store) failed: a time-out, a server error, a broken connection, a
    refused login. The recording is not at fault; the same request may succeed later."""


class LoadError(StopRunError):
    """A stage's model cannot be loaded. The whole run stops with this one line, which states how to get the model."""


class Stage(abc.ABC, Generic[Config]):
    """A stage of the pipeline. Subclasses set the class attributes and implement `__call__` (and `load`)."""

    name: ClassVar[str]
    """A verb with its object, e.g. `detect_speech`; the key of its settings and of its row in the report."""
    version: ClassVar[str]
    """Increased whenever the output for the same input may change. It is part of the fingerprint."""
    continues: ClassVar[tuple[str, ...]] = ()
    """Earlier versions whose corpora a run continues, because what they measured stays valid beside what is measured now."""
    config_type: ClassVar[type[StageConfig]]
    inputs: ClassVar[tuple[str, ...]] = ()
    """What the stage reads from earlier stages: `windows`, `speech`, `segments` (their identity, times and verdicts),
    `references`, or a column, e.g. `segment.text`. Checked when a run starts."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """What the stage writes, in the same terms. A test compares both with what each built-in stage does."""
    resources: ClassVar[Resources] = Resources()
    weights_table: ClassVar[Path | None] = None
    """For a stage of another package: a file like `catalogs/weights/models.toml` with its weights."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.report_item: Callable[[str, float], None] = lambda source_id, done_s: None
        """Called before each item with its source id and the seconds of the session's audio that the stage has finished.
        With it, the engine sees that the stage is not stuck, finds the item at fault if the worker dies, and estimates the
        time left."""
        self.halved: list[int] = []
        """Batch sizes to which out-of-memory errors reduced this stage since the engine last read them."""
        self.one_by_one = False
        """Whether every batch holds one item: an item of this session kills workers, and the engine has to find out which."""
        self._fits: int | None = None
        self._tally, self._streak = Tally(), Tally()

    def take_tally(self) -> Tally:
        """Return the outcomes of the items since the last call, and reset them."""
        tally, self._tally = self._tally, Tally()
        return tally

    def weights(self) -> tuple[str, ...]:
        """Names in `catalogs/weights/models.toml` of the weights this stage will use; part of the fingerprint."""
        return ()

    def load(self) -> None:
        """Load the model, once per actor. Raises LoadError with one line if it is not available."""

    @abc.abstractmethod
    def __call__(self, session: Session) -> Session:
        """Process one session. Failures of single items go through `for_each`; an exception raised here quarantines the
        whole session."""

    def for_each(self, session: Session, items: Iterable[Item], work: Callable[[Item], Any]) -> None:
        """Run `work` on each item; an exception quarantines that one item, and the session continues.

        A failing recording gets the status `quarantined`. A failing segment gets the reason `failed_<stage>`, keeps its
        audio and is skipped by later stages. Raises BrokenStageError if the stage fails on everything, StopRunError if a
        library is missing.
        """
        items = list(items)
        share, done_s = _audio_share(session, items), 0.0
        for item in items:
            self.report_item(_source_id(item), done_s * share)
            try:
                work(item)
            except Exception as error:
                self._fail(session, item, error)
            else:
                self._succeed(1)
            done_s += item.duration_s

    def for_batches(
        self,
        session: Session,
        items: Iterable[Item],
        work: Callable[[Sequence[Item]], Any],
        batch_size: int,
        length: Callable[[Item], float] = lambda item: item.duration_s,
    ) -> None:
        """Run `work` on batches of at most `batch_size` items of similar length; `work` sets its results on the items.

        If a batch runs out of memory (torch's, CTranslate2's or Python's error), it is halved and tried again, down to one
        item. The size that fits is kept for the next batches of this actor. A batch that fails for another reason is tried
        item by item, so that a bad item affects no other: `work` must be repeatable. Items that fail alone are quarantined
        as in `for_each`.
        """
        items = list(items)
        share, done_s = _audio_share(session, items), 0.0
        waiting = length_buckets(items, self._batch_size(batch_size), length)[::-1]
        while waiting:
            batch = waiting.pop()
            self.report_item(_source_id(batch[0]), done_s * share)
            size = self._batch_size(batch_size)
            if len(batch) > size:
                waiting += [batch[start : start + size] for start in range(0, len(batch), size)][::-1]
                continue
            try:
                work(batch)
                self._succeed(len(batch))
                done_s += sum(item.duration_s for item in batch)
                continue
            except Exception as error:
                if len(batch) == 1 or is_full_disk(error):
                    self._fail(session, batch[0], error)
                    done_s += batch[0].duration_s
                    continue
                short = is_out_of_memory(error)
            # Outside of the handler: as long as the exception lives, its frames hold the tensors that did not fit.
            free_memory()
            if short:
                self._fits = (len(batch) + 1) // 2
                self.halved.append(self._fits)
                waiting.append(batch)
            else:
                waiting += [[item] for item in reversed(batch)]

    def in_batches(
        self, items: Sequence[Given], work: Callable[[Sequence[Given]], Sequence[Made]], batch_size: int
    ) -> list[Made]:
        """Return the results of `work` for the items, in order. Batches are halved as in `for_batches`.

        Raises what `work` raises, but an out-of-memory error only if even a single item does not fit.
        """
        made: list[Made] = []
        while len(made) < len(items):
            batch = items[len(made) : len(made) + self._batch_size(batch_size)]
            try:
                made += work(batch)
                continue
            except Exception as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
            # Outside of the handler, as in for_batches.
            free_memory()
            self._fits = (len(batch) + 1) // 2
            self.halved.append(self._fits)
        return made

    def _batch_size(self, asked: int) -> int:
        if self.one_by_one:
            return 1
        return asked if self._fits is None else min(asked, self._fits)

    def _fail(self, session: Session, item: Recording | Segment, error: Exception) -> None:
        """Quarantine one item for its error. Raise the error instead if the machine is at fault, e.g. a full disk or a
        missing library."""
        if is_full_disk(error) or isinstance(error, StopRunError):
            raise error
        if isinstance(error, ImportError):
            raise missing_library(error) from error
        if not isinstance(error, StageError) and has_no_space(session.spool):
            raise OSError(errno.ENOSPC, "no space left on the disk") from error
        self._quarantine(session, item, error)
        for tally in (self._tally, self._streak):
            tally.fail(error, described(error))
        self._streak.check(self.name)
        if is_out_of_memory(error):
            free_memory()

    def _succeed(self, count: int) -> None:
        for tally in (self._tally, self._streak):
            tally.add("", count)

    def _quarantine(self, session: Session, item: Recording | Segment, error: Exception) -> None:
        source_id = _source_id(item)
        path = session.recording(source_id).source.path
        if isinstance(item, Recording):
            item.status = "quarantined"
            session.forget(source_id)
            where = ""
        else:
            item.failures.append(f"failed_{self.name}")
            where = f" (at {item.start_s:.2f}-{item.end_s:.2f} s)"
        session.quarantine.append(quarantined(path, source_id, self.name, error, where))


def quarantined(path: str, source_id: str, stage: str, error: Exception, where: str = "") -> Quarantined:
    """Return the quarantine row for an item's exception, with its traceback if the code is at fault."""
    cause = cause_of(error)
    trace = trace_of(error) if cause == "bug" else ""
    kind = type(error).__name__
    return Quarantined(path, source_id, stage, described(error) + where, cause=cause, kind=kind, trace=trace)


def _source_id(item: Recording | Segment) -> str:
    return item.source.source_id if isinstance(item, Recording) else item.source_id


def _audio_share(session: Session, items: Sequence[Recording | Segment]) -> float:
    """Return the seconds of the session's audio that one second of the items stands for. Return 0 for the recordings of a
    session that has segments: such a stage spends its time on the segments, and its passes over recordings are short."""
    if not items or (session.segments and isinstance(items[0], Recording)):
        return 0.0
    if isinstance(items[0], Recording):
        return 1.0
    whole_s = sum(recording.duration_s for recording in session.usable())
    return whole_s / max(sum(item.duration_s for item in items), 1e-9)


def described(error: BaseException) -> str:
    """Return an exception as one line: its message alone for a StageError or StoreError, otherwise with the type of the
    exception before it."""
    words = one_line(error)
    return words if isinstance(error, StageError | StoreError) else f"{type(error).__name__}: {words}"
