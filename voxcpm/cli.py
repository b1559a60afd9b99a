"""The official package's command line: `python -m voxcpm design|clone|batch|validate ...`, with its flags, rules and exit status.

`python -m voxcpm serve CHECKPOINT` is ours: the server of `voxmill serve`, with the same options.

    python -m voxcpm design --text "Good morning." --control "a calm old man" --output morning.wav
    python -m voxcpm clone --text "Good morning." --reference-audio her.wav --output morning.wav

Exit status: 0 success, 1 failure, 2 wrong arguments. No console script is installed, so that the official package's `voxcpm`
is not shadowed. The old flags without a subcommand still work, with a warning.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxcpm.errors import AudioError
from voxcpm.inference.options import CFG_RANGE, STEPS_RANGE
from voxcpm.inference.write_audio import FORMATS
from voxcpm.lazy import exported
from voxcpm.provenance.c2pa.options import add_signing, given_signing
from voxcpm.watermark.speech import embedding_keys

if TYPE_CHECKING:
    from voxcpm.core import VoxCPM, Wav
    from voxcpm.provenance.c2pa.claim import Role
    from voxcpm.provenance.source import Source

#: Code around the official command line replaces these names of this module, and `load_model`.
_HOMES = {
    "VoxCPM": "voxcpm.core",
    "align_audio_file": "voxcpm.inference.timestamps",
    "sf": "soundfile:",
}
__getattr__ = exported(__name__, _HOMES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Return if it succeeds, otherwise raise SystemExit with the status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["serve"]:
        if status := _serve(words[1:]):
            raise SystemExit(status)
        return
    parser = _build_parser()
    options = parser.parse_args(words)
    if options.verb is None:
        options.verb = _legacy_verb(parser, options)
    if options.verb == "validate":
        from voxcpm.sequence.training_manifest import validate_manifest

        if not options.manifest.is_file():
            parser.error(f"manifest {options.manifest} does not exist")
        result = validate_manifest(options.manifest, options.sample_rate, options.max_samples, options.verbose)
        print(f"{options.manifest}: {result.report()}")
        if not result.is_valid:
            sys.stderr.write(f"voxcpm: FAILED: {options.manifest} has {len(result.errors)} error(s), listed above\n")
            raise SystemExit(1)
        return
    check(parser, options)
    try:
        clips: dict[Role, str | None] = {"reference": options.reference_audio, "prompt": options.prompt_audio}
        options.signing = given_signing(options, clips)
        options.watermark_keys = embedding_keys(options.watermark_key, off=options.no_watermark)
        status = _batch(options) if options.verb == "batch" else _one(options)
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"voxcpm: {' '.join(str(error).split())}\n")
        raise SystemExit(1) from None
    if status:
        raise SystemExit(status)


def _serve(words: list[str]) -> int:
    """Serve a checkpoint until a signal; return the exit status."""
    from voxcpm.server.settings import parse_arguments

    settings = parse_arguments(words)
    try:
        from voxcpm.server.run import serve

        serve(settings, lambda url: print(f"{settings.model_name} is ready at {url}", flush=True))
    except ImportError as error:
        sys.stderr.write(f"voxcpm: {error.name} is missing: pip install 'voxmill[serve]'\n")
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"voxcpm: {' '.join(str(error).split())}\n")
        return 1
    return 0


# -- flags -------------------------------------------------------------------------------------------------------------


def _build_parser() -> argparse.ArgumentParser:
    """Build the parser with all subcommands. The flags of the root parser are the old ones."""
    parser = argparse.ArgumentParser(prog="voxcpm", description="Text to speech with VoxCPM2.")
    # Nothing is required here: `_legacy_verb` and `check` report what is missing.
    parser.add_argument("--input", "-i", type=Path, help="a file with one text per line")
    parser.add_argument("--output-dir", "-od", type=Path, help="the folder for a batch")
    parser.add_argument("--output", "-o", type=Path, help="the audio to write: .wav, .flac, .mp3, .ogg, .opus")
    _add_text(parser)
    _add_speech(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="{design,clone,batch,validate}")
    for name, words in (
        ("design", "a voice described in words, or any voice"),
        ("clone", "the voice of a reference clip, or the continuation of a prompt"),
    ):
        verb = verbs.add_parser(name, help=words, description=words)
        _add_text(verb)
        _add_speech(verb)
        verb.add_argument(
            "--output", "-o", type=Path, required=True, help="the audio to write: .wav, .flac, .mp3, .ogg, .opus"
        )
    batch = verbs.add_parser("batch", help="one WAV per line of a file", description="Write one WAV per line.")
    batch.add_argument("--input", "-i", type=Path, required=True, help="a file with one text per line")
    batch.add_argument("--output-dir", "-od", type=Path, required=True, help="the folder for output_001.wav ...")
    _add_speech(batch)
    validate = verbs.add_parser("validate", help="check a training manifest", description="Check a training manifest.")
    validate.add_argument("--manifest", "-m", type=Path, required=True, help="a JSONL file")
    validate.add_argument("--sample-rate", type=int, default=16000, help="the rate every clip must have (16000)")
    validate.add_argument("--max-samples", type=int, default=0, help="check this many lines only (0: all)")
    validate.add_argument("--verbose", "-v", action="store_true", help="also list the valid lines")
    return parser


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", "-t", help="the text to speak")


def _add_speech(parser: argparse.ArgumentParser) -> None:
    """Add the flags that the subcommands share."""
    add = parser.add_argument
    add("--control", help="the voice or style in words")
    add("--cfg-value", type=float, default=2.0, help="guidance, 0.1-10 (2.0)")
    add("--inference-timesteps", type=int, default=10, help="solver steps, 1-100 (10)")
    add("--normalize", action="store_true", help="spell out numbers and symbols first")
    add("--seed", type=int, help="same seed, same audio")
    add("--prompt-audio", "-pa", help="a clip to continue; needs its transcript")
    add("--prompt-text", "-pt", help="the transcript of the prompt")
    add("--prompt-file", help="a file with the transcript of the prompt")
    add("--reference-audio", "-ra", help="a clip of the voice to use")
    add("--denoise", action="store_true", help="denoise the clips first")
    add("--model-path", help="a checkpoint folder")
    add("--hf-model-id", default="openbmb/VoxCPM2", help="a hub id, used if no --model-path is given (openbmb/VoxCPM2)")
    add("--device", default="auto", help="auto, cpu, mps, cuda, cuda:1 ... (auto)")
    add("--cache-dir", help="the folder of downloaded hub files")
    add("--local-files-only", action="store_true", help="do not use the network")
    add("--no-denoiser", action="store_true", help="do not load a denoiser")
    add("--no-optimize", action="store_true", help="do not convert the model to its inference form")
    add("--zipenhancer-path", help="the denoiser: a GTCRN .onnx file or a modelscope id (or ZIPENHANCER_MODEL_PATH)")
    add("--lora-path", help="a LoRA folder or file")
    # The default None means that the value is read from the adapter's lora_config.json.
    add("--lora-r", type=int, help="rank (from lora_config.json, otherwise from the weights)")
    add("--lora-alpha", type=float, help="alpha (from lora_config.json, otherwise 16)")
    add("--lora-dropout", type=float, help="dropout (no effect during inference)")
    add("--lora-disable-lm", action="store_true", help="leave out the adapters of the language models")
    add("--lora-disable-dit", action="store_true", help="leave out the adapters of the diffusion transformer")
    add("--lora-enable-proj", action="store_true", help="use the adapters of the projections (from lora_config.json)")
    add("--no-mark", action="store_true", help="do not state in the files that they are synthetic (docs/provenance.md)")
    add("--no-watermark", action="store_true", help="leave out the watermark in the sound (docs/watermark.md)")
    add("--watermark-key", type=Path, help="a private key's file; its watermark is added to the public one")
    add_signing(parser)
    add("--timestamps", action="store_true", help="align the text with the audio (needs stable-ts)")
    add("--timestamp-output", type=Path, help="the JSON to write (beside the audio)")
    add(
        "--timestamp-level",
        choices=("segment", "word", "char"),
        default="word",
        help="the unit that gets a time (word)",
    )
    add("--timestamp-backend", choices=("stable-ts",), default="stable-ts", help="the aligner (stable-ts)")
    add("--timestamp-model", default="base", help="the aligner's Whisper model (base)")
    add("--timestamp-language", help="the language code (detected if not given)")
    add("--timestamp-device", help="the aligner's device (auto)")
    add("--timestamp-strict", action="store_true", help="fail when the alignment fails")


def _legacy_verb(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """Return the subcommand that flags without one stand for."""
    if options.input is None and options.text is None:
        parser.error("give a verb: design, clone, batch or validate (--help shows them)")
    sys.stderr.write("voxcpm: flags without a verb are deprecated: use design, clone or batch\n")
    if options.input is not None:
        if options.text is not None:
            parser.error("--text and --input exclude each other")
        if options.output_dir is None:
            parser.error("--input needs --output-dir")
        return "batch"
    if options.output is None:
        parser.error("--text needs --output")
    return "clone" if options.reference_audio or options.prompt_audio else "design"


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check the rules between flags. A violation exits with status 2 before any model is loaded."""
    fail = parser.error
    if not CFG_RANGE[0] <= options.cfg_value <= CFG_RANGE[1]:
        fail(f"--cfg-value {options.cfg_value:g} is outside {CFG_RANGE[0]}..{CFG_RANGE[1]:g}")
    if not STEPS_RANGE[0] <= options.inference_timesteps <= STEPS_RANGE[1]:
        fail(f"--inference-timesteps {options.inference_timesteps} is outside {STEPS_RANGE[0]}..{STEPS_RANGE[1]}")
    if options.lora_r is not None and options.lora_r < 1:
        fail("--lora-r must be at least 1")
    if options.lora_alpha is not None and options.lora_alpha <= 0:
        fail("--lora-alpha must be above 0")
    if options.lora_dropout is not None and not 0 <= options.lora_dropout <= 1:
        fail("--lora-dropout is outside 0..1")
    if options.verb == "batch":
        if not options.input.is_file():
            fail(f"input {options.input} does not exist")
    elif not (options.text or "").strip():
        fail(f"{options.verb} needs --text with something to say")
    if options.verb == "design" and (
        options.prompt_audio or options.reference_audio or options.prompt_text or options.prompt_file
    ):
        fail("design takes no clips: use clone")
    if options.prompt_text and options.prompt_file:
        fail("--prompt-text and --prompt-file exclude each other")
    words = options.prompt_text or options.prompt_file
    if options.prompt_audio and not words:
        fail("--prompt-audio requires --prompt-text or --prompt-file")
    if words and not options.prompt_audio:
        fail("--prompt-text/--prompt-file requires --prompt-audio")
    if words and options.control:
        fail("--control and a prompt text exclude each other: the prompt already sets the style")
    if options.reference_audio and detect_model_architecture(options) == "voxcpm":
        fail("--reference-audio needs a VoxCPM2 model: this one is VoxCPM 0.5B or 1.5, which only continues a prompt")
    if options.verb == "clone" and not (options.reference_audio or options.prompt_audio):
        fail("clone needs --reference-audio, or --prompt-audio with its text")
    for what, path in (
        ("reference audio", options.reference_audio),
        ("prompt audio", options.prompt_audio),
        ("prompt text file", options.prompt_file),
    ):
        if path and not Path(path).is_file():
            fail(f"{what} {path} does not exist")
    if options.verb != "batch" and options.output.suffix.lower() not in FORMATS:
        fail(f"--output {options.output} must end in one of {', '.join(FORMATS)}")
    if options.denoise and options.no_denoiser:
        fail("--denoise and --no-denoiser exclude each other")


# -- work --------------------------------------------------------------------------------------------------------------


def detect_model_architecture(options: argparse.Namespace) -> str | None:
    """Return "voxcpm2", or "voxcpm" for the first version; None if neither config.json nor the model's name says it.

    Nothing is fetched. A config.json that cannot be read is reported when the model is loaded.
    """
    place = str(options.model_path or options.hf_model_id or "")
    config = Path(place).expanduser() / "config.json"
    if config.is_file():
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
            return str(values.get("architecture", "voxcpm")).lower()
        except (OSError, ValueError, AttributeError):
            return None
    name = place.lower()
    if "voxcpm2" in name:
        return "voxcpm2"
    return "voxcpm" if re.search(r"voxcpm[-_]?(1\.5|0\.5b)", name) else None


def load_model(options: argparse.Namespace) -> VoxCPM:
    """Load the model with its adapters."""
    from voxcpm.cli import VoxCPM  # type: ignore[attr-defined]  # so that a replaced one is used
    from voxcpm.inference.denoise import ZIPENHANCER
    from voxcpm.kernels.threads import spare_threads

    denoiser = options.zipenhancer_path or os.environ.get("ZIPENHANCER_MODEL_PATH") or ZIPENHANCER
    settings = {"optimize": not options.no_optimize, "device": options.device}
    model: VoxCPM
    if options.model_path:
        # An absolute path is never looked up on the hub.
        folder = Path(options.model_path).expanduser().absolute()
        if folder.is_dir():
            spare_threads(folder)
        model = VoxCPM(
            voxcpm_model_path=str(folder),
            enable_denoiser=not options.no_denoiser,
            zipenhancer_model_path=denoiser,
            **settings,
        )
    else:
        model = VoxCPM.from_pretrained(
            hf_model_id=options.hf_model_id,
            load_denoiser=not options.no_denoiser,
            zipenhancer_model_id=denoiser,
            cache_dir=options.cache_dir,
            local_files_only=options.local_files_only,
            **settings,
        )
    if options.lora_path:
        loaded, skipped = _load_lora(model, options)
        sys.stderr.write(f"voxcpm: {len(loaded)} LoRA tensors loaded, {len(skipped)} left out\n")
    return model


def _load_lora(model: VoxCPM, options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Load the adapters with the settings of their lora_config.json; a flag that is given replaces that field only."""
    from dataclasses import replace

    from voxcpm.weights.lora import LoRAConfig, load_lora, read_lora

    own, tensors = read_lora(options.lora_path)
    if own is None:
        has = [any(key.startswith(head) for key in tensors) for head in (("base_lm.", "residual_lm."), "feat_decoder.")]
        proj = any("." not in key.removesuffix(".lora_A") for key in tensors if key.endswith(".lora_A"))
        rank = next((len(tensor) for key, tensor in tensors.items() if key.endswith(".lora_A")), 32)
        own = LoRAConfig(enable_lm=has[0], enable_dit=has[1], enable_proj=proj, r=rank, alpha=16)
        sys.stderr.write(
            f"voxcpm: no lora_config.json beside the weights: rank {rank} is theirs, alpha 16 is assumed\n"
        )
    changed: dict[str, Any] = {
        name: value
        for name, value in (
            ("r", options.lora_r),
            ("alpha", options.lora_alpha),
            ("dropout", options.lora_dropout),
            ("enable_lm", False if options.lora_disable_lm else None),
            ("enable_dit", False if options.lora_disable_dit else None),
            ("enable_proj", True if options.lora_enable_proj else None),
        )
        if value is not None
    }
    return load_lora(model.tts_model.backbone, options.lora_path, replace(own, **changed), override=True)


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `VoxCPM.generate` except the text."""
    words = options.prompt_text
    if options.prompt_file:
        words = Path(options.prompt_file).read_text(encoding="utf-8").strip()
        if not words:
            raise ValueError(f"{options.prompt_file} is empty: it must hold the transcript of the prompt")
    return {
        "prompt_wav_path": options.prompt_audio,
        "prompt_text": words,
        "reference_wav_path": options.reference_audio,
        "cfg_value": options.cfg_value,
        "inference_timesteps": options.inference_timesteps,
        "normalize": options.normalize,
        "denoise": options.denoise,
        "seed": options.seed,
    }


def _said(options: argparse.Namespace, text: str) -> str:
    control = (options.control or "").strip()
    return f"({control}){text}" if control else text


def _source(options: argparse.Namespace, model: VoxCPM) -> Source:
    """Return what makes the statements and watermarks of the files."""
    from voxcpm.provenance.source import Source

    name = None if options.model_path else options.hf_model_id
    # Code that replaces `load_model` gives a model that may have only `generate` and a sample rate.
    folder = getattr(model.tts_model, "folder", None)
    lora = Path(options.lora_path) if options.lora_path else None
    return Source(folder, name, lora, not options.no_mark, options.watermark_keys)


def _save(options: argparse.Namespace, model: VoxCPM, source: Source, wav: Wav, text: str, path: Path) -> None:
    from voxcpm.inference.write_audio import write_audio
    from voxcpm.provenance.watermark_hook import marked_samples

    rate = model.tts_model.sample_rate
    seed = getattr(model, "last_successful_seed", None)
    wav = marked_samples(wav, rate, source.watermark(seed, _said(options, text)))
    signing = options.signing and replace(options.signing, payload=source.payload)
    write_audio(path, wav, rate, source.mark(seed), signing)
    print(f"{path}: {len(wav) / rate:.2f} s")
    if options.timestamps:
        from voxcpm.cli import align_audio_file
        from voxcpm.inference.timestamps import write_timestamps

        several = options.verb == "batch" or options.timestamp_output is None
        out = path.with_suffix(".timestamps.json") if several else options.timestamp_output
        try:
            found = align_audio_file(
                audio_path=str(path),
                text=text,
                sample_rate=rate,
                backend=options.timestamp_backend,
                level=options.timestamp_level,
                model_name=options.timestamp_model,
                device=options.timestamp_device,
                language=options.timestamp_language,
            )
            write_timestamps(found, out)
            print(f"{out}: timestamps")
        except (RuntimeError, ValueError, OSError) as error:
            if options.timestamp_strict:
                raise
            sys.stderr.write(f"voxcpm: no timestamps for {path}: {error}\n")


def _check_timestamps(options: argparse.Namespace) -> None:
    """Raise RuntimeError if the library is missing, before minutes of speech are generated."""
    if options.timestamps and options.timestamp_strict:
        from voxcpm.inference.timestamps import aligner_library

        aligner_library()


def _one(options: argparse.Namespace) -> int:
    arguments = _arguments(options)
    _check_timestamps(options)
    model = load_model(options)
    source = _source(options, model)
    wav = model.generate(text=_said(options, options.text), **arguments)
    _save(options, model, source, wav, options.text, options.output)
    return 0


def _batch(options: argparse.Namespace) -> int:
    """Speak each line separately: a line that fails is reported and the others are spoken. Return 0 if all succeeded."""
    lines = [line.strip() for line in options.input.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{options.input} holds no text")
    arguments = _arguments(options)
    _check_timestamps(options)
    model = load_model(options)
    source = _source(options, model)
    done = 0
    for number, line in enumerate(lines, 1):
        path = options.output_dir / f"output_{number:03d}.wav"
        try:
            wav = model.generate(text=_said(options, line), **arguments)
        except AudioError:
            raise  # all lines use the same clip
        except (ValueError, RuntimeError) as error:
            sys.stderr.write(f"voxcpm: line {number}: {error}\n")
            continue
        _save(options, model, source, wav, line, path)
        done += 1
    print(f"{done} of {len(lines)} lines spoken")
    return 0 if done == len(lines) else 1


if __name__ == "__main__":
    main()
