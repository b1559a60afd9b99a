"""`voxmill speak --table`: the part of `speak` that speaks all rows of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from voxmill.terminal import Terminal

_SIGNING = ("sign_key", "sign_cert", "sign_training", "sign_tsa")
_OF_BOTH = {
    "model",
    "out",
    "cfg",
    "steps",
    "temperature",
    "seed",
    "retry",
    "lora",
    "dtype",
    "device",
    "as_json",
    "table",
    "no_mark",
    "no_watermark",
    *_SIGNING,
}
_OF_TABLES = {"voices", "descriptions", "config", "set_", "executor", "address", "dry_run", "trial"}
_SETTINGS = {
    **{"cfg": "generate.cfg", "steps": "generate.steps", "temperature": "generate.temperature"},
    **{
        "seed": "seed",
        "retry": "retry",
        "lora": "generate.lora",
        "dtype": "generate.dtype",
        "device": "generate.device",
    },
    **{name: name for name in _SIGNING},
    **{"executor": "engine.executor", "address": "engine.address"},
}
"""Options that are settings, too."""
_INSTEAD = {
    "text": "the texts are in the table",
    "describe": "use a column description, or --descriptions",
    "reference": "use a column reference, or --voices",
    "prompt": "use the columns prompt and prompt_text, or --voices",
    "prompt_text": "use the columns prompt and prompt_text, or --voices",
    "voice": "use --voices with clips",
}


@dataclass(frozen=True)
class TableOptions:
    """The options of `speak --table` that are not settings."""

    table: Path
    model: str
    out: Path | None
    voices: str | None
    descriptions: Path | None
    config: Path | None
    dry_run: bool
    trial: int
    as_json: bool


def given_options(context: typer.Context) -> set[str]:
    """Return the names of the options that are on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def check_options(given: set[str], with_table: bool) -> None:
    """Raise ValueError for options that need --table, or that do not combine with it. given: those on the command line."""
    if not with_table:
        if wrong := sorted(given & _OF_TABLES):
            raise ValueError(f"{_flag(wrong[0])} needs --table")
        return
    if wrong := sorted(given - _OF_BOTH - _OF_TABLES):
        instead = f": {_INSTEAD[wrong[0]]}" if wrong[0] in _INSTEAD else ""
        raise ValueError(f"{_flag(wrong[0])} does not combine with --table{instead}")


def _flag(name: str) -> str:
    special = {"text": "TEXT", "compiled": "--compile", "set_": "--set"}
    return special.get(name, f"--{name.replace('_', '-')}")


def overrides_of(values: dict[str, Any], given: set[str]) -> list[str]:
    """Return the options that were given as overrides of settings; --set comes last."""
    found = [f"{setting}={values[name]}" for name, setting in _SETTINGS.items() if name in given]
    if "no_mark" in given:
        found.append("mark=false")
    if "no_watermark" in given:
        found.append("watermark=false")
    return [*found, *(values["set_"] or [])]


def speak_rows(options: TableOptions, overrides: list[str]) -> None:
    """Speak the rows of a table, or forecast what that takes."""
    from pipeline.synthesis.table.forecast import forecast_lines, forecast_table
    from pipeline.synthesis.table.settings import load_speak_settings
    from pipeline.synthesis.table.speak_table import speak_table
    from voxcpm.provenance.c2pa.signer import signing_of

    settings = load_speak_settings(options.config, overrides)
    # Workers read them again; what is wrong with them is said before any is started.
    signing_of(settings.sign_key, settings.sign_cert, settings.sign_training, settings.sign_tsa, marks=settings.mark)
    terminal = Terminal(options.as_json)
    crossed = (options.voices, options.descriptions)
    if options.dry_run:
        found = forecast_table(options.table, options.model, options.out, *crossed, settings, options.trial)
        for line in forecast_lines(found):
            terminal.say(line)
        terminal.result(asdict(found))
        return
    if options.out is None:
        raise ValueError("say where to write the audio and the table: -o FOLDER")
    from voxmill.progress import PrepareProgress

    with PrepareProgress(terminal) as progress:
        summary = speak_table(options.table, options.model, options.out, *crossed, settings, progress)
    terminal.result(asdict(summary))
