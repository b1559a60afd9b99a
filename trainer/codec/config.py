"""Settings of `voxmill train-codec`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainer.config import FrozenSettings, load_recipe


class CodecConfig(FrozenSettings):
    """A codec from scratch or from another one, on the audio of a corpus."""

    corpus: str | list[str]
    """A corpus folder, or several."""
    output: str
    """A folder for config.json, audiovae.safetensors, train-codec.yaml and metrics.jsonl; give it as model.codec."""
    start: str | None = None
    """A checkpoint folder whose codec is trained on; None: from scratch with `size` or `config`."""
    size: Literal["toy", "small", "2b"] = "toy"
    """Widths from scratch, those of the models of the same name."""
    config: dict[str, Any] | None = None
    """An audio_vae_config instead of a size."""
    where: str = "true"
    """SQL condition over the catalog's `segments`, besides `kept`."""
    clips: int = Field(1000, ge=4)
    """Clips that are held in memory at most (64 kB a second)."""
    steps: int = Field(200, gt=0)
    batch: int = Field(4, gt=0)
    crop_s: float = Field(0.96, gt=0.04)
    """Seconds of each crop; rounded to whole latent frames."""
    lr: float = Field(1e-3, gt=0)
    waveform_weight: float = Field(5.0, ge=0)
    kl_weight: float = Field(1e-3, ge=0)
    seed: int = Field(1, ge=0)
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: torch's choice."""

    @property
    def corpora(self) -> list[str]:
        """The corpus folders."""
        return [self.corpus] if isinstance(self.corpus, str) else self.corpus


def load_codec_config(source: str | Path, overrides: Iterable[str] = ()) -> CodecConfig:
    """Settings from a YAML file or the name of a codec recipe, with `a.b=c` overrides on top; raises SettingsError."""
    return load_recipe(CodecConfig, "trainer.codec", source, overrides)
