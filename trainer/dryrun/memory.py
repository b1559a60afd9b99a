"""What a run needs of memory and disk, from the config alone, and the arithmetic of a step. Bytes, decimal units.

weights, gradients, Adam's two moments and the moving average: 4 bytes each for what is trained; weights that are not (adapters
are) 4, or 2 where they are kept in bfloat16; divided by the ranks when sharded (FSDP2 holds one block and the root gathered
besides).

activations: a block of width h, n query and k key heads of width d and inner width f keeps for each of its positions
    4 h + 2 (n + k) d + 4 f   numbers
(both norms' inputs and outputs; q, k, v and the attended values; gate, its SiLU, up, their product). TSLM and RALM see every
position of a part's rows, LocEnc (P + 1) tokens for every patch, LocDiT (2 P + 3) for every patch that is learned. With
`recompute` a block keeps h numbers per position, and one block at a time the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.runtime.flops import _towers
from voxcpm.config import TowerConfig, VoxCPM2Config
from voxcpm.roofline import tower_parameters

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
        """All together; libraries and fragments come on top (a tenth to a fifth)."""
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


@dataclass(frozen=True)
class PartSize:
    """What goes through the model at once: positions, those of them that are patches, and those that are learned."""

    positions: float
    patches: float
    learnt: float


def numbers_of_position(tower: TowerConfig) -> int:
    """Numbers that one block keeps for the backward pass at one position (see the head of this file)."""
    heads = 2 * (tower.heads + tower.kv_heads) * tower.head_dim
    return 4 * tower.hidden + heads + 4 * tower.ffn


def activation_bytes(config: VoxCPM2Config, part: PartSize, half: bool, recompute: bool) -> float:
    """Bytes that one part keeps for the backward pass; half: arithmetic in bfloat16."""
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
    """The estimate for one rank of a run with `weights` weights, of which `trained` are trained.

    frozen_width: bytes of each of the `weights` if they are not trained, and adapters (`trained`) come on top; None: the
    weights are what is trained.
    """
    share = world if sharded else 1
    held = weights * FLOAT if frozen_width is None else weights * frozen_width + trained * FLOAT
    gathered = 0.0
    if sharded:
        blocks = [tower_parameters(tower) / max(1, tower.layers) for tower in _towers(config)]
        in_blocks = sum(tower_parameters(tower) for tower in _towers(config))
        # The root and two blocks, one in use and one on its way.
        gathered = (weights - in_blocks + 2 * max(blocks)) * (2 if half else FLOAT)
    return Memory(
        held / share + gathered,
        trained * FLOAT / share,
        2 * trained * FLOAT / share,
        trained * FLOAT / share if average else 0.0,
        activation_bytes(config, part, half, recompute),
    )


def checkpoint_bytes(weights: int, trained: int, width: int, average: bool) -> float:
    """Bytes of one checkpoint: the official folder with `width` bytes per weight, and what resuming needs."""
    return weights * width + trained * FLOAT * (4 if average else 3)
