"""Calls around LoRA."""

from __future__ import annotations

from typing import Any

from official_calls.registry import (
    FIXED,
    Setting,
    call,
    lora_config,
    package,
)


@call("lora/off_at_first")
def _lora_off(s: Setting) -> Any:
    return s.model.lora_enabled, s.model.get_lora_state_dict()


@call("lora/whole_life")
def _lora_life(s: Setting) -> Any:
    model = package().VoxCPM(
        str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu", lora_config=lora_config(s)
    )
    states = [model.lora_enabled]
    loaded, skipped = model.load_lora(str(s.lora))
    states.append(model.lora_enabled)
    model.set_lora_enabled(False)
    off = model.generate("Hello", **FIXED)
    model.set_lora_enabled(True)
    on = model.generate("Hello", **FIXED)
    tensors = model.get_lora_state_dict()
    result = model.unload_lora()
    return type(loaded).__name__, len(loaded), len(skipped), states, tensors, off, on, result


@call("lora/after_unload")
def _lora_unloaded(s: Setting) -> Any:
    """Return whether the voice is the one without adapters again."""
    import torch

    model = package().VoxCPM(
        str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu",
        lora_config=lora_config(s), lora_weights_path=str(s.lora),
    )  # fmt: skip
    model.unload_lora()
    return all(not bool(torch.any(t)) for name, t in model.get_lora_state_dict().items() if name.endswith("lora_B"))


@call("lora/load_into_a_model_without_adapters")
def _lora_into_plain(s: Setting) -> Any:
    model = package().VoxCPM(str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu")
    loaded, skipped = model.load_lora(str(s.lora))
    return len(loaded), len(skipped)


@call("lora/error/no_folder")
def _lora_nowhere(s: Setting) -> Any:
    model = package().VoxCPM(
        str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu", lora_config=lora_config(s)
    )
    return model.load_lora("/nowhere/lora")
