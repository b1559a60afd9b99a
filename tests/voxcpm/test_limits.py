"""The floors are those of the published figures' arithmetic, which reads LocDiT's time embedding again in every solver step.

It need not be: the tokens of the time grid are the same for every patch. That is 2 % of LocDiT, and the bound here.
"""

from __future__ import annotations

import pytest

from benchmarks.patch_cost import patch_cost
from voxcpm.kernels.roofline import GPUS, find_gpu
from voxcpm.model.flow import Solver
from voxcpm.presets import published_config


def test_published_model_reads_and_computes_what_is_known() -> None:
    cost = patch_cost(published_config(), positions=0)
    assert cost.bytes == pytest.approx(7.85e9, rel=0.02)
    assert cost.flops == pytest.approx(92.3e9, rel=0.02)
    assert cost.seconds == pytest.approx(0.16)


def test_floors_on_known_devices() -> None:
    cost = patch_cost(published_config(), positions=0)
    for name, factor, most in (("RTX 4090", 0.0487, 286), ("H100 SXM", 0.0147, 1714)):
        bandwidth, peak = GPUS[name]
        assert cost.real_time_factor(bandwidth, peak) == pytest.approx(factor, rel=0.02)
        assert cost.audio_seconds_per_second(peak) == pytest.approx(most, rel=0.02)


def test_fewer_steps_and_no_guidance_cost_less() -> None:
    config = published_config()
    full = patch_cost(config)
    assert patch_cost(config, solver=Solver(steps=6)).bytes < full.bytes
    unguided = patch_cost(config, guided=False)
    assert unguided.flops < 0.6 * full.flops and unguided.bytes == full.bytes
    assert patch_cost(config, bytes_per_weight=1.0).weight_bytes == full.weight_bytes / 2
    assert patch_cost(config, positions=1000).cache_bytes == 2 * full.cache_bytes


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GH200 480GB", "GH200 480GB"),
    ],
)
def test_a_driver_s_name_finds_its_row(name: str, row: str) -> None:
    assert find_gpu(name) == GPUS[row]


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 5090 Laptop GPU",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 D",
        "Tesla T4",
    ],
)
def test_a_form_that_is_not_listed_is_not_taken_for_another(name: str) -> None:
    assert find_gpu(name) is None
