"""Settings of `voxmill train-codec`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainer.codec.losses import FLOOR_DB
from trainer.config import FolderName, FrozenSettings, load_recipe
from trainer.optim import scheduled


class AdversarySettings(FrozenSettings):
    """Discriminators of waveform periods and of spectrogram bands, which learn to tell speech from the codec's output."""

    width: int = Field(32, gt=0)
    """Channels of their first layers: 32 as published; fewer need less compute."""
    start: int = Field(0, ge=0)
    """Number of steps before the discriminators start: they learn nothing from the hum that an untrained codec outputs."""
    lr: float = Field(1e-4, gt=0)
    weight: float = Field(0.07, ge=0)
    """Weight of their adversarial loss, relative to the mel distance at 1 (published: 1 to 15)."""
    features: float = Field(0.13, ge=0)
    """Weight of the distance of their activations, relative to the mel distance at 1 (published: 2 to 15)."""


class CodecConfig(FrozenSettings):
    """Train a codec from scratch or from another one, on the audio of a corpus."""

    corpus: FolderName | list[FolderName]
    """A corpus folder, or several."""
    output: FolderName
    """A folder for config.json, audiovae.safetensors, train-codec.yaml and metrics.jsonl. Pass it to training as model.codec."""
    start: str | None = None
    """A checkpoint folder whose codec is trained further; None: from scratch with `size` or `config`."""
    size: Literal["toy", "small", "2b"] = "toy"
    """Widths of a codec from scratch: those of the models of the same name."""
    config: dict[str, Any] | None = None
    """An audio_vae_config instead of a size."""
    where: str = "true"
    """SQL condition over the catalog's `segments`, in addition to `kept`."""
    clips: int | None = Field(None, ge=4)
    """Number of clips to use, chosen by a hash of their ids; None: all."""
    memory_gb: float = Field(4.0, gt=0)
    """GB of audio that stay in memory (64 to 192 kB per second): the clips drawn last. Other clips are read again when drawn."""
    steps: int = Field(200, gt=0)
    batch: int = Field(4, gt=0)
    crop_s: float = Field(0.96, gt=0.04)
    """Seconds of each crop; rounded to whole latent frames."""
    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant, or cosine down to a fiftieth."""
    decoder_only: bool = False
    """Train the decoder only, so that existing latents, and models trained on them, remain valid. Needs `start`."""
    normalise: bool = False
    """At the end give every latent channel mean 0 and variance 1 over the clips: a flow that starts from unit noise learns this
    best. The weights compensate the change, so that the output sounds the same."""
    held_out: int | None = Field(None, ge=0)
    """Number of clips held out to measure the codec; None: a tenth. 0: it is measured on training clips."""
    save_every: int | None = Field(None, gt=0)
    """Steps between saves of the codec and of the state that a killed run resumes from. None: save only at the end and on
    SIGTERM; a killed run then starts from the beginning."""
    measure_every: int | None = Field(None, gt=0)
    """Steps between measurements of the held-out clips (mel distance at the output rate and at 16 kHz, STOI, PESQ). The last step
    is always measured."""
    narrowed: float = Field(0.0, ge=0, le=1)
    """Share of crops whose target is cut to a lower bandwidth. The decoder gets that bandwidth and so learns all of its rates."""
    adversary: AdversarySettings | None = None
    """None: spectral and waveform losses only, which leave some buzz."""
    waveform_weight: float = Field(5.0, ge=0)
    kl_weight: float = Field(1e-3, ge=0)
    floor_db: float = Field(-80.0, le=0)
    """Level in dB relative to a full-scale sine. The spectral loss ignores differences below it."""
    seed: int = Field(1, ge=0)
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: torch's choice."""

    @property
    def corpora(self) -> list[str]:
        """The corpus folders."""
        return [self.corpus] if isinstance(self.corpus, str) else self.corpus


def load_codec_config(source: str | Path, overrides: Iterable[str] = ()) -> CodecConfig:
    """Load the settings from a YAML file or the name of a codec recipe, with `a.b=c` overrides on top. Raises SettingsError."""
    return load_recipe(CodecConfig, "trainer.codec", source, overrides)


_LAST_RATE = 0.02
"""Share of the learning rate that a cosine schedule ends with."""


@dataclass(frozen=True)
class CodecFit:
    """The settings of the fit; see CodecConfig."""

    steps: int = 60
    batch: int = 4
    crop_s: float = 0.96
    lr: float = 1e-3
    waveform_weight: float = 5.0
    kl_weight: float = 1e-3
    warmup: int = 0
    schedule: str = "constant"
    decoder_only: bool = False
    floor_db: float = FLOOR_DB
    narrowed: float = 0.0
    adversary: AdversarySettings | None = None

    def rate(self, step: int) -> float:
        """Return the share of the learning rate at step 0..steps-1."""
        return scheduled(1.0, self.schedule, step, self.steps, self.warmup, last=_LAST_RATE)
