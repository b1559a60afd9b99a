"""What a stage is: one class, no engine inside, declared inputs, outputs, resources and weights.

A stage says what it reads and writes, loads its model once per actor and maps a session to a session. It never decides
what is *kept*: soft scores are recorded and thresholds are applied later, as a query.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline.records import Quarantined, Recording, Segment, Session


class StageConfig(BaseModel):
    """Settings of one stage: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Resources:
    """What one actor of a stage needs. `cpus` may be a fraction; `memory_bytes` is a hint for the scheduler."""

    cpus: float = 0.2
    gpus: float = 0.0
    memory_bytes: int = 512 * 1024**2


Config = TypeVar("Config", bound=StageConfig)
Item = TypeVar("Item", Recording, Segment)


class StageError(RuntimeError):
    """One item could not be processed, for a reason a person can act on; its text becomes the quarantine reason."""


class LoadError(RuntimeError):
    """A stage's model cannot be loaded: the whole run stops with this one line, which says how to get the model."""


class Stage(abc.ABC, Generic[Config]):
    """A stage of the pipeline. Subclasses set the class attributes and implement `__call__` (and `load`)."""

    name: ClassVar[str]
    """A verb with its object, e.g. `detect_speech`; the key of its settings and of its row in the report."""
    version: ClassVar[str]
    """Raised whenever the output for the same input may change: part of the fingerprint."""
    config_type: ClassVar[type[StageConfig]]
    inputs: ClassVar[tuple[str, ...]] = ()
    """Attributes of the session or its segments that must be there before, e.g. `windows`, `segment.text`."""
    outputs: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources()

    def __init__(self, config: Config) -> None:
        self.config = config
        self.report_item: Callable[[str], None] = lambda source_id: None
        """Called with the source id before each item; the engine sets it after a worker died, to find the culprit."""

    def weights(self) -> tuple[str, ...]:
        """Names in `catalogs/models.toml` of the weights this stage will use; part of the fingerprint."""
        return ()

    def load(self) -> None:
        """Load the model, once per actor. Raise LoadError with one line when it cannot be had."""

    @abc.abstractmethod
    def __call__(self, session: Session) -> Session:
        """Process one session. Per-item failures go through `for_each`; anything raised here condemns the session."""

    def for_each(self, session: Session, items: Iterable[Item], work: Callable[[Item], Any]) -> None:
        """Run `work` on each item; an exception puts that one item into quarantine and the session goes on.

        A failing recording gets the status `quarantined`; a failing segment gets the hard reason `failed_<stage>`.
        """
        for item in list(items):
            source_id = item.source.source_id if isinstance(item, Recording) else item.source_id
            self.report_item(source_id)
            try:
                work(item)
            except MemoryError:
                raise
            except OSError as error:
                if error.errno in _STOP_THE_JOB:
                    raise
                self._quarantine(session, item, error)
            except Exception as error:
                self._quarantine(session, item, error)

    def _quarantine(self, session: Session, item: Recording | Segment, error: Exception) -> None:
        source_id = item.source.source_id if isinstance(item, Recording) else item.source_id
        path = session.recording(source_id).source.path
        if isinstance(item, Recording):
            item.status = "quarantined"
            where = ""
        else:
            item.hard_reasons.append(f"failed_{self.name}")
            where = f" (at {item.start_s:.2f}-{item.end_s:.2f} s)"
        session.quarantine.append(Quarantined(path, source_id, self.name, one_line(error) + where))


# ENOSPC, EDQUOT: a full disk is the run's fault, not the recording's; nothing may be quarantined for it.
_STOP_THE_JOB = (28, 122)


def one_line(error: BaseException) -> str:
    """An exception as one readable line: its own words for a StageError, else with the kind of error before them."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if isinstance(error, StageError) else f"{type(error).__name__}: {words}"
