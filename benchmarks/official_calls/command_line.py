"""Command lines of the package, run in this process."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from official_calls.registry import (
    CALLS,
    PROMPT_TEXT,
    Setting,
    error_kind,
)


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
