"""A fresh model learns a sample by heart and then says it: signs, shifts, stop labels and solver fit together."""

from __future__ import annotations

import torch
from tiny_voxcpm import tiny_model

from voxcpm.engine.batch import generate_patches
from voxcpm.engine.request import GenerationRequest
from voxcpm.model.flow import Solver
from voxcpm.sequence.prompt_layout import Layout
from voxcpm.sequence.training_rows import lay_out_sample, pack_rows

STEPS = 220


def test_two_texts_by_heart() -> None:
    torch.set_num_threads(1)
    model = tiny_model(3, dit_config__cfm_config={"training_cfg_rate": 0.0})
    g = torch.Generator().manual_seed(0)
    texts = [[10, 11, 12], [20, 21, 22, 23]]
    # Latents of unit size that differ from patch to patch, of different length by text.
    targets = [torch.randn(n, 2, 6, generator=g) for n in (5, 4)]
    batch = pack_rows([[lay_out_sample(t, x) for t, x in zip(texts, targets, strict=True)] * 12])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    first = last = None
    for _ in range(STEPS):
        losses = model.training_losses(batch, g)
        optimizer.zero_grad()
        (losses.diffusion + losses.stop).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        first, last = first if first is not None else losses, losses
    assert first is not None and last is not None
    assert first.diffusion > 1.5 and last.diffusion < 0.15 * first.diffusion
    assert last.stop < 0.05
    none = torch.zeros(0, 2, 6)
    for text, target in zip(texts, targets, strict=True):
        ids = torch.tensor([*text, 101])
        layout = Layout(ids, torch.zeros(len(ids), dtype=torch.bool), none, len(text), 0)
        request = GenerationRequest(
            layout, seed=1, cfg=1.0, min_len=0, max_len=20, solver=Solver(20, cfg_zero_star=False)
        )
        (said,) = generate_patches(model.eval(), [request])
        assert said.ending == "stop" and len(said.patches) == len(target)
        # Each patch said is far nearer to the one learned at its place than to any other one.
        everything = torch.cat(targets)
        distance = torch.cdist(said.patches.flatten(1), everything.flatten(1)) ** 2
        place = torch.arange(len(target)) + (0 if target is targets[0] else len(targets[0]))
        own = distance.gather(1, place[:, None])[:, 0]
        nearest_other = distance.scatter(1, place[:, None], float("inf")).min(dim=1).values
        assert bool((own < 0.5 * nearest_other).all())
