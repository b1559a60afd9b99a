"""The codec of VoxCPM 0.5B and 1.5 by its official names and defaults. Nothing of ours uses them: see voxcpm.official."""

from __future__ import annotations

from dataclasses import dataclass

from voxcpm import audiovae


@dataclass(frozen=True)
class AudioVAEConfig(audiovae.AudioVAEConfig):
    """Sizes of the codec of VoxCPM 0.5B and 1.5, which decodes to the rate that it encodes; the defaults are those of 0.5B."""

    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (8, 8, 5, 2)
    sr_bin_boundaries: tuple[int, ...] | None = None
    even_padding: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "out_sample_rate", self.sample_rate)
        super().__post_init__()


class AudioVAE(audiovae.AudioVAE):
    """The codec of VoxCPM 0.5B and 1.5."""

    def __init__(self, config: audiovae.AudioVAEConfig | None = None) -> None:
        super().__init__(config or AudioVAEConfig())
