"""Callers see why an utterance ended and how many attempts it took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxcpm import VoxCPM
from voxcpm.inference.utterance import Utterance

PATCH = 7680
QUICK: dict[str, Any] = {"inference_timesteps": 2, "max_len": 5}


@pytest.fixture(scope="module")
def voice(golden: Path) -> VoxCPM:
    torch.set_num_threads(1)
    return VoxCPM.from_pretrained(golden / "checkpoint", load_denoiser=False, device="cpu")


@pytest.fixture
def stops(voice: VoxCPM, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Decide the stop of every row: those of `stops`, in order; afterwards never."""
    decisions: list[bool] = []

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        row = [decisions.pop(0) if decisions else False for _ in range(len(hidden))]
        return torch.tensor([[0.0, 1.0] if stop else [1.0, 0.0] for stop in row])

    monkeypatch.setattr(voice.tts_model.backbone, "stop_logits", logits)
    return decisions


def test_the_limit_and_a_stop_are_told_apart(voice: VoxCPM, stops: list[bool]) -> None:
    stops += [True] * 4
    (stopped,) = voice.speak_batch([Utterance("Hello", seed=7)], **QUICK)
    assert (stopped.ending, len(stopped.wav), stopped.attempts, stopped.seed) == ("stop", 4 * PATCH, 1, 7)
    (cut,) = voice.speak_batch([Utterance("Hello", seed=7)], **QUICK)
    assert (cut.ending, len(cut.wav), cut.attempts) == ("max_len", 5 * PATCH, 1)
    assert np.array_equal(cut.wav, voice.generate_batch([Utterance("Hello", seed=7)], **QUICK)[0])


def test_an_utterance_that_was_cut_is_tried_again_if_asked_for(voice: VoxCPM, stops: list[bool]) -> None:
    # 5 patches are not bad by the official rule, which is 6 per token.
    retry = {**QUICK, "retry_badcase": True}
    (official,) = voice.speak_batch([Utterance("Hello there", seed=7)], **retry)
    assert (official.ending, official.attempts) == ("max_len", 1)
    stops += [False] * 5 + [True] * 4
    (ours,) = voice.speak_batch([Utterance("Hello there", seed=7)], **retry, retry_at_limit=True)
    assert (ours.ending, ours.attempts, ours.seed) == ("stop", 2, 8)
    (never,) = voice.speak_batch([Utterance("Hello there", seed=7)], **retry, retry_at_limit=True)
    assert (never.ending, never.attempts, never.seed) == ("max_len", 3, 9)


def test_rows_of_a_batch_are_tried_again_by_themselves(voice: VoxCPM, stops: list[bool]) -> None:
    # Of each step, the decisions of both rows; the second row stops at its fourth patch.
    stops += [False, True] * 4
    items = [Utterance("Hello there", seed=1), Utterance("Hello there", seed=2)]
    first, second = voice.speak_batch(items, **QUICK, retry_badcase=True, retry_at_limit=True)
    assert (first.ending, first.attempts, first.seed) == ("max_len", 3, 3)
    assert (second.ending, second.attempts, second.seed) == ("stop", 1, 2)


def test_a_stream_says_at_its_end_why_it_ended(voice: VoxCPM, stops: list[bool]) -> None:
    (whole,) = voice.speak_batch([Utterance("Hello", seed=7)], **QUICK)
    chunks = list(voice.speak_streaming(Utterance("Hello", seed=7), **QUICK))
    assert [chunk.ending for chunk in chunks] == [None] * 4 + ["max_len"]
    assert [len(chunk.wav) for chunk in chunks] == [PATCH] * 5
    np.testing.assert_allclose(np.concatenate([chunk.wav for chunk in chunks]), whole.wav, atol=2e-4)
    stops += [True] * 4
    assert [chunk.ending for chunk in voice.speak_streaming("Hello", **QUICK)] == [None] * 3 + ["stop"]


def test_a_marked_stream_is_the_marked_batch_and_ends_once(voice: VoxCPM) -> None:
    item, options = Utterance("Hello", seed=7, min_len=5), {**QUICK, "watermark": True}
    (whole,) = voice.speak_batch([item], **options)
    chunks = list(voice.speak_streaming(item, **options))
    assert [chunk.ending for chunk in chunks] == [None] * 4 + ["max_len"]
    heard = np.concatenate([chunk.wav for chunk in chunks])
    plain = np.concatenate([chunk.wav for chunk in voice.speak_streaming(item, **QUICK)])
    assert len(heard) == len(plain) == len(whole.wav)
    np.testing.assert_allclose(heard, whole.wav, atol=2e-3)
    assert np.abs(heard - plain).max() > 10 * np.abs(heard - whole.wav).max()
