"""`voxmill`: the commands. Each calls a public function of the package that does the work."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import sys
import warnings
from typing import Annotated

import typer

from voxmill.commands import (
    consent,
    corpus,
    describe,
    detecting,
    evaluate,
    exchange,
    flow,
    forgetting,
    inspecting,
    marks,
    model,
    project,
    publishing,
    serving,
    synthesis,
    train,
    voices,
)
from voxmill.terminal import explain

app = typer.Typer(
    name="voxmill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of raw recordings to a trained, controllable, multilingual text-to-speech model.",
    epilog="Start with:  voxmill demo",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"voxmill {importlib.metadata.version('voxmill')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options before a command."""


project.register(app)
flow.register(app)
corpus.register(app)
inspecting.register(app)
describe.register(app)
synthesis.register(app)
exchange.register(app)
forgetting.register(app)
train.register(app)
model.register(app)
serving.register(app)
voices.register(app)
consent.register(app)
marks.register(app)
detecting.register(app)
publishing.register(app)
evaluate.register(app)


def _unwrap_help(commands: typer.Typer) -> None:
    """Join the lines of each paragraph of a command's help, because Typer keeps the line breaks of the source code."""
    for group in commands.registered_groups:
        if group.typer_instance:
            _unwrap_help(group.typer_instance)
    for command in commands.registered_commands:
        text = inspect.cleandoc(command.help or (command.callback and command.callback.__doc__) or "")
        command.help = "\n\n".join(paragraph.replace("\n", " ") for paragraph in text.split("\n\n"))


_unwrap_help(app)


def main() -> None:
    """Run the command line: an error is one line on standard error and a non-zero exit status."""
    warnings.filterwarnings("ignore")
    try:
        app()
    except (KeyboardInterrupt, BrokenPipeError):
        _say_stopped()
        raise SystemExit(130) from None
    except SystemExit as stop:
        # Typer turns Ctrl-C into this status and prints nothing.
        if stop.code == 130:
            _say_stopped()
        raise
    except Exception as error:
        if os.environ.get("VOXMILL_DEBUG"):
            raise
        sys.stderr.write(f"voxmill: {explain(error)}\n")
        # Errors that a script may want to tell apart have their own status.
        raise SystemExit(getattr(error, "exit_status", 1)) from None


_RESUMING = (
    "run",
    "prepare",
    "retry",
    "describe",
    "verify",
    "decouple",
    "train",
    "train-codec",
    "encode",
    "models",
    "demo",
    "export",
    "import",
    "evaluate",
)
"""Commands that resume if they are run again."""


def _command() -> str:
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def _say_stopped() -> None:
    sys.stderr.write(f"\nStopped.{' Run the same command to resume.' if _command() in _RESUMING else ''}\n")


if __name__ == "__main__":
    main()
