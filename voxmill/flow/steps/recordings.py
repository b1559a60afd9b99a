"""`recordings`: real prompts of Debian's packages as recordings, for flows that show that everything works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from voxmill.flow.digests import Digests
from voxmill.flow.steps.base import Cost, Outcome, Step, StepSettings

if TYPE_CHECKING:
    from voxmill.terminal import Terminal


class RecordingsSettings(StepSettings):
    """Settings of `recordings`."""

    minutes: float = Field(1.0, gt=0, lt=1000)
    """Minutes of prompts per language."""
    languages: tuple[str, ...] = ("en", "it")
    """Languages, of en, es, fr, it and ru."""
    seed: int = 7


class Recordings(Step):
    """Joins studio prompts of Debian's `asterisk-core-sounds` packages to recordings (CC-BY-SA-3.0)."""

    settings_kind = RecordingsSettings
    gives = "recordings"

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`. The folder is complete or absent."""
        from voxmill.demo_recordings import make_demo_recordings

        chosen = self.settings
        self.output.mkdir(parents=True, exist_ok=True)
        made = make_demo_recordings(
            self.output / "files", chosen.minutes, chosen.seed, terminal.say, languages=chosen.languages
        )
        return Outcome(f"{len(made.gold)} prompts in {len(chosen.languages)} languages", {"prompts": len(made.gold)})

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        return digests.tree(self.output / "files")

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        size = self.settings.minutes * len(self.settings.languages) * 60 * 32_000
        return Cost(hours=None, disk_bytes=size, notes=("time: seconds, and a download of 55 MB the first time",))
