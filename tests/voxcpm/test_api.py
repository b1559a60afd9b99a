"""`VoxCPM` on the tiny golden checkpoint: upstream's signatures, every mode, streaming, batches, caches, long text, errors."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from voxcpm_fixtures import GoldenSet

from voxcpm import VoxCPM
from voxcpm.errors import AudioError
from voxcpm.inference.prompt_cache import load_prompt_cache, save_prompt_cache
from voxcpm.inference.utterance import Utterance
from voxcpm.sequence.text_pieces import speaking_length, split_text

GENERATE = [
    "text",
    "prompt_wav_path",
    "prompt_text",
    "reference_wav_path",
    "cfg_value",
    "inference_timesteps",
    "min_len",
    "max_len",
    "normalize",
    "denoise",
    "retry_badcase",
    "retry_badcase_max_times",
    "retry_badcase_ratio_threshold",
    "seed",
]
DEFAULTS = (None, None, None, 2.0, 10, 2, 4096, False, False, True, 3, 6.0, None)
QUICK: dict[str, Any] = {"max_len": 4, "inference_timesteps": 3, "seed": 7}


@pytest.fixture(scope="module")
def voice(golden_set: GoldenSet) -> VoxCPM:
    torch.set_num_threads(1)
    return VoxCPM.from_pretrained(golden_set.checkpoint, load_denoiser=False, device="cpu")


@pytest.fixture(scope="module")
def clips(golden_set: GoldenSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    stored = golden_set["generation"]
    paths = {}
    for name in ("ref", "prompt"):
        paths[name] = folder / f"{name}.wav"
        soundfile.write(paths[name], stored[f"{name}_wav_16k"].numpy(), 16000, subtype="FLOAT")
    return paths


def modes(clips: dict[str, Path]) -> dict[str, dict[str, Any]]:
    prompt = {"prompt_wav_path": clips["prompt"], "prompt_text": "It was the best of times, "}
    return {
        "basic": {},
        "reference": {"reference_wav_path": str(clips["ref"])},
        "continuation": prompt,
        "both": {**prompt, "reference_wav_path": clips["ref"]},
    }


def test_signatures_are_the_official_ones() -> None:
    for method in (VoxCPM.generate, VoxCPM.generate_streaming):
        parameters = list(inspect.signature(method).parameters.values())[1:]
        assert [p.name for p in parameters][: len(GENERATE)] == GENERATE
        assert tuple(p.default for p in parameters[1 : len(GENERATE)]) == DEFAULTS
    names = list(inspect.signature(VoxCPM.from_pretrained).parameters)
    assert names[:9] == [
        "hf_model_id",
        "load_denoiser",
        "zipenhancer_model_id",
        "cache_dir",
        "local_files_only",
        "optimize",
        "device",
        "lora_config",
        "lora_weights_path",
    ]
    names = list(inspect.signature(VoxCPM.__init__).parameters)[1:]
    assert names[:7] == [
        "voxcpm_model_path",
        "zipenhancer_model_path",
        "enable_denoiser",
        "optimize",
        "device",
        "lora_config",
        "lora_weights_path",
    ]


def test_importing_the_package_is_light() -> None:
    """torch comes with the first use, and torch's compiler, which takes as long again, only where something is compiled."""
    code = (
        "import sys, voxcpm; print('torch' in sys.modules, 'numpy' in sys.modules);"
        "import voxcpm.weights.checkpoint; print('torch' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "True", "False"]


@pytest.mark.parametrize("mode", ["basic", "reference", "continuation", "both"])
def test_streaming_is_the_same_audio(voice: VoxCPM, clips: dict[str, Path], mode: str) -> None:
    options = {**modes(clips)[mode], **QUICK, "retry_badcase": False}
    wav = voice.generate("Hello world", **options)
    patch = voice.tts_model.config.out_patch_samples
    assert wav.dtype == np.float32 and wav.ndim == 1 and len(wav) == 4 * patch
    assert voice.last_successful_seed == 7
    chunks = list(voice.generate_streaming("Hello world", **options))
    assert [len(chunk) for chunk in chunks] == [patch] * 4
    np.testing.assert_allclose(np.concatenate(chunks), wav, atol=1e-4)


def test_a_seed_repeats_and_none_is_drawn(voice: VoxCPM) -> None:
    quick: dict[str, Any] = {**QUICK, "seed": None}
    torch.manual_seed(5)
    first = voice.generate("Hello", **quick)
    seed = voice.last_successful_seed
    assert seed is not None
    assert not np.array_equal(first, voice.generate("Hello", **quick))
    torch.manual_seed(5)
    np.testing.assert_array_equal(first, voice.generate("Hello", **quick))
    state = torch.get_rng_state()
    np.testing.assert_array_equal(first, voice.generate("Hello", **{**quick, "seed": seed}))
    assert not np.array_equal(first, voice.generate("Hello", **{**quick, "seed": seed + 1}))
    assert torch.equal(state, torch.get_rng_state())


def test_a_batch_gives_each_what_it_gets_alone(voice: VoxCPM, clips: dict[str, Path]) -> None:
    items = [
        Utterance("Hello world", seed=1, min_len=5, max_len=5),
        Utterance(
            "Hello",
            description="slightly faster",
            reference_wav_path=clips["ref"],
            seed=2,
            cfg_value=1.0,
            min_len=3,
            max_len=3,
        ),
        Utterance("the worst", prompt_wav_path=clips["prompt"], prompt_text="It was ", seed=3, min_len=6, max_len=6),
        Utterance("语音克隆。", seed=4, cfg_value=3.0, min_len=4, max_len=4),
    ]
    options: dict[str, Any] = {"inference_timesteps": 3}
    together = voice.generate_batch(items, **options)
    assert [len(wav) / voice.tts_model.config.out_patch_samples for wav in together] == [5, 3, 6, 4]
    for item, wav in zip(items, together, strict=True):
        # The golden audio tolerance: the random codec turns 1e-5 in a latent into 2e-4 (latents: test_generate).
        np.testing.assert_allclose(voice.generate_batch([item], **options)[0], wav, atol=2e-3)
    alone = voice.generate(
        "(slightly faster)Hello",
        reference_wav_path=clips["ref"],
        seed=2,
        cfg_value=1.0,
        min_len=3,
        max_len=3,
        **options,
    )
    np.testing.assert_allclose(alone, together[1], atol=2e-3)


def test_prompt_caches_save_load_and_merge(voice: VoxCPM, clips: dict[str, Path], tmp_path: Path) -> None:
    text = "It was the best of times, "
    cache = voice.build_prompt_cache(clips["prompt"], text, clips["ref"])
    assert cache["mode"] == "ref_continuation" and cache["prompt_text"] == text
    save_prompt_cache(cache, tmp_path / "voice.safetensors")
    again = load_prompt_cache(tmp_path / "voice.safetensors")
    assert again["mode"] == cache["mode"] and torch.equal(again["audio_feat"], cache["audio_feat"])
    direct = voice.generate(
        "Hello", prompt_wav_path=clips["prompt"], prompt_text=text, reference_wav_path=clips["ref"], **QUICK
    )
    np.testing.assert_allclose(voice.generate_with_prompt_cache("Hello", again, **QUICK), direct, atol=1e-5)
    wav, ids, patches = voice.tts_model.generate_with_prompt_cache("Hello", again, **QUICK)
    assert wav.shape == (
        1,
        voice.tts_model.config.out_patch_samples * len(patches),
    ) and ids.tolist() == voice.tts_model.text_tokenizer.encode("Hello")
    merged = voice.tts_model.merge_prompt_cache(again, "Hello", patches)
    assert merged["prompt_text"] == text + "Hello" and len(merged["audio_feat"]) == len(cache["audio_feat"]) + len(
        patches
    )
    assert torch.equal(merged["ref_audio_feat"], cache["ref_audio_feat"])
    assert len(voice.generate_with_prompt_cache("and on", merged, **QUICK))
    with pytest.raises(ValueError, match="is not a prompt cache"):
        load_prompt_cache(clips["ref"])


def test_bad_cases_are_tried_again_with_the_next_seed(voice: VoxCPM) -> None:
    # With a ratio of 0 every attempt is bad; the last one is returned.
    wav = voice.generate(
        "Hello", **QUICK, retry_badcase=True, retry_badcase_max_times=3, retry_badcase_ratio_threshold=0.0
    )
    assert voice.last_successful_seed == QUICK["seed"] + 2 and len(wav)
    voice.generate("Hello", **QUICK, retry_badcase=True, retry_badcase_max_times=0, retry_badcase_ratio_threshold=0.0)
    assert voice.last_successful_seed == QUICK["seed"]


def test_long_text_is_spoken_in_one_go(voice: VoxCPM, clips: dict[str, Path]) -> None:
    text = "(calm)Hello world. This is a tiny corpus! It was the best of times; it was the worst of times."
    options: dict[str, Any] = {**QUICK, "retry_badcase": False, "longest_s": 2.0, "reference_wav_path": clips["ref"]}
    parts = list(voice.generate_long_streaming(text, **options))
    assert len(parts) >= 3 and "calm" not in parts[0][0]
    whole = voice.generate_long(text, **options)
    np.testing.assert_allclose(np.concatenate([wav for _, wav in parts]), whole, atol=1e-5)


def test_splitting_long_text() -> None:
    text = "One sentence. Another, rather longer one, with 3.5 commas! 你好世界。今天天气很好，我们一起去公园散步。"
    pieces = split_text(text, 3.0)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(speaking_length(piece) <= 3.0 for piece in pieces) and any("3.5" in piece for piece in pieces)
    assert split_text("Short.", 10.0) == ["Short."]
    assert "".join(split_text("a" * 500, 2.0)) == "a" * 500


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text(voice: VoxCPM, text: str) -> None:
    for speak in (voice.generate, voice.generate_streaming, voice.generate_long, lambda t: voice.generate_batch([t])):
        with pytest.raises(ValueError, match="empty"):
            speak(text)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"cfg_value": 0.05}, ValueError, "cfg_value"),
        ({"cfg_value": float("nan")}, ValueError, "cfg_value"),
        ({"cfg_value": 11.0}, ValueError, "cfg_value"),
        ({"inference_timesteps": 0}, ValueError, "inference_timesteps"),
        ({"inference_timesteps": 101}, ValueError, "inference_timesteps"),
        ({"max_len": 0}, ValueError, "max_len"),
        ({"reference_wav_path": "/nowhere.wav"}, FileNotFoundError, "nowhere.wav"),
        ({"prompt_text": "words"}, ValueError, "without its audio"),
        ({"speed": 2}, TypeError, "speed"),
    ],
)
def test_bad_arguments_are_refused_at_once(
    voice: VoxCPM, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    for speak in (voice.generate, voice.generate_streaming):
        with pytest.raises(error, match=words):
            speak("Hello", **arguments)


def test_bad_clips(voice: VoxCPM, clips: dict[str, Path], tmp_path: Path) -> None:
    def clip(name: str, wav: np.ndarray) -> Path:
        soundfile.write(tmp_path / name, wav, 16000)
        return tmp_path / name

    with pytest.raises(ValueError, match="without its text"):
        voice.generate("Hello", prompt_wav_path=clips["prompt"])
    with pytest.raises(AudioError, match="silent"):
        voice.generate("Hello", reference_wav_path=clip("silent.wav", np.zeros(16000)))
    with pytest.raises(AudioError, match=r"0\.05 s long"):
        voice.generate("Hello", reference_wav_path=clip("short.wav", np.full(800, 0.5)))
    (tmp_path / "broken.wav").write_bytes(b"RIFFnonsense")
    with pytest.raises(AudioError, match="cannot be decoded"):
        voice.generate("Hello", reference_wav_path=tmp_path / "broken.wav")
    with pytest.raises(ValueError, match="item 1: the text is empty"):
        voice.generate_batch(["Hello", " "])
    with pytest.raises(ValueError, match="denoiser"):
        voice.generate("Hello", reference_wav_path=clips["ref"], denoise=True)


def test_text_beyond_the_context(voice: VoxCPM) -> None:
    with pytest.raises(ValueError, match="no room to speak"):
        voice.generate("Hello world " * 300, max_len=4)


def test_clips_of_any_rate_and_channels(voice: VoxCPM, clips: dict[str, Path], tmp_path: Path) -> None:
    wav, _ = soundfile.read(clips["ref"])
    stereo = np.stack((np.repeat(wav, 3), np.repeat(wav, 3)), 1)
    soundfile.write(tmp_path / "stereo.flac", stereo, 48000)
    cache = voice.build_prompt_cache(reference_wav_path=tmp_path / "stereo.flac")
    assert len(cache["ref_audio_feat"]) == len(
        voice.build_prompt_cache(reference_wav_path=clips["ref"])["ref_audio_feat"]
    )


def test_lora_on_and_off(voice: VoxCPM, golden_set: GoldenSet) -> None:
    plain = voice.generate("Hello", **QUICK)
    loaded, skipped = voice.load_lora(golden_set.folder / "lora")
    try:
        assert loaded and not skipped and voice.lora_enabled and set(voice.get_lora_state_dict()) == set(loaded)
        adapted = voice.generate("Hello", **QUICK)
        assert not np.allclose(plain, adapted)
        voice.set_lora_enabled(False)
        assert not voice.lora_enabled
        np.testing.assert_array_equal(voice.generate("Hello", **QUICK), plain)
    finally:
        voice.unload_lora()
    np.testing.assert_array_equal(voice.generate("Hello", **QUICK), plain)
    assert not voice.lora_enabled
