"""`voxmill train` and `voxmill train-codec`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from voxmill.terminal import JsonOption, Terminal


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(train)
    app.command(name="train-codec")(train_codec)


def train(
    config: Annotated[Path, typer.Argument(help="YAML with settings, or the name of a recipe: toy, stage1, ...")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. seed=1.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train VoxCPM2 on a corpus; saves checkpoints that `speak` loads. Killed, the same command goes on exactly.

    Example:  voxmill train toy --set corpus=demo/corpus --set output=demo/model
    """
    from trainer import load_train_config
    from trainer import train as run

    terminal = Terminal(as_json)
    result = run(load_train_config(config, set_ or []), say=terminal.say)
    terminal.say(f"checkpoint: {result.checkpoint}; loss {result.first_loss:.3f} -> {result.last_loss:.3f}")
    terminal.result(asdict(result))


def train_codec(
    config: Annotated[Path, typer.Argument(help="YAML with settings, or the name of a recipe: toy.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. steps=100.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an audio codec on a corpus, briefly: enough for models from scratch, not a replacement for the published one.

    Example:  voxmill train-codec toy --set corpus=demo/corpus --set output=demo/codec
    """
    from trainer.codec import load_codec_config
    from trainer.codec import train_codec as run

    terminal = Terminal(as_json)
    result = run(load_codec_config(config, set_ or []), say=terminal.say)
    terminal.say(
        f"codec: {result.folder}; mel distance {result.mel_before:.3f} -> {result.mel_after:.3f}"
        f" (to other clips {result.mel_other:.3f})"
    )
    terminal.result(asdict(result))
