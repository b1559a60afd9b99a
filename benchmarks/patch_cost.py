"""Lower bounds on time for any implementation: the bytes that a patch must read and the FLOPs that it needs.

A patch is 160 ms of audio. At batch 1 each pass reads every weight once, so time is bytes over bandwidth. At large batches
time is FLOPs over the peak. Activations, launch gaps and sampling are left out: these are bounds, not predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

from voxcpm.audiovae import AudioVAEConfig
from voxcpm.config import VoxCPM2Config
from voxcpm.kernels.roofline import tower_parameters
from voxcpm.model.flow import Solver


@dataclass(frozen=True)
class PatchCost:
    """The cost of one patch of one request at batch 1."""

    weight_bytes: float  #: backbone weights, each pass counted
    codec_bytes: float  #: the codec's decoder, float32
    cache_bytes: float  #: keys and values of earlier positions
    flops: float  #: multiply-adds counted as two
    seconds: float  #: duration of the patch's audio

    @property
    def bytes(self) -> float:
        """All bytes that must be read."""
        return self.weight_bytes + self.codec_bytes + self.cache_bytes

    def real_time_factor(self, bandwidth: float, peak: float) -> float:
        """The lowest real-time factor at batch 1 on a device with this bandwidth (bytes/s) and peak (FLOP/s)."""
        return max(self.bytes / bandwidth, self.flops / peak) / self.seconds

    def audio_seconds_per_second(self, peak: float) -> float:
        """The most audio per second at any batch on a device with this peak (FLOP/s)."""
        return self.seconds * peak / self.flops


def patch_cost(
    config: VoxCPM2Config,
    positions: int = 500,
    solver: Solver | None = None,
    guided: bool = True,
    bytes_per_weight: float = 2.0,
) -> PatchCost:
    """Return the cost of a patch after `positions` earlier positions. guided: whether guidance needs a second branch."""
    solver = solver or Solver()
    calls = solver.steps - solver.zero_steps
    patch, hidden = config.patch_size, config.lm_config.hidden_size
    tslm, ralm, locenc, locdit = (
        tower_parameters(tower) for tower in (config.tslm, config.ralm, config.locenc, config.locdit)
    )
    inner = config.dit_config.hidden_dim
    latent = config.scalar_quantization_latent_dim
    # enc_to_lm, fusion, FSQ in and out, lm_to_dit, res_to_dit, stop.
    projections = (
        config.encoder_config.hidden_dim * hidden
        + 2 * hidden * hidden
        + 2 * hidden * latent
        + 2 * hidden * inner
        + hidden**2
    )
    decoder, decoder_flops = _codec_decoder(config)
    once = tslm + ralm + locenc + projections
    tokens = (3 + 2 * patch) * (2 if guided else 1)
    flops = 2 * (tslm + ralm + projections + (patch + 1) * locenc + calls * tokens * locdit) + patch * decoder_flops
    per_position = 2 * bytes_per_weight * sum(t.layers * t.kv_heads * t.head_dim for t in (config.tslm, config.ralm))
    return PatchCost(
        weight_bytes=bytes_per_weight * (once + calls * locdit),
        codec_bytes=4.0 * decoder,
        cache_bytes=positions * per_position,
        flops=flops,
        seconds=config.out_patch_samples / config.out_sample_rate,
    )


def _codec_decoder(config: VoxCPM2Config) -> tuple[int, float]:
    """Return (weights, FLOPs per latent frame) of the codec's decoder, from its widths and rates."""
    codec = AudioVAEConfig.from_dict(config.audio_vae_config)
    width = codec.decoder_dim
    weights = codec.latent_dim * 7 + codec.latent_dim * width
    flops = 2.0 * weights
    samples = 1
    for rate in codec.decoder_rates:
        upsample = width * (width // 2) * 2 * rate
        flops += 2.0 * samples * upsample  # every input frame is multiplied by every tap once
        samples *= rate
        width //= 2
        unit = 3 * (7 * (1 if codec.depthwise else width) * width + width * width)
        weights += upsample + unit
        flops += 2.0 * samples * unit
    return weights + width * 7, flops + 2.0 * samples * width * 7
