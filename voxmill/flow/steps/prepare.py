"""`prepare`: recordings to a corpus, by `pipeline.prepare.prepare`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from catalogs.durations import duration_text
from catalogs.words import counted
from voxmill.flow.settings import as_overrides
from voxmill.flow.steps.base import CorpusStep, Cost, Outcome, StepSettings, Takes, before

if TYPE_CHECKING:
    from pipeline.config import PrepareConfig
    from voxmill.terminal import Terminal


class PrepareSettings(StepSettings):
    """Settings of `prepare`."""

    recordings: str | None = None
    """A step that makes the recordings. Default: the flow's sources."""
    config: str | None = None
    """A YAML file with settings of `voxmill prepare`."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of `voxmill prepare`, nested: {transcribe: {beam_size: 1}}."""
    sample_minutes: float | None = None
    """Minutes of audio that `--dry-run` samples. Default: one third of all, at most 8."""


class Prepare(CorpusStep):
    """Makes or continues a corpus. Settings that change segments process the recordings again in the same corpus (`--redo`)."""

    settings_kind = PrepareSettings
    takes: ClassVar[Mapping[str, Takes]] = {"recordings": Takes(("recordings",), required=False)}
    reads_sources = True

    @property
    def paths(self) -> list[str]:
        """The recordings."""
        made = self.many("recordings")
        return [str(made[0].output / "files")] if made else list(self.place.sources)

    def config(self) -> PrepareConfig:
        """Return the settings of the pipeline. Raises SettingsError."""
        from pipeline.config import load_config

        return load_config(self.settings.config, as_overrides(self.settings.set))

    def effective(self) -> dict[str, Any]:
        """See `Step`: what decides segments, and what is kept, described and refused of them. The engine is left out."""
        from pipeline.runs.fingerprint import fingerprint

        config = self.config()
        sources = config.sources.model_dump(mode="json", include={"rights", "licenses"}, exclude_defaults=True)
        thresholds = config.thresholds.model_dump(mode="json", exclude_defaults=True)
        return {
            "pipeline": fingerprint(config),
            "thresholds": thresholds,
            "describe": config.describe,
            "name": config.name,
            **sources,
        }

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from pipeline.prepare import prepare
        from voxmill.progress import PrepareProgress

        config = self.config()
        with PrepareProgress(terminal) as progress:
            summary = prepare(self.paths, self.output, config, self._other_settings(config), progress)
        line = f"{summary.kept} of {summary.segments} new segments kept, {counted(len(summary.quarantined), 'file')} quarantined"
        return Outcome(line, {"segments": summary.segments, "kept": summary.kept, "kept_s": summary.kept_s})

    def _other_settings(self, config: PrepareConfig) -> bool:
        """Return True if the corpus is bound to other settings, or if a redo for these was interrupted."""
        from catalogs.corpus.commit import CorpusError, corpus_info
        from pipeline.runs.fingerprint import settle

        try:
            bound = corpus_info(self.output).get("fingerprint")
        except CorpusError:
            return False
        interrupted = (self.output / "redo.json").is_file()
        return bound is not None and (interrupted or bound != settle(config, self.output).fingerprint)

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`: the stages run over excerpts of the recordings."""
        from pipeline.forecast.forecast import forecast, list_recordings
        from pipeline.runs.fingerprint import settle

        made = self.many("recordings")
        if made and not made[0].output.exists():
            return Cost(notes=(f"unknown {before([made[0].name])}",))
        redo = self._other_settings(self.config())
        config = settle(self.config(), self.output, redo).config
        sample = self.settings.sample_minutes
        with terminal.printing("pipeline"):
            found = list_recordings(self.paths, self.output, config)
            result = forecast(found, self.output, config, sample and sample * 60, redo=redo)
        hours = result.wall_s.value / 3600
        return Cost(
            hours,
            hours * result.gpus,
            0.0,
            result.disk_bytes.value,
            (f"{duration_text(result.audio_s)} in, about {duration_text(result.kept_s.value)} kept",),
        )

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """See `Step`."""
        return [("corpus", self.output)]
