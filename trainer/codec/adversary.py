"""The discriminators' side of codec training: their optimizer, and the losses they give the codec."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.codec.discriminators import Discriminators, adversarial_loss, discriminator_loss, feature_distance


class Adversary:
    """Discriminators that are trained together with the codec; call `learn`, then `judge`, in every step."""

    def __init__(self, width: int, lr: float, device: torch.device | str, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.networks = Discriminators(width).to(device)
        self._optimizer = torch.optim.AdamW(self.networks.parameters(), lr=lr, betas=(0.8, 0.99))
        self._base = lr

    def learn(self, real: Tensor, fake: Tensor, rate: float = 1.0) -> Tensor:
        """Take one step on speech and the codec's output, both [B, S]; return the loss. rate: a factor on the learning rate."""
        self.networks.requires_grad_(True)
        for group in self._optimizer.param_groups:
            group["lr"] = self._base * rate
        loss = discriminator_loss(self.networks(real), self.networks(fake.detach()))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 10.0)
        self._optimizer.step()
        return loss.detach()

    def judge(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return `adversarial` and `features`, the codec's losses on its output [B, S]. Gradients reach only the codec."""
        self.networks.requires_grad_(False)
        with torch.no_grad():
            wanted = self.networks(real)
        made = self.networks(fake)
        return {"adversarial": adversarial_loss(made), "features": feature_distance(wanted, made)}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the optimizer's state, to resume from."""
        return {"networks": self.networks.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`."""
        self.networks.load_state_dict(state["networks"])
        self._optimizer.load_state_dict(state["optimizer"])
