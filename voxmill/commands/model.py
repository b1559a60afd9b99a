"""`voxmill speak`: text to a WAV with a VoxCPM2 checkpoint, in every layout."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from voxmill.terminal import JsonOption, Terminal


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(speak)


def speak(
    text: Annotated[str, typer.Argument(help="What to say.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A checkpoint folder or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The WAV to write (48 kHz).")],
    describe: Annotated[str | None, typer.Option(help="The voice or style in words, e.g. 'A calm old man'.")] = None,
    reference: Annotated[Path | None, typer.Option(help="A clip whose voice is to be used.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="A clip to continue; needs --prompt-text.")] = None,
    prompt_text: Annotated[str | None, typer.Option(help="What is said in the prompt.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Write each 160 ms as soon as it is made.")] = False,
    cfg: Annotated[float, typer.Option(help="Guidance, 0.1-10.")] = 2.0,
    steps: Annotated[int, typer.Option(help="Solver steps, 1-100.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Same seed, same audio.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Longest audio; twice the usual speaking time if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say a text with a checkpoint: plain, described, with a reference voice, continuing a prompt, or both.

    Example:  voxmill speak "Good morning." --model demo/model/latest -o morning.wav --describe "A calm young woman"
    """
    from voxcpm import VoxCPM

    terminal = Terminal(as_json)
    if not text.strip():
        raise ValueError("the text is empty: give something to say")
    started = time.perf_counter()
    voice = VoxCPM.from_pretrained(model, load_denoiser=False, device=device)
    loaded = time.perf_counter()
    options: dict[str, Any] = {
        "text": f"({describe.strip()}){text}" if describe else text,
        "prompt_wav_path": str(prompt) if prompt else None,
        "prompt_text": prompt_text,
        "reference_wav_path": str(reference) if reference else None,
        "cfg_value": cfg,
        "inference_timesteps": steps,
        "max_len": max(4, round((max_seconds or generous_seconds(text)) / 0.16)),
        "seed": seed,
    }
    rate = voice.tts_model.sample_rate
    if stream:
        samples = _write_stream(out, rate, voice.generate_streaming(**options))
    else:
        import soundfile

        wav = voice.generate(**options)
        samples = len(wav)
        out.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(out, wav, rate, subtype="PCM_16")
    seconds = samples / rate
    spent = time.perf_counter() - loaded
    terminal.say(
        f"{out}: {seconds:.2f} s of audio at {rate} Hz in {spent:.1f} s (real-time factor {spent / seconds:.2f})"
    )
    terminal.result(
        {"out": str(out), "seconds": seconds, "sample_rate": rate, "load_s": loaded - started, "generate_s": spent}
    )


def _write_stream(out: Path, rate: int, chunks: object) -> int:
    """Write chunks as they come; returns the number of samples."""
    import soundfile

    out.parent.mkdir(parents=True, exist_ok=True)
    samples = 0
    with soundfile.SoundFile(out, "w", samplerate=rate, channels=1, subtype="PCM_16") as file:
        for chunk in chunks:  # type: ignore[attr-defined]
            file.write(chunk)
            file.flush()
            samples += len(chunk)
    return samples


def generous_seconds(text: str) -> float:
    """Twice what speaking this text usually takes and two seconds: a model that does not stop must not go on for minutes.

    Usual speed: 14 characters a second, and 4.5 for scripts that write a syllable or more with one character.
    """
    dense = sum(ch >= "\u2e80" for ch in text)
    return 2.0 * ((len(text) - dense) / 14.0 + dense / 4.5) + 2.0
