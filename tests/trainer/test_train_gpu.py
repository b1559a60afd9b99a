"""Training on a CUDA device: the same losses and gradients as on the CPU, packed or not, compiled or not. Skipped without one.

Made to run on a machine that has torch and pytest only: nothing of a corpus or of ../shared is asked for.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer.config import TrainConfig
from trainer.runtime.parallelize import parallelize
from trainer.runtime.ranks import Ranks
from voxcpm.config import VoxCPM2Config
from voxcpm.model.attention import CAUSAL, Reach, attend
from voxcpm.model.backbone import VoxCPM2
from voxcpm.presets import config_dict
from voxcpm.sequence.training_batch import TrainingNoise
from voxcpm.sequence.training_rows import Sample, lay_out_sample, pack_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]

SHAPE = VoxCPM2Config.from_dict(config_dict("small", 512))
LENGTHS = (37, 5, 20, 61)


def samples() -> list[Sample]:
    dice = torch.Generator().manual_seed(3)

    def clip(patches: int) -> torch.Tensor:
        return torch.randn(patches, SHAPE.patch_size, SHAPE.feat_dim, generator=dice)

    return [
        lay_out_sample(list(range(200, 203 + n % 7)), clip(n), clip(9) if i % 2 else None)
        for i, n in enumerate(LENGTHS)
    ]


def packed() -> tuple[Any, TrainingNoise]:
    batch = pack_rows([samples()], 250)
    assert batch.document_ids is not None
    seeds = {(0, i): 10 + i for i in range(len(LENGTHS))}
    return batch, TrainingNoise.for_documents(batch.document_ids, seeds, (SHAPE.patch_size, SHAPE.feat_dim))


def losses_and_gradients(device: str, half: bool, **switches: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    model = VoxCPM2.from_config(SHAPE, torch.Generator().manual_seed(1)).train().to(device)
    compute = {"dtype": "bfloat16" if half else "float32", **switches}
    config = TrainConfig.model_validate(
        {"corpus": "none", "output": "none", "phases": {"all": {"steps": 1}}, "compute": compute}
    )
    parallel = parallelize(model, config, Ranks(), torch.device(device))
    batch, noise = packed()
    with torch.autocast(device, torch.bfloat16, enabled=half):
        losses = parallel.losses(batch.to(device), noise.to(device), 0.0)
    (losses.diffusion + losses.stop).backward()
    found = {name: p.grad.float().cpu() for name, p in model.named_parameters() if p.grad is not None}
    return [float(losses.diffusion), float(losses.stop)], found


def alike(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The cosine of all gradients as one vector."""
    assert mine.keys() == theirs.keys()
    a = torch.cat([mine[name].flatten() for name in theirs])
    b = torch.cat([theirs[name].flatten() for name in theirs])
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.fixture(scope="module")
def on_cpu() -> tuple[list[float], dict[str, torch.Tensor]]:
    return losses_and_gradients("cpu", half=False)


def test_float32_losses_and_gradients_are_the_cpus(on_cpu: tuple[list[float], dict[str, torch.Tensor]]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    mine = losses_and_gradients("cuda", half=False)
    assert mine[0] == pytest.approx(on_cpu[0], rel=1e-3)  # a value may tip over a border of the FSQ
    assert alike(mine[1], on_cpu[1]) > 0.9999


@pytest.mark.parametrize("switches", [{}, {"recompute": True}, {"compile": True}, {"compile": True, "recompute": True}])
def test_bfloat16_with_flash_attention_is_near(
    on_cpu: tuple[list[float], dict[str, torch.Tensor]], switches: dict[str, bool]
) -> None:
    mine = losses_and_gradients("cuda", half=True, **switches)
    assert mine[0] == pytest.approx(on_cpu[0], rel=2e-2)
    assert alike(mine[1], on_cpu[1]) > 0.98


def test_flash_attention_over_documents_is_attention_of_each_alone() -> None:
    torch.manual_seed(0)
    lengths = [300, 17, 1, 128, 66]
    total = sum(lengths)
    q = torch.randn(1, 16, total, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = (torch.randn(1, 2, total, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    weight = torch.randn(1, 16, total, 128, device="cuda", dtype=torch.bfloat16)
    offsets = torch.tensor([0, *lengths]).cumsum(0).cuda()

    def gradients(out: torch.Tensor) -> list[torch.Tensor]:
        return [out, *torch.autograd.grad((out * weight).sum(), (q, k, v))]

    mine = gradients(attend(q, k, v, Reach.packed(lengths, offsets)))
    parts = zip(q.split(lengths, dim=2), k.split(lengths, dim=2), v.split(lengths, dim=2), strict=True)
    theirs = gradients(torch.cat([attend(*part, CAUSAL) for part in parts], dim=2))
    for a, b in zip(mine, theirs, strict=True):
        assert float((a - b).norm() / b.norm()) < 2e-2
