"""What was given together cannot be, or is not what it was taken for: one line says so, before anything is spoken."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.codec.losses import mel_distance
from voxcpm import VoxCPM
from voxcpm.config import VoxCPM2Config
from voxcpm.inference.options import check_lengths
from voxcpm.inference.prompt_cache import PromptCache
from voxcpm.inference.utterance import Utterance
from voxcpm.weights.lora import LoRAConfig, apply_lora, save_lora


@pytest.fixture(scope="module")
def voice(golden: Path) -> VoxCPM:
    """The tiny checkpoint."""
    torch.set_num_threads(1)
    return VoxCPM.from_pretrained(str(golden / "checkpoint"), load_denoiser=False, device="cpu")


def test_a_least_length_above_the_greatest_is_refused(voice: VoxCPM) -> None:
    check_lengths(4, 4)
    assert len(voice.generate("Hello", max_len=1, inference_timesteps=1)) == voice.tts_model.config.out_patch_samples
    with pytest.raises(ValueError, match="min_len 10 is above max_len 4"):
        voice.generate("Hello", min_len=10, max_len=4)


def test_unknown_options_are_told_alike_everywhere(voice: VoxCPM) -> None:
    for speak in (
        lambda: voice.generate("Hello", volume=3),
        lambda: voice.generate_streaming("Hello", volume=3),
        lambda: voice.generate_batch(["Hello"], volume=3),
        lambda: voice.generate_long("Hello", volume=3),
        lambda: voice.generate_with_prompt_cache("Hello", None, volume=3),
    ):
        with pytest.raises(TypeError, match=r"^unknown option 'volume'$"):
            speak()


def test_a_kept_voice_and_clips_exclude_each_other(voice: VoxCPM, golden: Path, tmp_path: Path) -> None:
    clip = tmp_path / "ref.wav"
    clip.write_bytes(b"not looked at")
    cache: PromptCache = {"mode": "reference", "ref_audio_feat": torch.zeros(1, 2, 4)}
    for speak in (
        lambda: voice.generate_long("Hello", prompt_cache=cache, reference_wav_path=clip),
        lambda: voice.generate_batch([Utterance("Hello", prompt_cache=cache, reference_wav_path=clip)]),
    ):
        with pytest.raises(ValueError, match="give a prompt_cache or audio files, not both"):
            speak()


def test_a_description_and_a_prompt_exclude_each_other_in_a_batch(voice: VoxCPM, tmp_path: Path) -> None:
    item = Utterance("Hello", description="calm", prompt_wav_path=tmp_path / "a.wav", prompt_text="words")
    with pytest.raises(ValueError, match="item 0: a description and a prompt text exclude each other"):
        voice.generate_batch([item])


def test_a_batch_can_denoise(voice: VoxCPM, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", torch.randn(16_000).numpy() * 0.1, 16_000)
    with pytest.raises(ValueError, match="item 0: denoise=True, but the model was loaded without a denoiser"):
        voice.generate_batch([Utterance("Hello", reference_wav_path=tmp_path / "a.wav")], denoise=True)


def test_an_adapter_given_as_the_model_is_named(voice: VoxCPM, golden: Path, tmp_path: Path) -> None:
    config = LoRAConfig(enable_lm=True, r=2)
    apply_lora(voice.tts_model.backbone, config)
    folder = tmp_path / "voice" / "checkpoints" / "step_1"
    save_lora(folder, voice.tts_model.backbone, config, "openbmb/VoxCPM2")
    voice.unload_lora()
    (tmp_path / "voice" / "latest").symlink_to(folder)
    with pytest.raises(FileNotFoundError, match=r"is a LoRA adapter, not a model: .* --lora") as error:
        VoxCPM.from_pretrained(tmp_path / "voice" / "latest")
    assert "merged" not in str(error.value)
    shutil.copytree(golden / "checkpoint", tmp_path / "voice" / "merged")
    with pytest.raises(FileNotFoundError, match=r"or use .*voice/merged$"):
        VoxCPM2Config.load(tmp_path / "voice" / "latest")


def test_a_runs_folder_given_as_the_model(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden / "checkpoint", tmp_path / "model" / "latest")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*model/latest\?"):
        VoxCPM.from_pretrained(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"config\.json not found"):
        VoxCPM.from_pretrained(tmp_path)


def test_the_codecs_distance_copies_nothing_twice_and_trains_after_a_validation() -> None:
    # A rate that no other test uses, so that nothing comes from the caches.
    rate = 47_000
    a, b = torch.randn(1, 4096), torch.randn(1, 4096)
    with torch.inference_mode():
        before = mel_distance(a, b, rate)
    made: list[Any] = []
    original = torch.hann_window

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        made.append(args)
        return original(*args, **kwargs)

    torch.hann_window = counted
    try:
        heard = a.clone().requires_grad_()
        distance = mel_distance(heard, b, rate)
    finally:
        torch.hann_window = original
    distance.backward()
    assert made == [] and torch.equal(distance.detach(), before)
    assert heard.grad is not None and heard.grad.abs().sum() > 0
