"""What a step is: what it takes and gives, its settings, its run, the digest of its output, and its forecast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from voxmill.flow.digests import Digests, digest_of

if TYPE_CHECKING:
    from voxmill.terminal import Terminal

Gives = Literal["recordings", "corpus", "codec", "model"]
Facet = Literal["segments", "whole"]
"""The part of a corpus that an input depends on: `segments` (units, thresholds, marks), or `whole` (descriptions too)."""


class StepSettings(BaseModel):
    """Settings of a step. Inputs are names of earlier steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Takes:
    """An input: what the named steps must give."""

    gives: tuple[Gives, ...]
    many: bool = False
    required: bool = True
    facet: Facet = "whole"


@dataclass(frozen=True)
class Place:
    """Where a step works: the flow's folder, its name, the steps it takes its inputs from, and the flow's sources."""

    folder: Path
    name: str
    inputs: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    amended_by: tuple[Step, ...] = ()
    """Earlier steps that amend a corpus that this one reads."""


@dataclass(frozen=True)
class Outcome:
    """What a step did. result: JSON values that later calls get back. stopped: a signal ended it, and it is to be continued."""

    line: str
    result: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False


@dataclass(frozen=True)
class Cost:
    """What a step will take. None: unknown, and `notes` say why. Hours of wall time, hours of GPUs, US dollars, bytes."""

    hours: float | None = None
    gpu_hours: float | None = 0.0
    usd: float | None = 0.0
    disk_bytes: float | None = None
    notes: tuple[str, ...] = ()


class Step(ABC):
    """One step of a flow. Each process makes it from its settings; `run` resumes what an earlier process began."""

    settings_kind: ClassVar[type[StepSettings]] = StepSettings
    version: ClassVar[int] = 1
    """Raised when the same settings and inputs give another output."""
    takes: ClassVar[Mapping[str, Takes]] = {}
    gives: ClassVar[Gives | None] = None
    amends: ClassVar[str | None] = None
    """The input that the step adds to, instead of writing a folder."""
    is_read: ClassVar[bool] = True
    """False if what the step adds to a corpus changes no later output."""
    reads_sources: ClassVar[bool] = False
    continues_any: ClassVar[bool] = False
    """True if a run with other settings continues in the same folder. Otherwise the old output is moved aside."""
    base_inputs: ClassVar[tuple[str, ...]] = ()
    """Inputs that must be the same for a run with another fingerprint to continue in the same folder, beside `base`."""
    follows_amendments: ClassVar[bool] = False
    """True if the step is due when an earlier step that amends the same corpus was done again."""

    def __init__(self, kind: str, settings: Any, place: Place) -> None:
        self.kind, self.settings, self.place = kind, settings, place
        self.name = place.name

    @property
    def output(self) -> Path:
        """The folder that the step writes, or amends."""
        return self.one(self.amends).output if self.amends else self.place.folder / self.name

    def one(self, setting: str) -> Step:
        """Return the step that a required input names."""
        return self.place.inputs[setting][0]

    def many(self, setting: str) -> tuple[Step, ...]:
        """Return the steps that an input names, in order."""
        return self.place.inputs.get(setting, ())

    def effective(self) -> dict[str, Any]:
        """Return the settings that determine the output, as JSON values without paths of this flow.

        Defaults are left out, so that a setting that a later version adds makes nothing due. If a default changes, raise `version`.
        """
        return dict(self.settings.model_dump(mode="json", exclude=set(self.takes), exclude_defaults=True))

    @cached_property
    def settings_digest(self) -> str:
        """A digest of the effective settings. Loading them takes a while for some steps."""
        return digest_of(self.effective())

    def check(self) -> None:
        """Raise SettingsError, or what the step's own loader raises, if a setting is wrong."""
        _ = self.settings_digest

    def base(self) -> dict[str, Any] | None:
        """Return the settings that must be the same for a run with others to continue in the same folder; None: all."""
        return None

    @abstractmethod
    def run(self, terminal: Terminal) -> Outcome:
        """Do the step, or what is left of it. Raises the errors of the function behind it, one line each."""

    @abstractmethod
    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """Return a digest of the output that `run` made with this result; None if it is not there."""

    def content(self, facet: Facet, result: Mapping[str, Any], digests: Digests) -> str | None:
        """Return a digest of what a later step reads; None if it is not there."""
        return self.digest(result, digests)

    def forecast(self, terminal: Terminal) -> Cost:
        """Return what the step will take. Called only if it is due."""
        return Cost(notes=("not measured",))

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """Return (words, path) of what people may open."""
        return [(self.output.name, self.output)]


class CorpusStep(Step):
    """A step whose output is a corpus. Marks, thresholds and descriptions that are added later do not make it due."""

    gives = "corpus"
    continues_any = True

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`: the committed units."""
        return digests.units(self.output)

    def content(self, facet: Facet, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        return digests.corpus(self.output, facet)

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """See `Step`."""
        return [("corpus", self.output)]


class AmendingStep(CorpusStep):
    """A step that adds to the corpus `corpus`. A later step may name it or the step that made the corpus."""

    amends = "corpus"
    takes: ClassVar[Mapping[str, Takes]] = {"corpus": Takes(("corpus",), facet="segments")}


def before(names: Sequence[str]) -> str:
    """Return `before stage1 and stage2 have run`."""
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"before {listed} {'has' if len(names) == 1 else 'have'} run"
