"""Estimates of the memory and disk that a run needs, from the config alone. Bytes, decimal units.

Weights, gradients, Adam's two moments and the moving average take 4 bytes each per trained weight. Frozen weights (beside
adapters) take 4 bytes, or 2 if they are kept in bfloat16. All of it is divided by the number of ranks if the model is sharded;
FSDP2 additionally holds the root and two blocks gathered.

Activations: a block of width h, with n query and k key heads of width d and inner width f, keeps per position
    4 h + 2 (n + k) d + 4 f   numbers
(both norms' inputs and outputs; q, k, v and the attended values; gate, its SiLU, up, their product). TSLM and RALM process every
position of a part's rows, LocEnc (P + 1) tokens per patch, LocDiT (2 P + 3) tokens per target patch. With `recompute` a block
keeps h numbers per position, and only one block at a time keeps the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.runtime.flops import _towers
from voxcpm.config import TowerConfig, VoxCPM2Config
from voxcpm.kernels.roofline import tower_parameters

FLOAT = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    activations: float

    @property
    def total(self) -> float:
        """The sum of all parts. Libraries and fragmentation add a tenth to a fifth."""
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


@dataclass(frozen=True)
class PartSize:
    """The size of one forward pass: positions, those of them that are patches, and those that are target patches."""

    positions: float
    patches: float
    learnt: float


def numbers_of_position(tower: TowerConfig) -> int:
    """Return how many numbers one block keeps per position for the backward pass (see the module's docstring)."""
    heads = 2 * (tower.heads + tower.kv_heads) * tower.head_dim
    return 4 * tower.hidden + heads + 4 * tower.ffn


def activation_bytes(config: VoxCPM2Config, part: PartSize, half: bool, recompute: bool) -> float:
    """Return the bytes that one part keeps for the backward pass. half: arithmetic in bfloat16."""
    seen = (
        (config.tslm, part.positions),
        (config.ralm, part.positions),
        (config.locenc, part.patches * (config.patch_size + 1)),
        (config.locdit, part.learnt * (2 * config.patch_size + 3)),
    )
    numbers = 0.0
    for tower, positions in seen:
        if recompute:
            numbers += positions * tower.layers * tower.hidden
        else:
            numbers += positions * tower.layers * numbers_of_position(tower)
    if recompute:
        numbers += max(positions * numbers_of_position(tower) for tower, positions in seen)
    return numbers * (2 if half else FLOAT)


def memory_needed(
    weights: int,
    trained: int,
    config: VoxCPM2Config,
    part: PartSize,
    world: int = 1,
    sharded: bool = False,
    average: bool = False,
    half: bool = False,
    recompute: bool = False,
    frozen_width: int | None = None,
) -> Memory:
    """Return the estimate for one rank of a run with `weights` weights, of which `trained` are trained.

    frozen_width: bytes per weight if the `weights` are frozen and `trained` counts additional adapter weights; None: the weights
    themselves are trained.
    """
    share = world if sharded else 1
    held = weights * FLOAT if frozen_width is None else weights * frozen_width + trained * FLOAT
    gathered = 0.0
    if sharded:
        blocks = [tower_parameters(tower) / max(1, tower.layers) for tower in _towers(config)]
        in_blocks = sum(tower_parameters(tower) for tower in _towers(config))
        # The root and two blocks: one in use and one being gathered.
        gathered = (weights - in_blocks + 2 * max(blocks)) * (2 if half else FLOAT)
    return Memory(
        held / share + gathered,
        trained * FLOAT / share,
        2 * trained * FLOAT / share,
        trained * FLOAT / share if average else 0.0,
        activation_bytes(config, part, half, recompute),
    )


def checkpoint_bytes(weights: int, trained: int, width: int, average: bool) -> float:
    """Return the bytes of one checkpoint: the official folder with `width` bytes per weight, and the resume state."""
    return weights * width + trained * FLOAT * (4 if average else 3)
