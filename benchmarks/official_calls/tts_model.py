"""Calls of `tts_model`, the model below VoxCPM, and the official module paths."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from official_calls.registry import (
    FIXED,
    PROMPT_TEXT,
    Setting,
    call,
    lora_config,
)


@call("import/official_paths")
def _paths(s: Setting) -> Any:
    return [
        getattr(import_module(module), name).__name__
        for module, name in (
            ("voxcpm", "VoxCPM"),
            ("voxcpm.core", "VoxCPM"),
            ("voxcpm.model.voxcpm", "LoRAConfig"),
            ("voxcpm.model.voxcpm2", "LoRAConfig"),
            ("voxcpm.model.voxcpm2", "VoxCPM2Model"),
        )
    ]


@call("tts_model/sample_rate")
def _sample_rate(s: Setting) -> Any:
    return int(s.model.tts_model.sample_rate)


@call("tts_model/from_local")
def _from_local(s: Setting) -> Any:
    model = type(s.model.tts_model).from_local(str(s.checkpoint), optimize=False, device="cpu")
    return model.generate("Hello", **FIXED)


@call("tts_model/from_local/training")
def _from_local_training(s: Setting) -> Any:
    model = type(s.model.tts_model).from_local(
        str(s.checkpoint), optimize=False, training=True, device="cpu", lora_config=lora_config(s)
    )
    return len(model.get_lora_state_dict())


@call("tts_model/forward")
def _forward(s: Setting) -> Any:
    """Run the training call on a packed batch and return its two losses."""
    from safetensors.torch import load_file

    stored = load_file(s.golden / "training.safetensors")
    names = ("text_tokens", "text_mask", "audio_feats", "audio_mask", "loss_mask", "position_ids", "labels")
    model = type(s.model.tts_model).from_local(str(s.checkpoint), optimize=False, training=True, device="cpu")
    losses = model.forward(**{name: stored[f"packed.{name}"] for name in names}, progress=0.0)
    return {name: losses[name].detach() for name in ("loss/diff", "loss/stop")}


@call("tts_model/generate")
def _tts_generate(s: Setting) -> Any:
    return s.model.tts_model.generate(target_text="Hello world", **FIXED)


@call("tts_model/generate/ref_continuation")
def _tts_generate_all(s: Setting) -> Any:
    return s.model.tts_model.generate(
        target_text="Hello world", prompt_text=PROMPT_TEXT, prompt_wav_path=s.prompt, reference_wav_path=s.ref,
        cfg_value=2.0, retry_badcase=True, retry_badcase_max_times=1, retry_badcase_ratio_threshold=6.0,
        trim_silence_vad=True, streaming_prefix_len=4, **FIXED,
    )  # fmt: skip


@call("tts_model/generate_streaming")
def _tts_streaming(s: Setting) -> Any:
    return s.model.tts_model.generate_streaming(
        target_text="Hello world", prompt_text=PROMPT_TEXT, prompt_wav_path=s.prompt, **FIXED
    )


@call("tts_model/optimize")
def _optimize(s: Setting) -> Any:
    return s.model.tts_model.optimize(disable=True) is s.model.tts_model


@call("tts_model/lora_methods")
def _tts_lora(s: Setting) -> Any:
    model = type(s.model.tts_model).from_local(
        str(s.checkpoint), optimize=False, device="cpu", lora_config=lora_config(s)
    )
    loaded, skipped = model.load_lora_weights(str(s.lora))
    model.set_lora_enabled(False)
    model.set_lora_enabled(True)
    count = len(model.get_lora_state_dict())
    model.reset_lora_weights()
    return len(loaded), len(skipped), count, len(model.get_lora_state_dict())


def _cache(s: Setting, **arguments: Any) -> Any:
    return s.model.tts_model.build_prompt_cache(**arguments)


@call("prompt_cache/reference")
def _cache_reference(s: Setting) -> Any:
    return _cache(s, reference_wav_path=s.ref)


@call("prompt_cache/continuation")
def _cache_continuation(s: Setting) -> Any:
    return _cache(s, prompt_text=PROMPT_TEXT, prompt_wav_path=s.prompt)


@call("prompt_cache/ref_continuation")
def _cache_both(s: Setting) -> Any:
    return _cache(s, prompt_text=PROMPT_TEXT, prompt_wav_path=s.prompt, reference_wav_path=s.ref)


@call("prompt_cache/error/nothing_given")
def _cache_nothing(s: Setting) -> Any:
    return _cache(s)


@call("prompt_cache/error/prompt_without_text")
def _cache_no_text(s: Setting) -> Any:
    return _cache(s, prompt_wav_path=s.prompt)


@call("prompt_cache/error/text_without_prompt")
def _cache_no_prompt(s: Setting) -> Any:
    return _cache(s, prompt_text=PROMPT_TEXT)


@call("prompt_cache/error/no_file")
def _cache_no_file(s: Setting) -> Any:
    return _cache(s, reference_wav_path="/nowhere/voice.wav")


@call("prompt_cache/generate")
def _cache_generate(s: Setting) -> Any:
    return s.model.tts_model.generate_with_prompt_cache("Hello", _cache(s, reference_wav_path=s.ref), **FIXED)


@call("prompt_cache/generate_without_one")
def _cache_none(s: Setting) -> Any:
    return s.model.tts_model.generate_with_prompt_cache(target_text="Hello", prompt_cache=None, **FIXED)


@call("prompt_cache/generate_streaming")
def _cache_streaming(s: Setting) -> Any:
    cache = _cache(s, prompt_text=PROMPT_TEXT, prompt_wav_path=s.prompt)
    return s.model.tts_model.generate_with_prompt_cache_streaming(target_text="Hello", prompt_cache=cache, **FIXED)


@call("prompt_cache/merge")
def _cache_merge(s: Setting) -> Any:
    model = s.model.tts_model
    cache = _cache(s, prompt_text=PROMPT_TEXT, prompt_wav_path=s.prompt, reference_wav_path=s.ref)
    _, _, patches = model.generate_with_prompt_cache("Hello", cache, **FIXED)
    merged = model.merge_prompt_cache(original_cache=cache, new_text="Hello", new_audio_feat=patches)
    return merged, model.generate_with_prompt_cache("and on", merged, **FIXED)


@call("prompt_cache/merge_with_none")
def _cache_merge_none(s: Setting) -> Any:
    model = s.model.tts_model
    _, _, patches = model.generate_with_prompt_cache("Hello", None, **FIXED)
    return model.merge_prompt_cache(None, "Hello", patches)


def _sequence(s: Setting) -> tuple[Any, Any, Any, Any]:
    """Return a plain text's tensors as in the layout table: ids and 101, no audio."""
    import torch

    ids = torch.tensor([[608, 566, 513, 397, 389, 101]], dtype=torch.int32)
    return ids, torch.ones(1, 6), torch.zeros(1, 6, 4, 64), torch.zeros(1, 6)


@call("tts_model/inference")
def _inference(s: Setting) -> Any:
    return s.model.tts_model.inference(*_sequence(s), **FIXED)


@call("tts_model/inference_streaming")
def _inference_streaming(s: Setting) -> Any:
    return s.model.tts_model.inference_streaming(*_sequence(s), **FIXED)
