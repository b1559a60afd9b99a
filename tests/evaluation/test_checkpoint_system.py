"""The system `checkpoint:` on the golden checkpoint: recipes, limits, retries, batches, streams, and what run.json will hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from spoken_items import WORDS, golden_items

from evaluation.errors import EvaluationError, SpeakError
from evaluation.items import Item
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech
from evaluation.systems.checkpoint import Checkpoint
from evaluation.systems.recipes import NEEDS
from voxcpm import VoxCPM
from voxcpm.inference.utterance import Utterance

QUICK: dict[str, Any] = {"steps": 2, "max_seconds": 0.8, "retry": False, "device": "cpu"}
Opener = Callable[..., Checkpoint]


@pytest.fixture(scope="module")
def model(golden: Path) -> VoxCPM:
    torch.set_num_threads(1)
    return VoxCPM.from_pretrained(golden / "checkpoint", load_denoiser=False, device="cpu")


@pytest.fixture
def opened(golden: Path, model: VoxCPM) -> Opener:
    """Open the golden checkpoint; its model is loaded once for all."""

    def start(warm: bool = True, **options: Any) -> Checkpoint:
        system = open_system(f"checkpoint:{golden / 'checkpoint'}", {**QUICK, **options})
        assert isinstance(system, Checkpoint)
        system.__dict__["model"] = model
        system._warm = warm
        return system

    return start


@pytest.fixture(scope="module")
def items(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return golden_items(golden, tmp_path_factory.mktemp("clips"))


def speech(answer: Speech | Exception) -> Speech:
    assert isinstance(answer, Speech), answer
    return answer


def expected(item: Item, recipe: str) -> dict[str, Any]:
    """Return what `voxcpm` is given by a recipe, written out."""
    prompt = {"prompt_wav_path": item.reference, "prompt_text": WORDS}
    clip = {"reference_wav_path": item.reference}
    words = {"text": "(a calm old man)Hello world"}
    given: dict[str, dict[str, Any]] = {
        "plain": {}, "reference": clip, "continuation": prompt, "both": {**prompt, **clip}, "design": words,
        "controllable": {**words, **clip},
    }  # fmt: skip
    return {"text": "Hello world", **given[recipe]}


@pytest.mark.parametrize("recipe", NEEDS)
def test_a_recipe_is_what_the_model_is_asked(opened: Opener, items: list[Item], recipe: str, model: VoxCPM) -> None:
    system = opened(recipe=recipe)
    whole, bare = system.speak([Ask(items[0], 3), Ask(items[1], 3)])
    wav = model.generate(**expected(items[0], recipe), inference_timesteps=2, max_len=5, retry_badcase=False, seed=3)
    assert np.array_equal(speech(whole).samples, wav) and speech(whole).rate == 48_000
    if NEEDS[recipe]:  # type: ignore[index]
        assert isinstance(bare, SpeakError) and f"the recipe {recipe} needs" in str(bare)
    else:
        assert speech(bare).reached_limit


def test_the_seed_decides_the_audio(opened: Opener, items: list[Item]) -> None:
    system = opened(recipe="plain")
    first, again, other = (speech(one).samples for one in system.speak([Ask(items[0], s) for s in (3, 3, 4)]))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_batch_says_what_single_texts_say(opened: Opener, items: list[Item]) -> None:
    asks = [Ask(items[0], 3), Ask(items[1], 3), Ask(items[0], 4)]
    alone, together = opened(recipe="plain").speak(asks), opened(recipe="plain", batch=3).speak(asks)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(speech(one).samples, speech(other).samples, atol=2e-4)
    assert len({speech(one).wall_s for one in together}) == 1


def test_the_warm_up_is_not_measured_and_changes_nothing(opened: Opener, items: list[Item], model: VoxCPM,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    lengths: list[int | None] = []
    honest = model.speak_batch

    def counted(batch: list[Utterance], **options: Any) -> Any:
        lengths.extend(one.max_len for one in batch)
        return honest(batch, **options)

    monkeypatch.setattr(model, "speak_batch", counted)
    system = opened(recipe="plain", warm=False)
    system.speak([Ask(items[0], 3)])
    system.speak([Ask(items[0], 3)])
    assert lengths == [4, 5, 5]


def test_the_limits_and_attempts_are_seen(opened: Opener, items: list[Item]) -> None:
    (cut,) = opened(recipe="plain", retry=True).speak([Ask(items[0], 3)])
    assert (speech(cut).attempts, speech(cut).reached_limit, speech(cut).notes) == (3, True, {"ending": "max_len"})
    usual = opened(recipe="plain", max_seconds=None)
    # Twice (11 / 14) s plus 2 s, in patches of 0.16 s.
    assert len(speech(usual.speak([Ask(items[0], 3)])[0]).samples) == round((2 * 11 / 14 + 2) / 0.16) * 7680


def test_a_stop_by_itself_is_no_limit(opened: Opener, items: list[Item], model: VoxCPM,
                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(
        model.tts_model.backbone, "stop_logits", lambda hidden: torch.tensor([[0.0, 1.0]]).expand(len(hidden), 2)
    )
    for options in ({}, {"stream": True}):
        (answer,) = opened(recipe="plain", **options).speak([Ask(items[0], 3)])
        assert (speech(answer).reached_limit, len(speech(answer).samples)) == (False, 4 * 7680)


def test_a_stream_is_the_same_audio_with_the_time_of_its_first_chunk(opened: Opener, items: list[Item]) -> None:
    (whole,) = opened(recipe="both").speak([Ask(items[0], 3)])
    system = opened(recipe="both", stream=True, retry=True)
    (streamed,) = system.speak([Ask(items[0], 3)])
    np.testing.assert_allclose(speech(streamed).samples, speech(whole).samples, atol=2e-4)
    first, wall = speech(streamed).first_audio_s, speech(streamed).wall_s
    assert first is not None and wall is not None and 0 < first < wall
    assert system.describe()["retry"] is False and speech(whole).first_audio_s is None


def test_a_bad_item_fails_alone_in_its_batch(opened: Opener, items: list[Item], tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16_000), 16_000)
    asks = [Ask(items[0], 3), Ask(Item("Hello", "en", reference=silent), 3), Ask(Item("a " * 40_000, "en"), 3)]
    good, bad, _ = opened(recipe="reference", batch=3).speak([*asks[:2], asks[0]])
    assert isinstance(good, Speech) and isinstance(bad, SpeakError) and "is silent" in str(bad)
    (long,) = opened(recipe="plain").speak(asks[2:])
    assert isinstance(long, SpeakError) and "positions" in str(long)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nTried"), MemoryError()])
def test_memory_that_does_not_suffice_for_one_text_ends_the_run(opened: Opener, items: list[Item], model: VoxCPM,
        monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:  # fmt: skip
    honest, most = model.speak_batch, 1

    def little(batch: list[Utterance], **options: Any) -> Any:
        if len(batch) > most:
            raise error
        return honest(batch, **options)

    monkeypatch.setattr(model, "speak_batch", little)
    asks = [Ask(items[0], 3), Ask(items[0], 4)]
    assert all(isinstance(one, Speech) for one in opened(recipe="plain", batch=2).speak(asks)), (
        "one after the other fits"
    )
    most = 0
    with pytest.raises(EvaluationError, match="one text does not fit into memory; free memory of cpu") as caught:
        opened(recipe="plain", batch=2).speak(asks)
    assert "\n" not in str(caught.value)


def test_what_decides_the_audio_is_described(opened: Opener, golden: Path) -> None:
    about = opened(recipe="both", lora=str(golden / "lora")).describe()
    weights = golden / "checkpoint" / "model.safetensors"
    adapter = golden / "lora" / "lora_weights.safetensors"
    assert about["sha256 model.safetensors"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert about["sha256 lora/lora_weights.safetensors"] == hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert {"sha256 config.json", "sha256 tokenizer.json", "sha256 audiovae.pth"} < about.keys()
    assert (about["recipe"], about["cfg"], about["steps"], about["dtype"]) == ("both", 2.0, 2, "float32")


def test_an_adapter_and_a_dtype_change_the_audio(golden: Path, items: list[Item], opened: Opener) -> None:
    (plain,) = opened(recipe="plain").speak([Ask(items[0], 3)])
    for options in ({"lora": str(golden / "lora")}, {"dtype": "bfloat16"}):
        system = open_system(str(golden / "checkpoint"), {**QUICK, "recipe": "plain", **options})
        (other,) = system.speak([Ask(items[0], 3)])
        assert not np.allclose(speech(plain).samples, speech(other).samples, atol=1e-3)
        system.close()


def test_a_run_counts_what_was_cut_and_what_lacked(opened: Opener, items: list[Item], tmp_path: Path) -> None:
    system = opened(recipe="reference")
    run = create_run(tmp_path / "run", {"system": system.describe()}, items, [0, 1])
    assert generate(run, system) == {"too_long": 2, "error": 2}
    assert all(row["wall_s"] > 0 for row in run.generated.rows() if row["status"] == "too_long")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recpe": "both"}, "unknown setting recpe; did you mean recipe?"),
        ({"recipe": "clone"}, "setting recipe"),
        ({"batch": 4, "stream": True}, "batch must be at least 1, and 1 with stream"),
        ({"lora": "/nowhere"}, "lora: there is nothing at /nowhere"),
    ],
)
def test_wrong_options_are_one_line(golden: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        open_system(f"checkpoint:{golden / 'checkpoint'}", options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_one_line(golden: Path, tmp_path: Path) -> None:
    for path in (golden / "checkpoint").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[: 1000 if path.suffix == ".safetensors" else None])
    with pytest.raises(EvaluationError, match="cannot be loaded"):
        open_system(str(tmp_path), {"device": "cpu"}).describe()
    with pytest.raises(EvaluationError, match="no checkpoint at /nowhere"):
        open_system("checkpoint:/nowhere")


@pytest.mark.parametrize("name", ["voxcpm-0.5b", "voxcpm1.5"])
def test_a_model_that_takes_no_references_has_recipes_of_its_own(name: str, tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "voxcpm" / "golden_v1" / name
    clip = tmp_path / "clip.wav"
    rate = 16_000 if name == "voxcpm-0.5b" else 44_100
    soundfile.write(clip, load_file(golden / "golden.safetensors")["prompt"].numpy(), rate)
    item = Item("The fox goes on.", "en", reference=clip, reference_text="The fox speaks first, ")
    for recipe in ("plain", "continuation"):
        system = open_system(f"checkpoint:{golden / 'checkpoint'}", {**QUICK, "recipe": recipe})
        (answer,) = system.speak([Ask(item, 1)])
        assert speech(answer).rate == rate
    for recipe in ("reference", "both", "controllable"):
        system = open_system(f"checkpoint:{golden / 'checkpoint'}", {**QUICK, "recipe": recipe})
        with pytest.raises(EvaluationError, match=r"takes no reference clip.*set recipe=continuation"):
            system.describe()
