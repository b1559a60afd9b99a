"""The codec's hyperparameters, with the names in `audio_vae_config` of a checkpoint's config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

RESIDUAL_KERNEL = 7
RESIDUAL_DILATIONS = (1, 3, 9)
CONDITION_TYPES = ("scale_bias", "scale_bias_init", "add", "concat")


@dataclass(frozen=True)
class AudioVAEConfig:
    """Widths, strides and options; the defaults are those of the published VoxCPM2 codec.

    `encoder_dim` doubles with every encoder stage, `decoder_dim` halves with every decoder stage. `sr_bin_boundaries`
    (Hz) splits output sample rates into buckets, each with a separate condition; None disables the condition.
    """

    encoder_dim: int = 128
    encoder_rates: tuple[int, ...] = (2, 5, 8, 8)
    latent_dim: int = 64
    decoder_dim: int = 2048
    decoder_rates: tuple[int, ...] = (8, 6, 5, 2, 2, 2)
    depthwise: bool = True
    sample_rate: int = 16000
    out_sample_rate: int = 48000
    use_noise_block: bool = False
    sr_bin_boundaries: tuple[int, ...] | None = (20000, 30000, 40000)
    cond_type: str = "scale_bias"
    cond_dim: int = 128
    cond_out_layer: bool = False
    even_padding: bool = (
        False  #: pad strided convolutions by 2 ceil(stride / 2), as in VoxCPM 0.5B and 1.5, not by stride
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder_rates", tuple(self.encoder_rates))
        object.__setattr__(self, "decoder_rates", tuple(self.decoder_rates))
        if self.sr_bin_boundaries is not None:
            object.__setattr__(self, "sr_bin_boundaries", tuple(self.sr_bin_boundaries))
            if list(self.sr_bin_boundaries) != sorted(set(self.sr_bin_boundaries)):
                raise ValueError(f"audio_vae_config.sr_bin_boundaries must rise: {list(self.sr_bin_boundaries)}")
        if min(min(self.encoder_rates, default=0), min(self.decoder_rates, default=0)) < 1:
            raise ValueError(
                "audio_vae_config: encoder_rates and decoder_rates must be non-empty lists of positive ints"
            )
        if self.even_padding and 1 in self.encoder_rates:
            raise ValueError("audio_vae_config: with even_padding, encoder_rates must be at least 2")
        if self.decoder_dim % 2 ** len(self.decoder_rates):
            raise ValueError(
                f"audio_vae_config.decoder_dim {self.decoder_dim} must divide by 2^{len(self.decoder_rates)}, "
                "because every decoder stage halves it"
            )
        if self.cond_type not in CONDITION_TYPES:
            raise ValueError(f"audio_vae_config.cond_type {self.cond_type!r} is none of {', '.join(CONDITION_TYPES)}")
        if self.sr_bin_boundaries is not None and self.cond_type == "concat" and not self.cond_out_layer:
            raise ValueError("audio_vae_config: cond_type 'concat' widens the signal, so it needs cond_out_layer: true")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AudioVAEConfig:
        """Read a parsed `audio_vae_config`; absent keys take the defaults, unknown keys are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (lists, not tuples), which `from_dict` reads back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def stride_padding(self, stride: int) -> int:
        """Zeros to the left of a strided convolution of the encoder: `stride`, or with even padding the next even number."""
        return stride + stride % 2 if self.even_padding else stride

    @property
    def hop_length(self) -> int:
        """Input samples (at `sample_rate`) per latent frame: 640 by default."""
        return math.prod(self.encoder_rates)

    @property
    def decode_hop(self) -> int:
        """Output samples (at `out_sample_rate`) per latent frame: 1920 by default."""
        return math.prod(self.decoder_rates)
