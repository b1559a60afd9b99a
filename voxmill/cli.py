"""`voxmill`: the commands. Each is a thin call of a public function of the package that does the work."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from voxmill.commands import corpus, model, project, train

app = typer.Typer(
    name="voxmill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a folder of raw recordings to a trained, controllable, multilingual text-to-speech model.",
    epilog="Start with:  voxmill demo",
)
project.register(app)
corpus.register(app)
train.register(app)
model.register(app)


def main() -> None:
    """Run the command line: an error is one line on standard error and a non-zero exit status."""
    warnings.filterwarnings("ignore")
    try:
        app()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.write("\nstopped; what was committed stays, run the same command again to go on\n")
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("VOXMILL_DEBUG"):
            raise
        sys.stderr.write(f"voxmill: {_explain(error)}\n")
        raise SystemExit(1) from None


def _explain(error: Exception) -> str:
    """One line: the error's own words where they were written for a person, else what it was and how to see more."""
    # A KeyError prints its words in quotes.
    words = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the Python package {error.name} is not installed; pip install 'voxmill[all]' brings everything"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if (words and type(error).__module__.split(".")[0] in _OURS) or (
        isinstance(error, ValueError | OSError | KeyError) and words
    ):
        return words
    return f"{type(error).__name__}: {words} (unexpected; VOXMILL_DEBUG=1 shows where)"


_OURS = ("catalogs", "voxcpm", "annotators", "pipeline", "trainer", "voxmill")


if __name__ == "__main__":
    main()
