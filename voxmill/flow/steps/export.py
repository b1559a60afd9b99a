"""`export`: the clips of a corpus in the format of another tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from voxmill.flow.digests import Digests
from voxmill.flow.steps.base import Cost, Outcome, Step, StepSettings, Takes, before

if TYPE_CHECKING:
    from voxmill.terminal import Terminal


class ExportSettings(StepSettings):
    """Settings of `export`: as of `voxmill export`."""

    corpus: str
    to: str = "voxcpm"
    where: str = "kept"
    license_allow: tuple[str, ...] = ()
    split: str | None = None
    """Splits: train=0.9,validation=0.05,test=0.05."""
    seed: int = 0
    same_text: str = "link"
    columns: tuple[str, ...] = ()
    text: str = "text"
    audio: str | None = None
    sample_rate: int | None = None
    prefix: str | None = None


class Export(Step):
    """Writes clips with splits, a card and licenses."""

    settings_kind = ExportSettings
    takes: ClassVar[Mapping[str, Takes]] = {"corpus": Takes(("corpus",))}

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from catalogs.exchange.export import export
        from catalogs.exchange.request import parse_splits

        options = self.settings.model_dump(exclude={"corpus", "to", "split"})
        splits = parse_splits(self.settings.split) if self.settings.split else None
        with terminal.counting("clips") as progress:
            done = export(
                self.one("corpus").output, self.settings.to, self.output, splits=splits, progress=progress, **options
            )
        return Outcome(f"{done.clips} clips as {self.settings.to}", {"clips": done.clips, "seconds": done.seconds})

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`. export.json is written last."""
        return digests.files(self.output, [self.output / "export.json"])

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`: the audio is copied."""
        corpus = self.one("corpus")
        shards = list((corpus.output / "segments").glob("*/*.arrow"))
        if not shards:
            return Cost(notes=(f"unknown {before([corpus.name])}",))
        size = float(sum(path.stat().st_size for path in shards)) if self.settings.audio != "none" else None
        return Cost(disk_bytes=size, notes=("time: that of a copy; disk: at most the corpus' audio as FLAC",))

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """See `Step`."""
        return [("export", self.output)]
