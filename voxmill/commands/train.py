"""`voxmill train`, `voxmill train-codec` and `voxmill encode`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from catalogs.durations import duration_text
from voxmill.terminal import JsonOption, Terminal


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(train)
    app.command(name="train-codec")(train_codec)
    app.command()(encode)


STOPPED = "stopped early; run the same command to continue"


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML with settings, or the name of a recipe: toy, stage1, ...")
    ],
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. seed=1.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan: data, steps, memory, disk.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train VoxCPM2 on a corpus; saves checkpoints that `speak` loads. Run the same command to resume, bit for bit.

    On several GPUs: torchrun --nproc-per-node 8 -m voxmill.cli train stage1 ... (see docs/training.md).

    Example:  voxmill train toy --set corpus=demo/corpus --set output=demo/model
    """
    from trainer.config import TrainError, load_train_config

    terminal = Terminal(as_json)
    # Loaded before torch is imported, so that a wrong name is reported at once.
    settings = load_train_config(config, set_ or [])
    from trainer.run import train as run
    from trainer.runtime.ranks import PeerError

    if dry_run:
        from trainer.dryrun.plan import plan

        planned = plan(settings)
        if os.environ.get("RANK", "0") != "0":
            return
        for line in planned.lines():
            terminal.say(line)
        terminal.result(planned.as_dict())
        if planned.problem is not None:
            raise TrainError(planned.problem)
        return
    try:
        with terminal.printing("trainer"):
            result = run(settings)
    except PeerError:
        # The rank that failed has printed the reason.
        raise typer.Exit(1) from None
    if os.environ.get("RANK", "0") != "0":
        return
    terminal.say(f"checkpoint: {result.checkpoint}; loss {result.first_loss:.3f} -> {result.last_loss:.3f}")
    if result.stopped_early:
        terminal.say(STOPPED)
    if result.best is not None:
        terminal.say(f"best checkpoint: {result.best} -> {Path(result.best).readlink()}")
    terminal.result(asdict(result))


def train_codec(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML with settings, or the name of a recipe: toy, v2.")
    ],
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. steps=100.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an audio codec on a corpus: `toy` in minutes for models from scratch, `v2` at the published widths on a GPU.

    Example:  voxmill train-codec toy --set corpus=demo/corpus --set output=demo/codec
    """
    from trainer.codec import load_codec_config
    from trainer.codec import train_codec as run

    terminal = Terminal(as_json)
    with terminal.printing("trainer"):
        result = run(load_codec_config(config, set_ or []))
    if result.stopped_early:
        terminal.say(STOPPED)
        terminal.result(asdict(result))
        return
    terminal.say(
        f"codec: {result.folder}; held-out clips: {result.after} (mel distance before {result.before.mel:.3f}, to other"
        f" clips {result.after.mel_other:.3f})"
    )
    terminal.result(asdict(result))


def encode(
    corpus: Annotated[Path, typer.Argument(help="A corpus folder.", metavar="CORPUS")],
    codec: Annotated[
        str,
        typer.Option(
            "--codec", "--model", help="The checkpoint to be trained (folder or hub id), or a codec of train-codec."
        ),
    ],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1 ...")] = "auto",
    batch_s: Annotated[float, typer.Option(help="Seconds of audio that a GPU encodes at once.", min=1.0)] = 240.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's choice if not given.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Store the codec's latents of the kept segments beside the corpus, so that training does not encode: 12 MB per hour.

    May be killed at any time. Run the same command to resume; it also encodes segments added since. Training uses the latents
    automatically if they are from the model's codec.

    Example:  voxmill encode demo/corpus --codec demo/model/latest
    """
    from trainer.encode_corpus import encode_corpus
    from trainer.runtime.device import cpu_threads
    from voxmill.progress import EncodeProgress

    terminal = Terminal(as_json)
    with EncodeProgress(terminal) as progress, cpu_threads(threads), terminal.printing("trainer"):
        stats = encode_corpus(corpus, codec, device, batch_s, progress)
    rate = f", {stats.speech_s / stats.seconds:.0f} times real time" if stats.encoded else ""
    terminal.say(
        f"{corpus}: {stats.encoded} segments encoded ({duration_text(stats.speech_s)}{rate}), {stats.already} were done;"
        f" codec {stats.codec}"
    )
    terminal.result(asdict(stats))
