"""Settings of `voxmill speak --table`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from catalogs.settings import load_settings
from pipeline.config import EngineConfig
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.runs.fingerprint import RUNTIME_KEYS
from pipeline.runtime.devices import count_gpus
from pipeline.synthesis.generate_speech import GenerateSpeechConfig

SPEAK = "pipeline.synthesis.table.speak_rows:SpeakRows"
AudioFormat = Literal["flac", "wav", "mp3", "ogg", "opus"]
_GROUP = "generate_speech"
_MEMORY = 0.8
"""Share of the memory that workers may take."""
_PER_WEIGHT = 2.5
"""Memory of a worker per byte of its weights: they may be stored with half of the bits, and loading takes a copy of some."""
_SIGNING = ("sign_key", "sign_cert", "sign_training", "sign_tsa")
_NOT_OF_THE_AUDIO = RUNTIME_KEYS | {
    "model",
    "lora",
    "batch",
    "reject_unended",
    "format",
    "attempts",
    "mark",
    "watermark",
}


class SpeakRowsConfig(GenerateSpeechConfig):
    """Settings of the stage that speaks rows."""

    format: AudioFormat = "flac"
    """Format of the files."""
    attempts: int = Field(3, ge=1)
    """Generations of a row, each with the next seed, until the model ends it by itself."""
    mark: bool = True
    """Whether the files state that they are synthetic."""
    watermark: bool = True
    """Whether the sound has a watermark with the public key."""
    sign_key: str | None = None
    """PEM file of the private key that signs the files, on every machine that has workers."""
    sign_cert: str | None = None
    """PEM file of its certificates."""
    sign_training: Literal["allowed", "notAllowed", "constrained"] = "notAllowed"
    """What signed files say of training on them."""
    sign_tsa: str | None = None
    """URL of a time stamping service that is asked for each file."""


class SpeakTableSettings(BaseModel):
    """All settings of `voxmill speak --table`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(0, ge=0)
    """Seed of the run: rows that state no seed get one that depends on it and on the row."""
    retry: int = Field(3, ge=1)
    """Generations of a row, each with the next seed, until the model ends it by itself. The last one is kept in any case."""
    format: AudioFormat = "flac"
    """Format of the audio files."""
    mark: bool = True
    """Whether the files state that they are synthetic (docs/provenance.md)."""
    watermark: bool = True
    """Whether the sound has a watermark with the public key (docs/watermark.md)."""
    sign_key: str | None = None
    """PEM file of a private key that signs the files (docs/provenance.md). Every worker reads it; a signed file has other bytes in
    each run."""
    sign_cert: str | None = None
    """PEM file of the certificate of the key and its chain."""
    sign_training: Literal["allowed", "notAllowed", "constrained"] = "notAllowed"
    """What signed files say of training on them."""
    sign_tsa: str | None = None
    """URL of a time stamping service that is asked for each file. Default: none is asked."""
    unit: int = Field(64, ge=1)
    """Rows that are committed together. An interrupted run repeats the rows that it had not committed."""
    generate: GenerateSpeechConfig = Field(default_factory=lambda: GenerateSpeechConfig())
    """`model` and `lora` are set by the command. `batch`: rows that are spoken at once."""
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())
    """The one group is named generate_speech. Default: a worker per GPU of this machine, otherwise as many as fit into the memory.
    On a cluster, `engine.gpus.generate_speech=1` gives each worker a GPU."""

    def groups(self) -> list[StageGroup]:
        """Return the one group of stages, sized by the engine's settings."""
        config = SpeakRowsConfig(
            **self.generate.model_dump(),
            format=self.format,
            attempts=self.retry,
            mark=self.mark,
            watermark=self.watermark,
            **self.signing(),
        )
        return [
            StageGroup(
                stages=(StageSpec(SPEAK, config),),
                actors=self.engine.actors.get(_GROUP, 0),
                cpus=self.engine.cpus_per_actor,
                gpus=self.engine.gpus.get(_GROUP, 0.0),
                timeout_s=self.engine.timeout_s,
            )
        ]

    def signing(self) -> dict[str, Any]:
        """Return the settings of signing by name, with absolute paths: workers have another working directory."""
        found = {name: getattr(self, name) for name in _SIGNING}
        paths = {name: found[name] for name in ("sign_key", "sign_cert") if found[name] is not None}
        return found | {name: str(Path(path).expanduser().absolute()) for name, path in paths.items()}

    def of_the_audio(self) -> dict[str, object]:
        """Return the settings that determine the audio and its files, by name: a folder keeps them."""
        own = {
            key: value for key, value in self.generate.model_dump(mode="json").items() if key not in _NOT_OF_THE_AUDIO
        }
        # Folders that were begun before files had marks are continued with the default.
        marks: dict[str, object] = {} if self.mark else {"mark": False}
        # The watermark changes the samples: folders that were begun before it are continued with --no-watermark.
        marks |= {"watermark": True} if self.watermark else {}
        marks |= {"signed": self.sign_training} if self.sign_key else {}
        return {"seed": self.seed, "retry": self.retry, "format": self.format, "unit": self.unit} | marks | own

    def with_model(self, folder: Path) -> SpeakTableSettings:
        """Return the settings with the checkpoint's folder."""
        return self.model_copy(update={"generate": self.generate.model_copy(update={"model": str(folder.absolute())})})

    def fitted(self, folder: Path) -> SpeakTableSettings:
        """Return the settings with the workers that this machine has room for, if none are given: one per GPU, otherwise as
        many as their models fit into the memory. A cluster that is joined is not looked at.
        """
        engine = self.engine
        if engine.executor != "ray" or engine.address or _GROUP in engine.actors or _GROUP in engine.gpus:
            return self
        if self.generate.device != "cpu" and count_gpus():
            return self._with_engine({"gpus": {_GROUP: 1.0}})
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        room = int(_MEMORY * physical_memory() / max(_PER_WEIGHT * weights, 1.0))
        return self if room >= (os.cpu_count() or 1) else self._with_engine({"actors": {_GROUP: max(room, 1)}})

    def _with_engine(self, changes: dict[str, object]) -> SpeakTableSettings:
        return self.model_copy(update={"engine": self.engine.model_copy(update=changes)})


def physical_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load_speak_settings(path: str | Path | None = None, overrides: Iterable[str] = ()) -> SpeakTableSettings:
    """Return the settings of a YAML file with `--set` overrides. Raises SettingsError."""
    return load_settings(SpeakTableSettings, path, list(overrides))
