"""Steps that take no time, for tests of flows: `kind: fakes.flow_steps:Make`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from catalogs.files import write_atomically
from voxmill.flow.digests import Digests
from voxmill.flow.steps.base import Cost, Facet, Gives, Outcome, Step, StepSettings, Takes
from voxmill.terminal import Terminal


class MakeSettings(StepSettings):
    """`value` decides what is made, together with the inputs. The rest decides how."""

    value: str = ""
    corpus: str | list[str] = ()  # type: ignore[assignment]
    model: str | list[str] = ()  # type: ignore[assignment]
    quiet_value: str = ""
    """A setting that changes nothing of what is made."""
    parts: int = 1
    pause_s: float = 0.0
    fails: str = ""


class Make(Step):
    """Writes a file with its value and those of its inputs, one line per part; continues after the parts that are there."""

    settings_kind: ClassVar[type[StepSettings]] = MakeSettings
    gives: ClassVar[Gives | None] = "corpus"
    takes: ClassVar[Mapping[str, Takes]] = {
        "corpus": Takes(("corpus",), many=True, required=False),
        "model": Takes(("model",), many=True, required=False),
    }

    def effective(self) -> dict[str, Any]:
        """See `Step`."""
        return {"value": self.settings.value, "quiet": self.settings.quiet_value}

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        chosen = self.settings
        self.output.mkdir(parents=True, exist_ok=True)
        _count(self.place.folder, self.name)
        if chosen.fails:
            raise ValueError(chosen.fails)
        inputs = [one.output / "made" for setting in self.takes for one in self.many(setting)]
        text = chosen.value + "".join(f"({path.read_text()})" for path in inputs)
        for part in range(chosen.parts):
            path = self.output / f"part-{part}"
            if not path.is_file():
                time.sleep(chosen.pause_s)
                write_atomically(path, f"{part} {text}".encode())
                terminal.say(f"part {part}")
        write_atomically(self.output / "made", text.encode())
        return Outcome(f"made {chosen.value}", {"pid": os.getpid()})

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        return digests.files(self.output, [self.output / "made"])

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        return Cost(self.settings.pause_s * self.settings.parts / 3600, 0.0, 0.0, 100.0)


class Model(Make):
    """The same as a model."""

    gives = "model"


class Store(Make):
    """A corpus that others amend. Its own digest is that of what it made; readers depend on the notes beside it too."""

    continues_any = True

    def content(self, facet: Facet, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        notes = sorted(self.output.glob("note-*")) if facet == "whole" else []
        return digests.files(self.output, [self.output / "made", *notes])


class AmendSettings(StepSettings):
    """Settings of `Amend`."""

    corpus: str
    value: str = ""


class Amend(Store):
    """Writes a note into the corpus of another step."""

    settings_kind = AmendSettings
    amends = "corpus"
    takes: ClassVar[Mapping[str, Takes]] = {"corpus": Takes(("corpus",), facet="segments")}

    def effective(self) -> dict[str, Any]:
        """See `Step`."""
        return {"value": self.settings.value}

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        _count(self.place.folder, self.name)
        write_atomically(self.output / f"note-{self.name}", self.settings.value.encode())
        return Outcome("noted")

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        return "there" if (self.output / f"note-{self.name}").is_file() else None

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        return Cost(usd=1.5, notes=("asks a service",))


class Check(Amend):
    """An amendment that is due when an earlier one was done again."""

    follows_amendments = True


def _count(folder: Path, name: str) -> None:
    """Add a line for each run of a step."""
    with (folder / "runs.txt").open("a") as file:
        file.write(f"{name}\n")
