"""Make every documented call of the official package's Python API and command line on one checkpoint; print the results.

    python benchmarks/upstream_calls.py --golden ../shared/golden > ours.jsonl
    cd / && /path/to/official/venv/bin/python .../upstream_calls.py --golden /path/to/golden > theirs.jsonl

It runs unchanged with either package, because it uses documented names only. It prints one JSON line per call: its name and the
kind of its result (type, dtype, shape if the arguments determine it) or the kind of its error. The first line names the package.
tests/voxcpm/test_upstream_calls.py compares our answers with the official ones recorded in tests/voxcpm/upstream_calls.json,
which `--record FILE` writes.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import fnmatch
import hashlib
import io
import json
import logging
import os
import runpy
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
# The script's folder is first on the path; the package to test is the installed one, or that of the current folder.
sys.path[0] = os.getcwd()  # noqa: PTH109

PATCHES = 4
#: min_len disables the stop decision, so that the length is known: PATCHES of 160 ms.
FIXED = {"min_len": PATCHES, "max_len": PATCHES, "inference_timesteps": 3}
PROMPT_TEXT = "It was the best of times, "

#: Calls that version 2.0.3 of the official package cannot do if only its required packages, or not all of them, are installed.
NEEDS = {
    "generate/denoise": ("modelscope", "the denoiser (ZipEnhancer) runs in modelscope"),
    "generate/normalize": ("wetext", "text normalization is wetext's (and inflect's)"),
    "cli/design/normalize": ("wetext", "text normalization is wetext's (and inflect's)"),
}


@dataclass
class Setting:
    """The objects that the calls use."""

    model: Any  #: VoxCPM
    golden: Path
    checkpoint: Path
    lora: Path
    ref: str
    prompt: str
    folder: Path  #: to write into


CALLS: dict[str, Callable[[Setting], Any]] = {}


def call(name: str) -> Callable[[Callable[[Setting], Any]], Callable[[Setting], Any]]:
    """Add a function to the list of calls."""

    def enter(function: Callable[[Setting], Any]) -> Callable[[Setting], Any]:
        CALLS[name] = function
        return function

    return enter


def kind(value: Any) -> Any:
    """Return the kind of a value (type, dtype, shape), without its content."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        return {"type": "numpy.ndarray", "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, torch.Tensor):
        return {"type": "torch.Tensor", "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {"type": "dict", "items": {str(key): kind(item) for key, item in sorted(value.items())}}
    if isinstance(value, tuple | list):
        return {"type": type(value).__name__, "items": [kind(item) for item in value]}
    if isinstance(value, types.GeneratorType) or (isinstance(value, Iterator) and not hasattr(value, "read")):
        return {"type": "generator", "items": [kind(item) for item in value]}
    if value is None or isinstance(value, bool | int | str):
        return {"type": type(value).__name__, "value": value}
    return {"type": type(value).__name__}


def error_kind(error: BaseException) -> str:
    """Return the built-in class of an error, on which a caller can rely."""
    return next(c.__name__ for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)


# -- Python: VoxCPM ----------------------------------------------------------------------------------------------------


def speak(setting: Setting, **options: Any) -> Any:
    """Call `generate` with a known length."""
    return setting.model.generate(**{"text": "Hello world", **FIXED, **options})


def _prompt(s: Setting) -> dict[str, Any]:
    return {"prompt_wav_path": s.prompt, "prompt_text": PROMPT_TEXT}


MODES: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "basic": lambda s: {},
    "design": lambda s: {"text": "(A young woman, gentle voice)Hello"},
    "reference": lambda s: {"reference_wav_path": s.ref},
    "controllable": lambda s: {"text": "(slightly faster)Hello", "reference_wav_path": s.ref},
    "continuation": _prompt,
    "ref_continuation": lambda s: {**_prompt(s), "reference_wav_path": s.ref},
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


def _package() -> Any:
    return import_module("voxcpm")


@call("constructor")
def _constructor(s: Setting) -> Any:
    model = _package().VoxCPM(voxcpm_model_path=str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu")
    return model.generate("Hello", **FIXED)


@call("constructor/positional")
def _constructor_positional(s: Setting) -> Any:
    model = _package().VoxCPM(str(s.checkpoint), None, False, False, "cpu", None, None)
    return model.generate("Hello", **FIXED)


@call("constructor/error/no_folder")
def _constructor_nowhere(s: Setting) -> Any:
    return _package().VoxCPM("/nowhere/model", enable_denoiser=False, optimize=False)


@call("from_pretrained")
def _from_pretrained(s: Setting) -> Any:
    model = _package().VoxCPM.from_pretrained(
        str(s.checkpoint), load_denoiser=False, cache_dir=None, local_files_only=True, optimize=False, device="cpu"
    )
    return model.generate("Hello", **FIXED)


@call("from_pretrained/lora")
def _from_pretrained_lora(s: Setting) -> Any:
    model = _package().VoxCPM.from_pretrained(
        str(s.checkpoint), load_denoiser=False, optimize=False, device="cpu",
        lora_config=_lora_config(s), lora_weights_path=str(s.lora),
    )  # fmt: skip
    return model.lora_enabled, len(model.get_lora_state_dict()), model.generate("Hello", **FIXED)


@call("from_pretrained/error/empty_id")
def _from_pretrained_empty(s: Setting) -> Any:
    return _package().VoxCPM.from_pretrained("")


@call("from_pretrained/error/not_in_cache")
def _from_pretrained_absent(s: Setting) -> Any:
    return _package().VoxCPM.from_pretrained("nobody/nothing", load_denoiser=False, local_files_only=True)


# -- Python: LoRA ------------------------------------------------------------------------------------------------------


def _lora_config(s: Setting) -> Any:
    values = json.loads((s.lora / "lora_config.json").read_text(encoding="utf-8"))["lora_config"]
    return import_module("voxcpm.model.voxcpm").LoRAConfig(**values)


@call("lora/off_at_first")
def _lora_off(s: Setting) -> Any:
    return s.model.lora_enabled, s.model.get_lora_state_dict()


@call("lora/whole_life")
def _lora_life(s: Setting) -> Any:
    model = _package().VoxCPM(
        str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu", lora_config=_lora_config(s)
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

    model = _package().VoxCPM(
        str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu",
        lora_config=_lora_config(s), lora_weights_path=str(s.lora),
    )  # fmt: skip
    model.unload_lora()
    return all(not bool(torch.any(t)) for name, t in model.get_lora_state_dict().items() if name.endswith("lora_B"))


@call("lora/load_into_a_model_without_adapters")
def _lora_into_plain(s: Setting) -> Any:
    model = _package().VoxCPM(str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu")
    loaded, skipped = model.load_lora(str(s.lora))
    return len(loaded), len(skipped)


@call("lora/error/no_folder")
def _lora_nowhere(s: Setting) -> Any:
    model = _package().VoxCPM(
        str(s.checkpoint), enable_denoiser=False, optimize=False, device="cpu", lora_config=_lora_config(s)
    )
    return model.load_lora("/nowhere/lora")


# -- Python: tts_model -------------------------------------------------------------------------------------------------


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
        str(s.checkpoint), optimize=False, training=True, device="cpu", lora_config=_lora_config(s)
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
        str(s.checkpoint), optimize=False, device="cpu", lora_config=_lora_config(s)
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


# -- the command line --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command line, with the files that it must write."""

    arguments: Callable[[Setting], list[str]]
    files: tuple[str, ...] = ()


def _model(s: Setting) -> list[str]:
    return ["--model-path", str(s.checkpoint), "--no-denoiser", "--no-optimize", "--device", "cpu"]


def _design(*more: str, text: str = "Hi", out: str = "out.wav") -> Command:
    return Command(
        lambda s: ["design", "--text", text, "--output", str(s.folder / out), *_FEW, *_model(s), *more], (out,)
    )


def _clone(*more: str) -> Command:
    def arguments(s: Setting) -> list[str]:
        known = {"REF": s.ref, "PROMPT": s.prompt, "WORDS": str(s.folder / "words.txt"), "LORA": str(s.lora)}
        return ["clone", "--text", "Hi", "-o", str(s.folder / "out.wav"), *_FEW, *_model(s)] + [
            known.get(m, m) for m in more
        ]

    return Command(arguments, ("out.wav",))


def _batch(*more: str, lines: str = "lines.txt") -> Command:
    def arguments(s: Setting) -> list[str]:
        words = ["batch", "--input", str(s.folder / lines), "--output-dir", str(s.folder / "outs"), *_FEW, *_model(s)]
        return words + [{"REF": s.ref}.get(m, m) for m in more]

    return Command(arguments, ("outs/output_001.wav", "outs/output_002.wav", "outs/output_003.wav"))


def _plain(*words: str) -> Command:
    return Command(lambda s: [word.replace("FOLDER", str(s.folder)) for word in words])


def _legacy(*more: str, files: tuple[str, ...] = ("out.wav",)) -> Command:
    def arguments(s: Setting) -> list[str]:
        known = {"REF": s.ref, "OUT": str(s.folder / "out.wav"), "OUTS": str(s.folder / "outs"),
                 "LINES": str(s.folder / "lines.txt"), "PROMPT": s.prompt}  # fmt: skip
        return [known.get(m, m) for m in more] + [*_FEW, *_model(s)]

    return Command(arguments, files)


_FEW = ("--inference-timesteps", "2")
_LORA = ("--lora-path", "LORA", "--lora-r", "4", "--lora-alpha", "8", "--lora-enable-proj")
_BATCH = ("outs/output_001.wav", "outs/output_002.wav")
COMMANDS: dict[str, Command] = {
    "help": _plain("--help"),
    "design/help": _plain("design", "--help"),
    "clone/help": _plain("clone", "--help"),
    "batch/help": _plain("batch", "--help"),
    "validate/help": _plain("validate", "--help"),
    "design": _design(),
    "design/short_flags": Command(
        lambda s: ["design", "-t", "Hi", "-o", str(s.folder / "out.wav"), *_FEW, *_model(s)], ("out.wav",)
    ),
    "design/control": _design("--control", "warm"),
    "design/cfg": _design("--cfg-value", "1.5"),
    "design/normalize": _design("--normalize"),
    "design/new_folder": _design(out="new/folder/out.wav"),
    "design/error/no_text": Command(lambda s: ["design", "-o", str(s.folder / "out.wav"), *_model(s)], ("out.wav",)),
    "design/error/empty_text": _design(text=""),
    "design/error/no_output": Command(lambda s: ["design", "--text", "Hi", *_model(s)]),
    "design/error/cfg_too_high": _design("--cfg-value", "10.5"),
    "design/error/cfg_too_low": _design("--cfg-value", "0.05"),
    "design/error/no_steps": _design("--inference-timesteps", "0"),
    "design/error/too_many_steps": _design("--inference-timesteps", "101"),
    "design/error/unknown_flag": _design("--speed", "2"),
    "design/error/unknown_device": _design("--device", "toaster"),
    "design/error/reference_given": _design("--reference-audio", "voice.wav"),
    "design/error/prompt_given": _design("--prompt-audio", "voice.wav", "--prompt-text", "words"),
    "design/error/no_model": Command(
        lambda s: ["design", "--text", "Hi", "-o", str(s.folder / "out.wav"), "--model-path", "/nowhere"], ("out.wav",)
    ),
    "clone/reference": _clone("--reference-audio", "REF"),
    "clone/reference_short": _clone("-ra", "REF"),
    "clone/control": _clone("--reference-audio", "REF", "--control", "slower"),
    "clone/prompt": _clone("--prompt-audio", "PROMPT", "--prompt-text", PROMPT_TEXT),
    "clone/prompt_short": _clone("-pa", "PROMPT", "-pt", PROMPT_TEXT),
    "clone/prompt_file": _clone("--prompt-audio", "PROMPT", "--prompt-file", "WORDS"),
    "clone/both": _clone("--reference-audio", "REF", "--prompt-audio", "PROMPT", "--prompt-text", PROMPT_TEXT),
    "clone/lora": _clone("--reference-audio", "REF", *_LORA),
    "clone/error/no_voice": _clone(),
    "clone/error/prompt_without_text": _clone("--prompt-audio", "PROMPT"),
    "clone/error/text_without_prompt": _clone("--prompt-text", "words"),
    "clone/error/two_prompt_texts": _clone("-pa", "PROMPT", "-pt", "words", "--prompt-file", "WORDS"),
    "clone/error/control_and_prompt": _clone("-pa", "PROMPT", "-pt", "words", "--control", "slower"),
    "clone/error/no_reference_file": _clone("--reference-audio", "/nowhere.wav"),
    "clone/error/no_prompt_file": _clone("--prompt-audio", "/nowhere.wav", "--prompt-text", "words"),
    "clone/error/no_prompt_text_file": _clone("--prompt-audio", "PROMPT", "--prompt-file", "/nowhere.txt"),
    "clone/error/no_lora": _clone("--reference-audio", "REF", "--lora-path", "/nowhere"),
    "clone/error/lora_rank": _clone("--reference-audio", "REF", "--lora-path", "LORA", "--lora-r", "0"),
    "clone/error/lora_alpha": _clone("--reference-audio", "REF", "--lora-path", "LORA", "--lora-alpha", "-1"),
    "clone/error/lora_dropout": _clone("--reference-audio", "REF", "--lora-path", "LORA", "--lora-dropout", "1.5"),
    "batch": _batch(),
    "batch/reference_control": _batch("--reference-audio", "REF", "--control", "calm"),
    "batch/error/no_input": _batch(lines="nowhere.txt"),
    "batch/error/empty_input": _batch(lines="empty.txt"),
    "batch/error/prompt_without_text": _batch("--prompt-audio", "REF"),
    "batch/error/no_folder": Command(lambda s: ["batch", "--input", str(s.folder / "lines.txt"), *_model(s)]),
    "validate": _plain("validate", "--manifest", "FOLDER/good.jsonl"),
    "validate/flags": _plain(
        "validate", "-m", "FOLDER/good.jsonl", "--sample-rate", "16000", "--max-samples", "1", "-v"
    ),
    "validate/error/wrong_rate": _plain("validate", "--manifest", "FOLDER/good.jsonl", "--sample-rate", "48000"),
    "validate/error/no_manifest": _plain("validate", "--manifest", "FOLDER/nowhere.jsonl"),
    "validate/error/not_given": _plain("validate"),
    "validate/error/no_text": _plain("validate", "--manifest", "FOLDER/no_text.jsonl"),
    "validate/error/no_audio_file": _plain("validate", "--manifest", "FOLDER/no_audio.jsonl"),
    "validate/error/broken_json": _plain("validate", "--manifest", "FOLDER/broken.jsonl"),
    "validate/error/empty": _plain("validate", "--manifest", "FOLDER/empty.txt"),
    "legacy/design": _legacy("--text", "Hi", "--output", "OUT"),
    "legacy/clone": _legacy("--text", "Hi", "--reference-audio", "REF", "--output", "OUT"),
    "legacy/batch": _legacy("--input", "LINES", "--output-dir", "OUTS", files=_BATCH),
    "legacy/error/no_output": _legacy("--text", "Hi", files=()),
    "legacy/error/text_and_input": _legacy("--text", "Hi", "--input", "LINES", "--output-dir", "OUTS", files=_BATCH),
    "legacy/error/nothing": _plain(),
    "error/unknown_verb": _plain("sing"),
}


def _run(command: Command, s: Setting) -> dict[str, Any]:
    """Run `python -m voxcpm.cli` in this process; return its exit status and the files it writes."""
    import soundfile

    files = [s.folder / name for name in command.files]
    for path in files:
        path.unlink(missing_ok=True)
    given, sys.argv = sys.argv, ["voxcpm", *command.arguments(s)]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_module("voxcpm.cli", run_name="__main__", alter_sys=False)
        status: Any = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:  # in a process, a traceback and status 1
        status = f"1 and a traceback: {error_kind(error)}"
    finally:
        sys.argv = given
    said = out.getvalue() + err.getvalue()
    if os.environ.get("UPSTREAM_CALLS_SHOW"):
        sys.stderr.write(said)
    sounds = {}
    for path in files:
        if path.is_file():
            about = soundfile.info(path)
            sounds[path.relative_to(s.folder).as_posix()] = [about.format, about.samplerate, about.channels]
    return {"exit": status, "files": sounds, "says_something": bool(said.strip())}


for title, command in COMMANDS.items():
    CALLS[f"cli/{title}"] = lambda s, command=command: _run(command, s)  # type: ignore[misc]


# ----------------------------------------------------------------------------------------------------------------------


def set_up(golden: Path, folder: Path) -> Setting:
    """Make the clips and manifests that the calls need, and load the model."""
    import soundfile
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    stored = load_file(golden / "generation.safetensors")
    for name in ("ref", "prompt"):
        soundfile.write(folder / f"{name}.wav", stored[f"{name}_wav_16k"].numpy(), 16000, subtype="FLOAT")
    row = {"audio": str(folder / "ref.wav"), "text": "Hello world"}
    texts = {
        "words.txt": PROMPT_TEXT,
        "lines.txt": "Hi\n\nYou\n",
        "empty.txt": "",
        "good.jsonl": json.dumps(row) + "\n" + json.dumps({**row, "ref_audio": row["audio"]}) + "\n",
        "no_text.jsonl": json.dumps({"audio": row["audio"]}) + "\n",
        "no_audio.jsonl": json.dumps({**row, "audio": str(folder / "nowhere.wav")}) + "\n",
        "broken.jsonl": "{nonsense\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    checkpoint = golden / "checkpoint"
    model = _package().VoxCPM.from_pretrained(str(checkpoint), load_denoiser=False, optimize=False, device="cpu")
    return Setting(
        model, golden, checkpoint, golden / "lora", str(folder / "ref.wav"), str(folder / "prompt.wav"), folder
    )


def answers(golden: Path, pattern: str = "*") -> Iterator[dict[str, Any]]:
    """Make the calls whose name matches; yield {"call", "result" or "error" or "cannot"}."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            setting = set_up(golden.resolve(), Path(folder))
        for name, make in CALLS.items():
            if not fnmatch.fnmatch(name, pattern):
                continue
            try:
                with contextlib.redirect_stdout(silent):
                    answer: dict[str, Any] = {
                        "result": kind(make(setting)) if not name.startswith("cli/") else make(setting)
                    }
            except Exception as error:
                answer = {"error": error_kind(error)}
                if os.environ.get("UPSTREAM_CALLS_SHOW"):
                    sys.stderr.write(f"{type(error).__name__}: {error}\n")
            package, reason = NEEDS.get(name, ("", ""))
            if package and util.find_spec(package) is None:
                answer["without"] = f"{package} is not installed: {reason}"
            yield {"call": name, **answer}


def about(golden: Path) -> dict[str, str]:
    """Return the versions of the tested package and of torch, and the digest of the checkpoint."""
    digest = hashlib.sha256((golden / "checkpoint" / "model.safetensors").read_bytes()).hexdigest()
    try:
        version = f"voxcpm {metadata.version('voxcpm')}"
    except metadata.PackageNotFoundError:
        version = "voxmill's voxcpm"
    torch = import_module("torch")
    return {"package": version, "torch": torch.__version__, "checkpoint": digest}


def main() -> None:
    """Print the answers, or record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--golden", type=Path, required=True, help="the folder with checkpoint/, lora/ and generation.safetensors"
    )
    parser.add_argument("--only", default="*", help="calls whose name matches this pattern")
    parser.add_argument("--record", type=Path, help="write the answers as one JSON file here")
    options = parser.parse_args()
    print(json.dumps(about(options.golden)), flush=True)
    found = []
    for answer in answers(options.golden, options.only):
        print(json.dumps(answer, ensure_ascii=False), flush=True)
        found.append(answer)
    if options.record:
        recorded = {
            "how": "python benchmarks/upstream_calls.py --golden GOLDEN --record FILE, run from / with the official package",
            **about(options.golden),
            "answers": {answer.pop("call"): answer for answer in found},
        }
        options.record.write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
