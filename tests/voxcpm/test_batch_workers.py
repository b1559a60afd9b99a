"""Threads that share a batch: the same speech, every request once, and an error of one ends all."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tensor_closeness import assert_close
from test_generate import make_layout
from tiny_voxcpm import tiny_model
from voxcpm_fixtures import GoldenSet

from voxcpm import VoxCPM
from voxcpm.engine.batch import generate_patches
from voxcpm.engine.loop import GenerationLoop
from voxcpm.engine.request import Generation, GenerationRequest, Patch
from voxcpm.inference.utterance import Utterance
from voxcpm.kernels.threads import batch_workers
from voxcpm.model.backbone import VoxCPM2


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> VoxCPM2:
    return tiny_model()


def requests_of(lengths: list[int]) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            make_layout(number, 3 + number), seed=number, min_len=length, max_len=length, ratio_threshold=None
        )
        for number, length in enumerate(lengths)
    ]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("workers", "slots"), [(2, 4), (3, 4), (8, 3)])
def test_workers_give_each_request_what_it_gets_alone(model: VoxCPM2, workers: int, slots: int) -> None:
    lengths = [1, 7, 3, 5, 2, 6, 4, 1, 3]
    alone = generate_patches(model, requests_of(lengths), max_batch=1)
    told: Counter[int] = Counter()
    shared = generate_patches(
        model, requests_of(lengths), slots, finished=lambda number, _: told.update([number]), workers=workers
    )
    assert told == Counter(range(len(lengths)))
    for one, other, length in zip(alone, shared, lengths, strict=True):
        assert len(other.patches) == length and other.ending == one.ending and other.seed == one.seed
        assert_close(other.patches, one.patches, 1e-5)


@pytest.mark.usefixtures("one_thread")
def test_what_is_tried_again_ends_with_the_others(model: VoxCPM2) -> None:
    requests = requests_of([3, 2, 4, 3, 2])

    def again(number: int, made: Generation) -> GenerationRequest | None:
        if number % 2 or made.attempts == 3:
            return None
        return GenerationRequest(requests[number].layout, made.seed + 100, min_len=2, max_len=2, ratio_threshold=None)

    made = generate_patches(model, requests, 2, again, workers=2)
    assert [one.attempts for one in made] == [3, 1, 3, 1, 3]
    assert [one.seed for one in made] == [200, 1, 202, 3, 204]
    assert [len(one.patches) for one in made] == [2, 2, 2, 3, 2]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("fails_in_the_caller", [True, False])
def test_an_error_of_one_worker_ends_all(
    model: VoxCPM2, monkeypatch: pytest.MonkeyPatch, fails_in_the_caller: bool
) -> None:
    step, caller, both = GenerationLoop.step, threading.get_ident(), threading.Barrier(2, timeout=20)
    steps: Counter[bool] = Counter()

    def broken(self: GenerationLoop) -> list[Patch]:
        here = threading.get_ident() == caller
        steps[here] += 1
        if steps[here] == 1:
            both.wait()
        if here == fails_in_the_caller:
            raise MemoryError("no room")
        return step(self)

    monkeypatch.setattr(GenerationLoop, "step", broken)
    with pytest.raises(MemoryError, match="no room"):
        generate_patches(model, requests_of([50, 50]), 2, workers=2)
    assert steps[not fails_in_the_caller] < 50, "the other one did not speak to its end"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("cores", "device", "rows", "workers"),
    [(2, "cpu", 8, 2), (2, "cpu", 7, 1), (1, "cpu", 32, 1), (64, "cpu", 32, 2), (64, "cuda", 32, 1)],
)
def test_a_second_worker_needs_a_free_core_and_enough_rows(
    cores: int, device: str, rows: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert batch_workers(device, rows) == workers


@pytest.mark.usefixtures("one_thread")
def test_a_batch_sounds_alike_with_two_workers(golden_set: GoldenSet) -> None:
    voice = VoxCPM.from_pretrained(golden_set.checkpoint, load_denoiser=False, device="cpu")
    lengths = (2, 4, 1, 3)
    items = [Utterance(f"Number {n}", min_len=n, max_len=n) for n in lengths]
    one, two = (voice.speak_batch(items, seed=3, inference_timesteps=2, workers=workers) for workers in (1, 2))
    for here, there, length in zip(one, two, lengths, strict=True):
        assert len(there.wav) == length * voice.tts_model.config.out_patch_samples
        np.testing.assert_allclose(there.wav, here.wav, atol=2e-3)
        assert (here.ending, here.seed) == (there.ending, there.seed)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("most", "workers"), [(8, 2), (7, 1)])
def test_what_is_spoken_at_once_decides_not_the_length_of_the_list(
    golden_set: GoldenSet, monkeypatch: pytest.MonkeyPatch, most: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    voice = VoxCPM.from_pretrained(golden_set.checkpoint, load_denoiser=False, device="cpu")
    asked: list[int] = []

    def told(layouts: object, options: object, max_batch: int, finished: object, workers: int) -> list[Generation]:
        asked.append(workers)
        return []

    monkeypatch.setattr(voice.tts_model, "generate_layouts", told)
    voice.speak_batch(["Hello"] * 20, max_batch=most)
    assert asked == [workers]
