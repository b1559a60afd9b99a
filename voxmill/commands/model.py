"""`voxmill speak`: text to audio with a checkpoint: every layout, streaming, long texts, batches, saved voices."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxmill.commands.speak_checks import check_numbers
from voxmill.commands.speak_table import TableOptions, check_options, given_options, overrides_of, speak_rows
from voxmill.speech_job import SpeechJob, voice_of
from voxmill.terminal import JsonOption, Terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voxcpm.provenance.c2pa.claim import Role
    from voxcpm.provenance.c2pa.signer import Signing

    Wav = NDArray[np.float32]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(speak)


def speak(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", "-m", help="A checkpoint folder or a hub id.")],
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="Text to speak; '(a calm old man)Hello' also describes the voice."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The audio to write (48 kHz): .wav, .flac, .mp3, .ogg or .opus; - is standard output; with --file a folder.",
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Speak every line of this file: 001.wav, 002.wav ...")] = None,
    describe: Annotated[str | None, typer.Option(help="The voice or style in words, e.g. 'A calm old man'.")] = None,
    reference: Annotated[Path | None, typer.Option(help="A clip whose voice is used.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="A clip to continue; needs --prompt-text.")] = None,
    prompt_text: Annotated[str | None, typer.Option(help="Transcript of the prompt.")] = None,
    voice: Annotated[Path | None, typer.Option(help="A voice kept with --save-voice, instead of clips.")] = None,
    save_voice: Annotated[Path | None, typer.Option(help="Keep the clips' voice in this .safetensors file.")] = None,
    long: Annotated[bool, typer.Option("--long", help="A text of any length: piece by piece, one voice.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write the audio piece by piece, as soon as each is made.")
    ] = False,
    cfg: Annotated[float, typer.Option(help="Guidance, 0.1-10.")] = 2.0,
    steps: Annotated[int, typer.Option(help="Solver steps, 1-100.")] = 10,
    sway: Annotated[float, typer.Option(help="Where the steps are dense: 1 near the noise, 0 evenly.")] = 1.0,
    no_cfg_zero_star: Annotated[bool, typer.Option("--no-cfg-zero-star", help="Plain guidance.")] = False,
    temperature: Annotated[float, typer.Option(help="Scale of the noise, 0-2.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same audio.")] = None,
    min_seconds: Annotated[float | None, typer.Option(help="Shortest audio, in seconds.")] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(help="Longest audio, in seconds. Default: twice the usual speaking time plus 2."),
    ] = None,
    retry: Annotated[int, typer.Option(help="Attempts for an utterance that does not end (not with --stream).")] = 3,
    normalize: Annotated[bool, typer.Option("--normalize", help="Write out numbers and the like first.")] = False,
    denoise: Annotated[
        str | None, typer.Option(help="Clean the clips with this denoiser: a GTCRN .onnx file or a modelscope id.")
    ] = None,
    lora: Annotated[Path | None, typer.Option(help="An adapter folder, as `voxmill train` writes it.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16 or int8; the checkpoint's if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile for a GPU, with CUDA graphs: minutes once, then faster.")
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Speak every row of this .parquet, .csv, .tsv or .jsonl into the folder -o (docs/speak_table.md)."
        ),
    ] = None,
    voices: Annotated[
        str | None, typer.Option(help="Voices for all rows of --table: a table, or clips such as 'voices/*.wav'.")
    ] = None,
    descriptions: Annotated[
        Path | None, typer.Option(help="Descriptions for all rows of --table: a table, or a file with one a line.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML with settings of --table.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of --table, e.g. format=wav or generate.batch=32.")
    ] = None,
    executor: Annotated[str | None, typer.Option(help="With --table: ray (default) or inline.")] = None,
    address: Annotated[str | None, typer.Option(help="With --table: Ray cluster to join.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --table: only check the rows, and forecast the time from a trial.")
    ] = False,
    trial: Annotated[int, typer.Option(help="Rows to speak for --dry-run.", min=0)] = 8,
    no_mark: Annotated[
        bool, typer.Option("--no-mark", help="Do not state in the files that they are synthetic (docs/provenance.md).")
    ] = False,
    no_watermark: Annotated[
        bool, typer.Option("--no-watermark", help="Leave out the watermark in the sound (docs/watermark.md).")
    ] = False,
    watermark_key: Annotated[
        Path | None, typer.Option(help="File of a private key, whose watermark is added to the public one.")
    ] = None,
    sign_key: Annotated[
        Path | None, typer.Option(help="Sign the files with this private key (PEM), as C2PA does. Needs --sign-cert.")
    ] = None,
    sign_cert: Annotated[Path | None, typer.Option(help="Certificate of the key and its chain (PEM).")] = None,
    sign_training: Annotated[
        str, typer.Option(help="What signed files say of training on them: allowed, notAllowed or constrained.")
    ] = "notAllowed",
    sign_tsa: Annotated[
        str | None, typer.Option(help="URL of a time stamping service. Default: none is asked.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Speak a text with a checkpoint: plain, described, with a reference voice, continuing a prompt, or both.

    With --table, speak every row of a table: batched by length, on one or many GPUs. May be killed at any time; run the same
    command to resume.

    Example:  voxmill speak "Good morning." --model demo/model/latest -o morning.wav --describe "A calm young woman"
    """
    given = given_options(context)
    check_options(given, table is not None)
    check_numbers(cfg, steps, temperature, sway, min_seconds, max_seconds, retry, dtype)
    if lora is not None and not lora.exists():
        raise FileNotFoundError(f"no LoRA adapter at {lora}")
    if table is not None:
        options = TableOptions(table, model, out, voices, descriptions, config, dry_run, trial, as_json)
        speak_rows(options, overrides_of(context.params, given))
        return
    if as_json and str(out) == "-":
        raise ValueError("-o - and --json both write to standard output: leave one of them out")
    # With -o -, standard output carries audio, so messages go to standard error.
    terminal = Terminal(as_json or str(out) == "-")
    lines = _lines(text, file, save_voice)
    _check(lines, out, file, stream, describe, reference, prompt, prompt_text, voice, save_voice)
    if reference is not None and Path(model).is_dir():
        from voxcpm.config import VoxCPM2Config

        VoxCPM2Config.load(model).check_reference()  # before the weights are loaded
    clips: dict[Role, Path | None] = {"reference": reference, "prompt": prompt, "voice": voice}
    signing = _signing(sign_key, sign_cert, sign_training, sign_tsa, no_mark, clips)
    if signing is not None and str(out) == "-" and (stream or long):
        raise ValueError("-o - with --stream or --long cannot be signed: give a file's name, or leave --sign-key out")
    if long and (min_seconds is not None or max_seconds is not None):
        raise ValueError("--long has no --min-seconds or --max-seconds: each piece is as long as its words ask for")

    from voxcpm import VoxCPM
    from voxcpm.inference.prompt_cache import save_prompt_cache
    from voxcpm.kernels.threads import spare_threads
    from voxcpm.provenance.source import Source
    from voxcpm.watermark import embedding_keys
    from voxcpm.weights.checkpoint import find_checkpoint

    keys = embedding_keys(watermark_key, off=no_watermark)
    started = time.perf_counter()
    folder = find_checkpoint(model)
    # Begun before loading, so that a stream does not wait for the digest.
    source = Source(folder, model, lora, not no_mark, keys)
    spare_threads(folder)
    tts = VoxCPM.from_pretrained(
        folder,
        load_denoiser=denoise is not None,
        zipenhancer_model_id=denoise,
        device=device,
        lora_weights_path=lora,
        dtype=dtype,
        compile_towers=compiled,
    )
    loaded = time.perf_counter()
    cache = voice_of(tts, voice, reference, prompt, prompt_text, denoise is not None)
    if save_voice is not None and cache is not None:
        save_prompt_cache(cache, save_voice)
        terminal.say(f"{save_voice}: voice kept ({cache['mode']})")
    job = SpeechJob(
        tts,
        cache,
        describe.strip() if describe else None,
        normalize,
        {
            "cfg_value": cfg,
            "inference_timesteps": steps,
            "sway_sampling_coef": sway,
            "use_cfg_zero_star": not no_cfg_zero_star,
            "temperature": temperature,
            "seed": seed,
            "retry_badcase": retry > 1,
            "retry_badcase_max_times": retry,
        },
        min_seconds,
        max_seconds,
        source,
        signing,
    )
    if file is not None and out is not None:
        written = job.many(lines, out, long)
    elif out is not None:
        written = [(out, job.streamed(lines[0], out, long) if stream or long else job.one(lines[0], out))]
    else:
        written = []
    rate, spent = tts.tts_model.sample_rate, time.perf_counter() - loaded
    seconds = sum(samples for _, samples in written) / rate
    for path, samples in written:
        terminal.say(f"{path}: {samples / rate:.2f} s of audio at {rate} Hz")
    if written:
        terminal.say(f"{seconds:.2f} s of audio in {spent:.1f} s (real-time factor {spent / seconds:.2f})")
    if str(out) == "-":
        return
    terminal.result(
        {
            "out": str(out) if out else None,
            "seconds": seconds,
            "sample_rate": rate,
            "load_s": loaded - started,
            "generate_s": spent,
            "seed": tts.last_successful_seed if written else None,
            "voice": str(save_voice) if save_voice else None,
            "files": [{"out": str(path), "seconds": samples / rate} for path, samples in written],
        }
    )


# -- checks of the options ---------------------------------------------------------------------------------------------


def _lines(text: str | None, file: Path | None, save_voice: Path | None) -> list[str]:
    """Return the texts to speak; none if the command only saves a voice."""
    if file is None:
        if text is None and save_voice is not None:
            return []
        if text is None or not text.strip():
            raise ValueError("the text is empty: give something to say")
        return [text]
    if text is not None:
        raise ValueError("give a text or --file, not both")
    if not file.is_file():
        raise FileNotFoundError(f"no text file at {file}")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text") from None
    if not lines:
        raise ValueError(f"{file} holds no text")
    return lines


def _check(
    lines: list[str],
    out: Path | None,
    file: Path | None,
    stream: bool,
    describe: str | None,
    reference: Path | None,
    prompt: Path | None,
    prompt_text: str | None,
    voice: Path | None,
    save_voice: Path | None,
) -> None:
    """Check combinations of options before anything is loaded."""
    from voxcpm.inference.options import check_file, check_prompt
    from voxcpm.inference.write_audio import STDOUT, check_name

    if lines and out is None:
        raise ValueError("say where to write the audio: -o speech.wav (with --file a folder)")
    if file is not None and out == STDOUT:
        raise ValueError("-o - is for one text: with --file, -o is a folder")
    if out == STDOUT and sys.stdout.isatty():
        raise ValueError("-o - writes a WAV to standard output: send it to a player or a file, e.g. ... -o - | aplay")
    if file is not None and stream:
        raise ValueError("--stream is for one text: leave it out with --file")
    if file is not None and out is not None and out.is_file():
        raise ValueError(f"{out} is a file: with --file, -o is a folder")
    if file is None and out is not None and out.is_dir():
        raise ValueError(f"{out} is a folder: give the WAV's name, as in -o {out / 'speech.wav'}")
    if file is None and out is not None:
        check_name(out, stream)
    if voice is not None and (reference or prompt or prompt_text):
        raise ValueError("--voice stands for the clips: leave out --reference, --prompt and --prompt-text")
    if voice is not None and not voice.is_file():
        raise FileNotFoundError(f"no kept voice at {voice}: make one with --save-voice")
    check_prompt(prompt, prompt_text)
    check_file(reference)
    check_file(prompt)
    if describe and prompt is not None:
        raise ValueError("--describe and --prompt exclude each other: the prompt already sets the style")
    if save_voice is not None and not (reference or prompt):
        raise ValueError("--save-voice needs a clip: --reference, or --prompt with --prompt-text")
    if save_voice is not None and save_voice.suffix != ".safetensors":
        raise ValueError(f"--save-voice {save_voice}: the file's name must end in .safetensors")


def _signing(
    key: Path | None,
    certificates: Path | None,
    training: str,
    time_stamps: str | None,
    no_mark: bool,
    clips: dict[Role, Path | None],
) -> Signing | None:
    """Return how the files are signed, with the hashes of the clips; None if they are not."""
    from voxcpm.provenance.c2pa.claim import Clip
    from voxcpm.provenance.c2pa.signer import signing_of

    signing = signing_of(key, certificates, training, time_stamps, marks=not no_mark)
    found = tuple(Clip.of(path, role) for role, path in clips.items() if path is not None)
    return signing and replace(signing, clips=found)
