"""Compiled towers: the same patches as eager ones, at batch sizes that need padding and as requests end one by one."""

from __future__ import annotations

import pytest
import torch
from tiny_voxcpm import tiny_model

from voxcpm.engine.batch import generate_patches
from voxcpm.engine.request import GenerationRequest
from voxcpm.kernels.compiled_tower import compile_towers
from voxcpm.kernels.packed_linear import PackedLinear, pack_linears
from voxcpm.model.attention import CAUSAL
from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.prompt_layout import Layout

#: Traces and runs the whole graph as inductor would, without a minute of C++ for every shape (checked by hand).
BACKEND = "aot_eager"


def requests(model: VoxCPM2, count: int) -> list[GenerationRequest]:
    config = model.config
    patches = torch.zeros(0, config.patch_size, config.feat_dim)
    layout = Layout(torch.arange(5, 12), torch.zeros(7, dtype=torch.bool), patches, 7, 0)
    return [GenerationRequest(layout, seed=i, min_len=2 + i, max_len=3 + i) for i in range(count)]


def test_compiled_patches_equal_eager_ones() -> None:
    model = tiny_model()
    before = generate_patches(model, requests(model, 3))
    names = list(model.state_dict())
    assert pack_linears(model) is model
    compile_towers(model, backend=BACKEND)
    assert not [module for module in model.modules() if isinstance(module, PackedLinear)]
    assert list(model.state_dict()) == names
    after = generate_patches(model, requests(model, 3))
    assert [len(g.patches) for g in after] == [3, 4, 5]
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one.patches, other.patches, atol=1e-4)


def test_a_compiled_tower_refuses_what_it_was_not_made_for() -> None:
    model = compile_towers(tiny_model(), backend=BACKEND)
    with pytest.raises(ValueError, match="full reach"):
        model.feat_encoder.encoder(torch.zeros(1, 3, 24), CAUSAL)
