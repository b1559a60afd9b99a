"""Initial weights for training from scratch."""

from __future__ import annotations

from math import sqrt

import torch
from torch import nn

from voxcpm.model.tower import Tower


def initialise(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Initialize the weights of a `VoxCPM2` of any width for training from scratch.

    Linears are normal with std 1/sqrt(fan_in) (0.022 at the release's width), and biases are zero. The last linear of each
    residual branch is divided by sqrt(2 layers), so that the residual stream does not grow with depth. Embeddings and the
    special token have std 0.1, in proportion to those branches. The velocity and stop outputs have std 0.02, so that both
    losses start near their trivial values.
    """
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                std = 0.02 if name in ("feat_decoder.estimator.out_proj", "stop_head") else module.in_features**-0.5
                module.weight.normal_(0.0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 0.1, generator=generator)
        for module in model.modules():
            if isinstance(module, Tower):
                depth = 1.0 / sqrt(2 * module.config.layers)
                for block in module.layers:
                    block.self_attn.o_proj.weight.mul_(depth)  # type: ignore[union-attr, operator]
                    block.mlp.down_proj.weight.mul_(depth)  # type: ignore[union-attr, operator]
        for name, parameter in model.named_parameters():
            if name.endswith("special_token"):
                parameter.normal_(0.0, 0.1, generator=generator)
