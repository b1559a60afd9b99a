"""The golden set that is being compared with, and a record of what of it has been read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

if TYPE_CHECKING:
    from voxcpm.model.backbone import VoxCPM2
    from voxcpm.sequence.text_tokenizer import TextTokenizer


class Recorded(Mapping[str, Any]):
    """A mapping that remembers which keys were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values_, self.read = values, set[str]()

    def __getitem__(self, key: str) -> Any:
        value = self.values_[key]
        self.read.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __contains__(self, key: object) -> bool:
        return key in self.values_


class GoldenSet:
    """A folder of golden vectors. Everything that depends on its config is read from its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "checkpoint"
        self.files = {
            path.relative_to(folder).as_posix(): Recorded(load_file(path))
            for path in [*folder.glob("*.safetensors"), folder / "lora" / "lora_generation.safetensors"]
            if path.name != "audiovae.safetensors"  # test_audiovae's
        }
        self.meta = Recorded(json.loads((folder / "meta.json").read_text(encoding="utf-8")))

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        return self.files[f"{name}.safetensors"]


@pytest.fixture(scope="session")
def golden_set(golden: Path) -> GoldenSet:
    """The golden vectors by file, with a record of what was read."""
    return GoldenSet(golden)


@pytest.fixture(scope="session")
def golden_backbone(golden_set: GoldenSet) -> VoxCPM2:
    """The golden checkpoint's model in float32, gradients off. Tests must not change it."""
    from voxcpm.weights.checkpoint import load_backbone

    torch.set_num_threads(1)
    return load_backbone(golden_set.checkpoint, "float32")


@pytest.fixture(scope="session")
def golden_tokenizer(golden_set: GoldenSet) -> TextTokenizer:
    """The golden checkpoint's tokenizer."""
    from voxcpm.sequence.text_tokenizer import TextTokenizer

    return TextTokenizer.load(golden_set.checkpoint)


@pytest.fixture
def fresh_backbone(golden_set: GoldenSet) -> VoxCPM2:
    """A model of the golden checkpoint that a test may change and train."""
    from voxcpm.weights.checkpoint import load_backbone

    return load_backbone(golden_set.checkpoint, "float32").requires_grad_(True)


@pytest.fixture
def no_gradients() -> Iterator[None]:
    """Run a test without autograd."""
    with torch.no_grad():
        yield
