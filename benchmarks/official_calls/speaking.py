"""Calls of VoxCPM: its constructors, `generate` and `generate_streaming`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from official_calls.registry import (
    CALLS,
    FIXED,
    PATCHES,
    PROMPT_TEXT,
    Setting,
    call,
    lora_config,
    package,
    prompt_arguments,
    speak,
)

MODES: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "basic": lambda s: {},
    "design": lambda s: {"text": "(A young woman, gentle voice)Hello"},
    "reference": lambda s: {"reference_wav_path": s.ref},
    "controllable": lambda s: {"text": "(slightly faster)Hello", "reference_wav_path": s.ref},
    "continuation": prompt_arguments,
    "ref_continuation": lambda s: {**prompt_arguments(s), "reference_wav_path": s.ref},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "cfg_1": {"cfg_value": 1.0},
    "steps_1": {"inference_timesteps": 1},
    "max_len_1": {"min_len": 0, "max_len": 1},
    "newlines": {"text": "Hello\n\n  world"},
    "chinese": {"text": "语音克隆"},
    "no_retry": {"retry_badcase": False},
    "retry": {"retry_badcase": True, "retry_badcase_max_times": 2, "retry_badcase_ratio_threshold": 0.5},
    "ratio_bounds_the_length": {
        "text": "你",
        "min_len": 99,
        "max_len": 99,
        "retry_badcase_max_times": 1,
        "retry_badcase_ratio_threshold": 0.0,
    },
    "normalize": {"normalize": True},
    "empty_paths": {"prompt_wav_path": None, "prompt_text": None, "reference_wav_path": None},
}
MISTAKES: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "empty_text": lambda s: {"text": ""},
    "blank_text": lambda s: {"text": " \n "},
    "text_is_no_string": lambda s: {"text": 7},
    "no_reference_file": lambda s: {"reference_wav_path": "/nowhere/voice.wav"},
    "no_prompt_file": lambda s: {"prompt_wav_path": "/nowhere/voice.wav", "prompt_text": "words"},
    "prompt_without_text": lambda s: {"prompt_wav_path": s.prompt},
    "text_without_prompt": lambda s: {"prompt_text": "words"},
    "unknown_option": lambda s: {"speed": 2},
}
for mode, arguments in MODES.items():
    CALLS[f"generate/{mode}"] = lambda s, arguments=arguments: speak(s, **arguments(s))  # type: ignore[misc]
    CALLS[f"generate_streaming/{mode}"] = lambda s, arguments=arguments: s.model.generate_streaming(  # type: ignore[misc]
        **{"text": "Hello world", **FIXED, **arguments(s)}
    )
for option, values in OPTIONS.items():
    CALLS[f"generate/{option}"] = lambda s, values=values: speak(s, **values)  # type: ignore[misc]
for mistake, arguments in MISTAKES.items():
    CALLS[f"generate/error/{mistake}"] = lambda s, arguments=arguments: speak(s, **arguments(s))  # type: ignore[misc]
    CALLS[f"generate_streaming/error/{mistake}"] = lambda s, arguments=arguments: list(  # type: ignore[misc]
        s.model.generate_streaming(**{"text": "Hello world", **FIXED, **arguments(s)})
    )


@call("generate/positional")
def _positional(s: Setting) -> Any:
    return s.model.generate(
        "Hello", s.prompt, PROMPT_TEXT, s.ref, 2.0, 3, PATCHES, PATCHES, False, False, False, 3, 6.0
    )


def _clip(s: Setting, name: str, wav: Any, rate: int = 16000) -> str:
    import soundfile

    soundfile.write(s.folder / name, wav, rate, subtype="FLOAT")
    return str(s.folder / name)


@call("generate/silent_reference")
def _silent(s: Setting) -> Any:
    import numpy as np

    return speak(s, reference_wav_path=_clip(s, "silent.wav", np.zeros(16000)))


@call("generate/reference_of_50_ms")
def _short(s: Setting) -> Any:
    import numpy as np

    return speak(s, reference_wav_path=_clip(s, "short.wav", np.full(800, 0.5)))


@call("generate/stereo_reference_at_44100_hz")
def _stereo(s: Setting) -> Any:
    import numpy as np

    sweep = np.sin(np.arange(44100) * np.linspace(0.01, 0.2, 44100))
    return speak(s, reference_wav_path=_clip(s, "stereo.wav", np.stack((sweep, 0.5 * sweep), 1), 44100))


@call("generate/error/reference_is_no_audio")
def _no_audio(s: Setting) -> Any:
    return speak(s, reference_wav_path=str(s.folder / "lines.txt"))


@call("generate/text_beyond_the_context")
def _beyond(s: Setting) -> Any:
    return speak(s, text="Hello world " * 300)


@call("generate/denoise")
def _denoise(s: Setting) -> Any:
    return speak(s, reference_wav_path=s.ref, denoise=True)


@call("generate/repeats_after_manual_seed")
def _repeats(s: Setting) -> Any:
    """The official way to repeat an utterance in 2.0.3; later versions and ours also have `seed`."""
    import numpy as np
    import torch

    said = []
    for _ in range(2):
        torch.manual_seed(5)
        said.append(speak(s))
    return bool(np.array_equal(*said))


@call("constructor")
def _constructor(s: Setting) -> Any:
    model = package().VoxCPM(voxcpm_model_path=str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu")
    return model.generate("Hello", **FIXED)


@call("constructor/positional")
def _constructor_positional(s: Setting) -> Any:
    model = package().VoxCPM(str(s.checkpoint), None, False, False, "cpu", None, None)
    return model.generate("Hello", **FIXED)


@call("constructor/error/no_folder")
def _constructor_nowhere(s: Setting) -> Any:
    return package().VoxCPM("/nowhere/model", enable_denoiser=False, optimize=False)


@call("from_pretrained")
def _from_pretrained(s: Setting) -> Any:
    model = package().VoxCPM.from_pretrained(
        str(s.checkpoint), load_denoiser=False, cache_dir=None, local_files_only=True, optimize=False, device="cpu"
    )
    return model.generate("Hello", **FIXED)


@call("from_pretrained/lora")
def _from_pretrained_lora(s: Setting) -> Any:
    model = package().VoxCPM.from_pretrained(
        str(s.checkpoint), load_denoiser=False, optimize=False, device="cpu",
        lora_config=lora_config(s), lora_weights_path=str(s.lora),
    )  # fmt: skip
    return model.lora_enabled, len(model.get_lora_state_dict()), model.generate("Hello", **FIXED)


@call("from_pretrained/error/empty_id")
def _from_pretrained_empty(s: Setting) -> Any:
    return package().VoxCPM.from_pretrained("")


@call("from_pretrained/error/not_in_cache")
def _from_pretrained_absent(s: Setting) -> Any:
    return package().VoxCPM.from_pretrained("nobody/nothing", load_denoiser=False, local_files_only=True)
