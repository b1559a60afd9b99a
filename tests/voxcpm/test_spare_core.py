"""Work beside torch's: on another core if there is one, in order, with its errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from voxcpm_fixtures import GoldenSet

from voxcpm import VoxCPM
from voxcpm.core import Utterance
from voxcpm.kernels.threads import on_spare_core


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[int]:
    """Torch uses one thread, and the machine has as many cores as the parameter says."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)), raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("cores", [1, 2], indirect=True)
def test_work_runs_once_and_in_order(cores: int) -> None:
    seen: list[tuple[int, int]] = []

    def work(number: int) -> None:
        seen.append((number, threading.get_ident()))

    with on_spare_core("cpu") as run:
        for number in range(5):
            run(partial(work, number)).result()
    assert [number for number, _ in seen] == list(range(5))
    assert ({thread for _, thread in seen} == {threading.get_ident()}) == (cores == 1)


@pytest.mark.parametrize("cores", [2], indirect=True)
def test_a_gpu_has_no_work_for_the_spare_core(cores: int) -> None:
    with on_spare_core("cuda") as run:
        assert run(threading.get_ident).result() == threading.get_ident()


@pytest.mark.parametrize("cores", [1, 2], indirect=True)
def test_an_error_of_the_work_is_that_of_its_result(cores: int) -> None:
    with on_spare_core("cpu") as run:
        bad, good = run(lambda: 1 // 0), run(lambda: 7)
        assert good.result() == 7
        with pytest.raises(ZeroDivisionError):
            bad.result()


@pytest.mark.parametrize("cores", [2], indirect=True)
def test_work_that_has_not_begun_is_dropped_with_the_block(cores: int) -> None:
    begun, go = threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        go.wait(10)

    with pytest.raises(KeyError), on_spare_core("cpu") as run:
        run(first)
        late = run(lambda: done.append(1))
        begun.wait(10)
        try:
            raise KeyError("the block fails")
        finally:
            threading.Timer(0.05, go.set).start()
    assert late.cancelled()
    assert not done


@pytest.mark.parametrize("cores", [2], indirect=True)
def test_a_batch_sounds_alike_with_and_without_a_spare_core(
    cores: int, golden_set: GoldenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = VoxCPM.from_pretrained(golden_set.checkpoint, load_denoiser=False, device="cpu")
    lengths = (2, 4, 1)
    items = [Utterance(f"Number {n}", min_len=n, max_len=n) for n in lengths]
    decoders: list[int] = []
    decode = voice.tts_model.decode

    def seen(*args: object) -> torch.Tensor:
        decoders.append(threading.get_ident())
        return decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(voice.tts_model, "decode", seen)
    beside = voice.generate_batch(items, max_batch=2, seed=3, inference_timesteps=2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    here = voice.generate_batch(items, max_batch=2, seed=3, inference_timesteps=2)
    assert threading.get_ident() not in decoders[:3]
    assert set(decoders[3:]) == {threading.get_ident()}
    for one, other, length in zip(beside, here, lengths, strict=True):
        assert len(one) == length * voice.tts_model.backbone.config.out_patch_samples
        assert np.array_equal(one, other)
