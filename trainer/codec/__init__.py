"""Training of AudioVAE, the codec that turns speech into the latents that the model generates.

Recipes: `toy` (spectra, waveform, KL; takes a minute, for models from scratch) and `v2` (the published widths, with
discriminators).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.codec.config import CodecConfig, load_codec_config
    from trainer.codec.train import CodecResult, train_codec

_HOMES = {
    "CodecConfig": "trainer.codec.config",
    "load_codec_config": "trainer.codec.config",
    "CodecResult": "trainer.codec.train",
    "train_codec": "trainer.codec.train",
}

__all__ = ["CodecConfig", "CodecResult", "load_codec_config", "train_codec"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer.codec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
