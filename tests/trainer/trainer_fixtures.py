"""A small real corpus and a tiny start checkpoint, made once for all tests of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_runs import Runs


@pytest.fixture(scope="session")
def speech(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two English and two German speakers, four clips each. Not to be changed."""
    from speech_corpus import build_corpus

    return build_corpus(tmp_path_factory.mktemp("speech") / "corpus", corpora)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The machine is shared, and small tensors gain nothing from threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def runs(speech: Path, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Settings of tiny runs."""
    return Runs(speech, golden / "checkpoint", tmp_path_factory.mktemp("latents"))
