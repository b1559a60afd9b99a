"""The golden sets of VoxCPM 0.5B and VoxCPM1.5 (tests/voxcpm/golden_v1), as a fixture of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from voxcpm.sequence.training_batch import TrainingBatch, TrainingNoise

if TYPE_CHECKING:
    from voxcpm.engine.request import GenerationRequest
    from voxcpm.sequence.prompt_layout import Layout

FOLDER = Path(__file__).parent / "golden_v1"
NAMES = ("voxcpm-0.5b", "voxcpm1.5")
MODES = ("basic", "continuation")


class FirstModel:
    """One golden set."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, FOLDER / name
        self.checkpoint = self.folder / "checkpoint"
        self.stored: dict[str, Tensor] = load_file(self.folder / "golden.safetensors")
        self.about: dict[str, Any] = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))

    def __getitem__(self, key: str) -> Tensor:
        return self.stored[key]

    def layout(self, mode: str) -> Layout:
        """The sequence exactly as the official code laid it out."""
        from voxcpm.sequence.prompt_layout import Layout

        audio = self[f"{mode}.audio_mask"].bool()
        features = self[f"{mode}.audio_feat"][audio]
        return Layout(self[f"{mode}.text_tokens"], audio, features, self.about["target_tokens"][mode], len(features))

    def request(self, mode: str, layout: Layout, noise: str = "") -> GenerationRequest:
        """The golden run's request: its noise, and no end by a stop decision."""
        from voxcpm.engine.request import GenerationRequest

        drawn = self[f"{noise or mode}.noise"]
        n = len(drawn)
        return GenerationRequest(layout, min_len=n, max_len=n, noise=lambda i: drawn[i].T)

    def step(self) -> tuple[TrainingBatch, TrainingNoise]:
        """The packed batch of the golden training step, and its random numbers."""
        batch = TrainingBatch(
            text_tokens=self["packed.text_tokens"],
            text_mask=self["packed.text_mask"],
            audio_mask=self["packed.audio_mask"],
            features=self["packed.audio_feats"],
            loss_mask=self["packed.loss_mask"],
            stop_labels=self["packed.labels"],
        )
        rows, columns = batch.text_tokens.shape

        def placed(value: Tensor) -> Tensor:
            value = value.transpose(1, 2) if value.dim() == 3 else value
            return value.reshape(rows, columns, *value.shape[1:])

        drawn = {key.removeprefix("rng."): placed(x) for key, x in self.stored.items() if key.startswith("rng.")}
        return batch, TrainingNoise(**drawn)


@pytest.fixture(scope="session", params=NAMES)
def first(request: pytest.FixtureRequest) -> FirstModel:
    """Each of the two golden sets."""
    torch.set_num_threads(1)
    return FirstModel(request.param)
