"""What GPUs can do at most, and the weights of a tower: for bounds on time and memory."""

from __future__ import annotations

from voxcpm.config import TowerConfig

#: GPU -> (memory bandwidth in bytes/s, dense bf16 FLOP/s), from the vendors' specifications.
GPUS: dict[str, tuple[float, float]] = {
    "RTX 4090": (1.008e12, 165e12),
    "RTX 4090 Laptop": (0.576e12, 79e12),
    "RTX 5090": (1.792e12, 209.5e12),
    "L40S": (0.864e12, 362e12),
    "A100 40GB": (1.555e12, 312e12),
    "A100 80GB": (2.04e12, 312e12),
    "H20": (4.0e12, 148e12),
    "H100 PCIe": (2.0e12, 756e12),
    "H100 NVL": (3.9e12, 835e12),
    "H100 SXM": (3.35e12, 989e12),
    "H200": (4.8e12, 989e12),
    "H200 NVL": (4.8e12, 835e12),
    "GH200 480GB": (4.0e12, 989e12),
    "B200": (8.0e12, 2250e12),
}
_ASSUMED = {"SXM", "80GB", "480GB"}
"""Words of the names above that a driver may omit."""


def find_gpu(name: str) -> tuple[float, float] | None:
    """Return (bytes/s, FLOP/s) of a GPU by its driver's name, e.g. "NVIDIA H100 80GB HBM3"; None if it is not listed.

    If several rows match, the one with the most words in common is used: "NVIDIA H100 PCIe" is not the SXM card.
    """
    words = set(name.replace("-", " ").upper().split())
    rows = [(known, set(known.upper().split())) for known in GPUS]
    fits = [(len(row & words), -len(row - words), known) for known, row in rows if row - _ASSUMED <= words]
    # An unlisted variant of a known card (Max-Q, MIG, Ti) has other figures: None is better than wrong figures.
    if not fits or words & {"MIG", "LAPTOP", "SUPER", "TI", "D", "DGX"} - set(max(fits)[2].upper().split()):
        return None
    return GPUS[max(fits)[2]]


def tower_parameters(tower: TowerConfig) -> int:
    """Weights of a tower's matrices (norms are negligible), without an embedding."""
    attention = tower.hidden * tower.head_dim * (2 * tower.heads + 2 * tower.kv_heads)
    return tower.layers * (attention + 3 * tower.hidden * tower.ffn)
