"""Settings of `voxmill speak --table`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from catalogs.settings import load_settings
from pipeline.config import EngineConfig
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.runs.fingerprint import RUNTIME_KEYS
from pipeline.synthesis.generate_speech import GenerateSpeechConfig

SPEAK = "pipeline.synthesis.table.speak_rows:SpeakRows"
AudioFormat = Literal["flac", "wav", "mp3", "ogg", "opus"]
_NOT_OF_THE_AUDIO = RUNTIME_KEYS | {"model", "lora", "batch", "reject_unended", "format", "attempts"}


class SpeakRowsConfig(GenerateSpeechConfig):
    """Settings of the stage that speaks rows."""

    format: AudioFormat = "flac"
    """Format of the files."""
    attempts: int = Field(3, ge=1)
    """Generations of a row, each with the next seed, until the model ends it by itself."""


class SpeakTableSettings(BaseModel):
    """All settings of `voxmill speak --table`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(0, ge=0)
    """Seed of the run: rows that state no seed get one that depends on it and on the row."""
    retry: int = Field(3, ge=1)
    """Generations of a row, each with the next seed, until the model ends it by itself. The last one is kept in any case."""
    format: AudioFormat = "flac"
    """Format of the audio files."""
    unit: int = Field(64, ge=1)
    """Rows that are committed together. An interrupted run repeats the rows that it had not committed."""
    generate: GenerateSpeechConfig = Field(default_factory=lambda: GenerateSpeechConfig())
    """`model` and `lora` are set by the command. `batch`: rows that are spoken at once."""
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())
    """The one group is named generate_speech: `engine.gpus.generate_speech=1` gives each worker a GPU."""

    def groups(self) -> list[StageGroup]:
        """Return the one group of stages, sized by the engine's settings."""
        config = SpeakRowsConfig(**self.generate.model_dump(), format=self.format, attempts=self.retry)
        return [
            StageGroup(
                stages=(StageSpec(SPEAK, config),),
                actors=self.engine.actors.get("generate_speech", 0),
                cpus=self.engine.cpus_per_actor,
                gpus=self.engine.gpus.get("generate_speech", 0.0),
                timeout_s=self.engine.timeout_s,
            )
        ]

    def of_the_audio(self) -> dict[str, object]:
        """Return the settings that determine the audio and its files, by name: a folder keeps them."""
        own = {
            key: value for key, value in self.generate.model_dump(mode="json").items() if key not in _NOT_OF_THE_AUDIO
        }
        return {"seed": self.seed, "retry": self.retry, "format": self.format, "unit": self.unit} | own

    def with_model(self, folder: Path) -> SpeakTableSettings:
        """Return the settings with the checkpoint's folder."""
        return self.model_copy(update={"generate": self.generate.model_copy(update={"model": str(folder.absolute())})})


def load_speak_settings(path: str | Path | None = None, overrides: Iterable[str] = ()) -> SpeakTableSettings:
    """Return the settings of a YAML file with `--set` overrides. Raises SettingsError."""
    return load_settings(SpeakTableSettings, path, list(overrides))
