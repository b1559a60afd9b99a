"""`voxmill voice`: the stored voices of a speech server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmill.terminal import JsonOption, Terminal

if TYPE_CHECKING:
    from voxcpm.server.voices.offline import VoiceMaker
    from voxcpm.server.voices.store import Voice, VoiceFolder

voice_app = typer.Typer(
    no_args_is_help=True, help="Stored voices of `voxmill serve`: add, design, list, remove, export."
)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The voice's name: letters a-z, digits, '.', '_' and '-', at most 64.")
]
VoicesOption = Annotated[Path, typer.Option("--voices", help="The folder of stored voices, as for voxmill serve.")]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="A checkpoint folder or a hub id.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(voice_app, name="voice")


@voice_app.command()
def add(
    name: NameArgument,
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="1 to 30 s of one person, as an audio file.")],
    voices: VoicesOption,
    model: ModelOption,
    consent: Annotated[str, typer.Option(help="The speaker's statement, or the id of a consent of the server.")],
    text: Annotated[
        str, typer.Option(help="The words of the clip: speech then continues it, closer to its style.")
    ] = "",
    about: Annotated[str, typer.Option(help="A note about the speaker.")] = "",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Store the voice of a clip, with the speaker's consent.

    Example:  voxmill voice add anna anna.wav --voices voices --model model/latest --consent "I, Anna, agree."
    """
    if not consent.strip():
        raise ValueError("--consent is empty: give the speaker's statement, or the id of a consent")
    made = _maker(voices, model, device, name).add(name, clip, consent, text.strip(), about.strip())
    _tell(Terminal(as_json), made, voices)


@voice_app.command()
def design(
    name: NameArgument,
    describe: Annotated[str, typer.Option(help="The voice in words, e.g. 'A calm old man'.")],
    voices: VoicesOption,
    model: ModelOption,
    seed: Annotated[int, typer.Option(help="Another seed makes another voice.", min=0)] = 0,
    text: Annotated[
        str, typer.Option(help="What the voice says in its reference. Default: two English sentences.")
    ] = "",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make a voice from a description, and store it.

    Example:  voxmill voice design old-man --describe "A calm old man" --voices voices --model model/latest
    """
    from voxcpm.server.presets import Design

    if not describe.strip() or "(" in describe or ")" in describe:
        raise ValueError("--describe must be a text without parentheses")
    made = _maker(voices, model, device, name).design(name, Design(describe.strip(), seed, text.strip()))
    _tell(Terminal(as_json), made, voices)


@voice_app.command("list")
def list_voices(voices: VoicesOption, as_json: JsonOption = False) -> None:
    """List the stored voices.

    Example:  voxmill voice list --voices voices
    """
    terminal = Terminal(as_json)
    found = _folder(voices).all()
    for voice in found:
        what = voice.description or voice.speaker_description
        terminal.say(f"{voice.name}: {voice.kind}, {voice.seconds:.1f} s{f', {what}' if what else ''}")
    if not found:
        terminal.say(f"{voices} holds no voices: add one with voxmill voice add")
    terminal.result([_record(voice) for voice in found])


@voice_app.command()
def remove(name: NameArgument, voices: VoicesOption, as_json: JsonOption = False) -> None:
    """Delete a stored voice.

    Example:  voxmill voice remove anna --voices voices
    """
    terminal = Terminal(as_json)
    gone = _folder(voices).delete(name)
    if gone is None:
        raise ValueError(f"no voice {name!r} in {voices}: see voxmill voice list")
    terminal.say(f"{voices}: {gone.name} deleted")
    terminal.result(_record(gone))


@voice_app.command()
def export(
    voices: VoicesOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME ...]", help="Voices. Default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write voices as the folder that vLLM-Omni reads (`custom_voice_dir`).

    Example:  voxmill voice export --voices voices -o omni-voices
    """
    from voxcpm.server.voices.export import export_vllm_omni

    terminal = Terminal(as_json)
    written = export_vllm_omni(_folder(voices), out, names or ())
    for voice in written:
        terminal.say(f"{out}: {voice.name}")
    terminal.result({"out": str(out), "voices": [voice.name for voice in written]})


def _folder(voices: Path) -> VoiceFolder:
    """Return an existing folder of voices."""
    from voxcpm.server.voices.store import VoiceFolder

    if not voices.is_dir():
        raise FileNotFoundError(f"no folder of voices at {voices}: make one with voxmill voice add")
    return VoiceFolder(voices)


def _maker(voices: Path, model: str, device: str, name: str) -> VoiceMaker:
    """Load the model; the name is checked before."""
    from voxcpm.server.voices.store import VoiceFolder, clean_name

    folder = VoiceFolder(voices)
    if folder.find(clean_name(name)) is not None:
        raise ValueError(f"there is a voice {name!r} in {voices}: remove it first, or choose another name")
    from voxcpm import VoxCPM
    from voxcpm.kernels.threads import spare_threads
    from voxcpm.server.voices.offline import VoiceMaker

    spare_threads(model)
    return VoiceMaker(VoxCPM.from_pretrained(model, load_denoiser=False, device=device).tts_model, folder)


def _tell(terminal: Terminal, voice: Voice, voices: Path) -> None:
    terminal.say(f"{voices}: {voice.name} added ({voice.seconds:.1f} s)")
    terminal.result(_record(voice))


def _record(voice: Voice) -> dict[str, Any]:
    return dict(vars(voice))
