"""The codec's adversary: it learns to tell speech from a poor copy, and its verdict pulls the copy toward speech."""

from __future__ import annotations

import copy

import torch

from trainer.codec.adversary import Adversary
from trainer.codec.discriminators import BANDS, PERIODS, WINDOWS, Discriminators, discriminator_loss

RATE = 48_000


def voices(seed: int, batch: int = 2, samples: int = 9600) -> torch.Tensor:
    """Harmonic tones with a random pitch and phase."""
    dice = torch.Generator().manual_seed(seed)
    t = torch.arange(samples) / RATE
    pitch = 100 + 150 * torch.rand(batch, 1, generator=dice)
    phases = 6.28 * torch.rand(batch, 12, 1, generator=dice)
    harmonics = torch.arange(1, 13).view(1, 12, 1)
    return (torch.sin(6.2832 * pitch[:, None] * harmonics * t + phases) / harmonics).sum(1) * 0.1


def dull(wav: torch.Tensor) -> torch.Tensor:
    """The same, smeared: a moving average of 32 samples and some noise."""
    smooth = torch.nn.functional.avg_pool1d(wav[:, None], 33, 1, 16)[:, 0]
    return smooth + 0.02 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))


def test_every_network_sees_every_length() -> None:
    networks = Discriminators(2)
    for samples in (9600, 9601, 4801):
        features = networks(torch.randn(3, samples))
        assert len(features) == len(PERIODS) + len(WINDOWS)
        assert all(len(f) == 6 for f in features[: len(PERIODS)])
        assert all(len(f) == 5 * len(BANDS) + 1 for f in features[len(PERIODS) :])
        assert all(torch.isfinite(part).all() for f in features for part in f)


def test_silence_and_level_are_harmless() -> None:
    networks = Discriminators(2)
    assert all(torch.isfinite(f[-1]).all() for f in networks(torch.zeros(1, 9600)))
    wav = voices(3)
    for one, other in zip(networks(wav), networks(0.5 * wav + 0.01), strict=True):
        assert torch.allclose(one[-1], other[-1], atol=1e-4)


def test_it_learns_to_tell_speech_from_a_poor_copy_it_has_not_heard() -> None:
    adversary = Adversary(2, 5e-3, "cpu", seed=1)

    def unheard() -> float:
        real = voices(999)
        with torch.no_grad():
            return float(discriminator_loss(adversary.networks(real), adversary.networks(dull(real))))

    assert unheard() > 0.9
    for step in range(30):
        real = voices(step)
        adversary.learn(real, dull(real))
    # One that cannot tell them apart scores everything 0.5, which costs 0.5.
    assert unheard() < 0.45


def test_its_verdict_reaches_the_copy_and_nothing_else() -> None:
    adversary = Adversary(2, 1e-3, "cpu", seed=1)
    real = voices(5)
    fake = dull(real).requires_grad_(True)
    first = adversary.judge(real, fake)
    (first["adversarial"] + first["features"]).backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.networks.parameters())
    assert float(adversary.judge(real, real)["features"]) == 0.0


def test_it_goes_on_from_its_state_as_if_unbroken() -> None:
    one, other = Adversary(2, 1e-3, "cpu", seed=1), Adversary(2, 1e-3, "cpu", seed=2)
    one.learn(voices(1), dull(voices(1)))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    losses = [a.learn(voices(2), dull(voices(2))) for a in (one, other)]
    assert losses[0] == losses[1]
    assert torch.equal(one.networks(voices(3))[0][-1], other.networks(voices(3))[0][-1])
