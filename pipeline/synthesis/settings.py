"""Settings of `voxmill decouple`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from catalogs.candidates import HELD_OUT_SHARE
from catalogs.settings import load_settings
from pipeline.config import EngineConfig
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.stage import StageConfig
from pipeline.stages import stage_class
from pipeline.synthesis.bounds import Bounds
from pipeline.synthesis.generate_speech import GenerateSpeechConfig
from pipeline.voice.encoders import EncoderName

GENERATE = "pipeline.synthesis.generate_speech:GenerateSpeech"
COMPARE = "pipeline.synthesis.compare_speech:CompareSpeech"
GROUPS: tuple[tuple[str, ...], ...] = (
    (GENERATE,),
    ("detect_speech", "transcribe"),
    ("embed_speaker", "score_quality", "classify_emotion", "fingerprint_audio", COMPARE, "cut_clips"),
)
"""Stages that a made clip goes through: those of `prepare` measure it as they measured its source."""


class PairingConfig(BaseModel):
    """Which segments are cloned, and onto which texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    where: str = "true"
    """SQL condition on the segments that are cloned."""
    min_expressive: float = Field(0.5, ge=0, le=1)
    """Least `expressive_p` of a segment that is cloned. A segment without this measure is not excluded."""
    min_s: float = Field(1.0, gt=0)
    """Shortest segment that is cloned, in seconds."""
    max_s: float = Field(20.0, gt=0)
    """Longest segment that is cloned, in seconds."""
    per_segment: int = Field(1, ge=1)
    """Texts that each segment is cloned onto."""
    per_text: int = Field(3, ge=1)
    """Most samples with the same text."""
    per_voice: float = Field(0.05, gt=0, le=1)
    """Largest share of one voice in all samples; it is never below `least_per_voice` samples."""
    least_per_voice: int = Field(20, ge=1)
    """Samples of a voice that `per_voice` allows in any case."""
    per_style: float = Field(0.2, gt=0, le=1)
    """Largest share of one style (emotion, rate, pitch and energy as described) in all samples."""
    least_per_style: int = Field(20, ge=1)
    """Samples of a style that `per_style` allows in any case."""
    length: float = Field(1.5, ge=1)
    """Largest factor between the speaking times of a segment's text and of the text that it is cloned onto."""
    pool: int = Field(20_000, ge=1)
    """Texts of a language that are considered, drawn by a hash of their ids."""
    tries: int = Field(64, ge=1)
    """Texts of fitting length that are compared with each segment."""
    held_out: float = Field(HELD_OUT_SHARE, ge=0, lt=1)
    """Share of the segments, by the trainer's rule, that are neither cloned nor read: at least `validation.share`."""
    own_timbre: bool = False
    """Use the segment itself as the reference of the sample if no reference was mined. Its style is then in the reference."""
    embedding_model: Path | None = None
    """Folder of a sentence-embedding model (model.onnx, tokenizer.json) that judges the distance of texts. null: by words."""


class DecoupleSettings(BaseModel):
    """All settings of `voxmill decouple`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 0
    """Seed of the choice of texts and of the noise."""
    attempts: int = Field(3, ge=1)
    """Generations of a pair, each with another seed, until one is accepted."""
    unit: int = Field(32, ge=1)
    """Pairs that are committed together."""
    style: bool = True
    """Give the model the description of the style beside the reference."""
    speaker_encoder: EncoderName = "ge2e"
    """Encoder of the voiceprints."""
    recognizer: str = "whisper-base"
    """Name of the weights that recognize the text."""
    beam: int = Field(1, ge=1)
    """Hypotheses of the recognizer's beam search. 5 is twice as slow and about a point of error rate better."""
    pairing: PairingConfig = Field(default_factory=lambda: PairingConfig())
    bounds: Bounds = Field(default_factory=lambda: Bounds())
    generate: GenerateSpeechConfig = Field(default_factory=lambda: GenerateSpeechConfig())
    """`model` is set by the command."""
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())
    """Groups are named generate_speech, detect_speech and embed_speaker."""

    def stage_config(self, name: str) -> StageConfig:
        """Return the settings of a stage."""
        if name == GENERATE:
            return self.generate.model_copy(update={"reject_unended": True})
        given: dict[str, object] = {
            "transcribe": {"model": self.recognizer, "beam_size": self.beam, "second_pass": "off"},
            "embed_speaker": {"encoder": self.speaker_encoder},
            COMPARE: {"encoder": self.speaker_encoder, "bounds": self.bounds},
        }.get(name, {})  # type: ignore[assignment]
        kind: type[StageConfig] = stage_class(name).config_type
        return kind.model_validate(given)

    def groups(self) -> list[StageGroup]:
        """Return the stages by group, sized by the engine's settings."""
        groups = []
        for names in GROUPS:
            first = names[0].rpartition(":")[0].rpartition(".")[2] or names[0]
            groups.append(
                StageGroup(
                    stages=tuple(StageSpec(name, self.stage_config(name)) for name in names),
                    actors=self.engine.actors.get(first, 0),
                    cpus=self.engine.cpus_per_actor,
                    gpus=self.engine.gpus.get(first, 0.0),
                    timeout_s=self.engine.timeout_s,
                )
            )
        return groups

    def weights(self) -> list[str]:
        """Names of the weights that the stages use, each once."""
        specs = [spec for group in self.groups() for spec in group.stages]
        return list(dict.fromkeys(name for spec in specs for name in spec.build().weights()))


def load_decouple_settings(path: str | Path | None = None, overrides: Iterable[str] = ()) -> DecoupleSettings:
    """Return the settings of a YAML file with `--set` overrides. Raises SettingsError."""
    return load_settings(DecoupleSettings, path, list(overrides))
