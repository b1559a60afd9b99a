"""`voxmill decouple`: content-decoupled samples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from voxmill.terminal import JsonOption, Terminal


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(decouple)


def decouple(
    corpus: Annotated[Path, typer.Argument(help="A corpus with descriptions.", metavar="CORPUS")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A checkpoint folder, or a hub id that was fetched before.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The corpus of synthetic speech. Default: CORPUS-decoupled beside the corpus."
        ),
    ] = None,
    lora: Annotated[Path | None, typer.Option(help="An adapter folder, as `voxmill train` writes it.")] = None,
    limit: Annotated[int | None, typer.Option(help="The most pairs in all.", min=1)] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. bounds.max_cer=0.1.")] = None,
    executor: Annotated[str | None, typer.Option(help="ray (default) or inline: all in this process.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the pairs, and forecast time and yield from a trial.")
    ] = False,
    trial: Annotated[int, typer.Option(help="Pairs to make for --dry-run.", min=0)] = 8,
    as_json: JsonOption = False,
) -> None:
    """Clone described, expressive speech onto unrelated texts, so that a model learns the style and not the words with it.

    Each clip keeps the description of its source as its control prompt. It is verified: the text by recognition, the voice and
    the style by comparison with its source. What fails is tried again with other seeds, then rejected with its reasons.

    May be killed at any time. Run the same command to resume. With other bounds it decides again on what was made.

    Example:  voxmill decouple corpus --model model/latest --limit 1000
    """
    from pipeline.synthesis.decouple import decouple as run
    from pipeline.synthesis.forecast import forecast_decouple, forecast_lines
    from pipeline.synthesis.settings import load_decouple_settings

    overrides = list(set_ or [])
    for key, value in (("engine.executor", executor), ("engine.address", address), ("generate.lora", lora)):
        if value is not None:
            overrides.append(f"{key}={value}")
    settings = load_decouple_settings(config, overrides)
    terminal = Terminal(as_json)
    if dry_run:
        found = forecast_decouple(corpus, model, out, settings, limit, trial)
        for line in forecast_lines(found, settings):
            terminal.say(line)
        terminal.result(asdict(found))
        return
    from voxmill.progress import PrepareProgress

    with PrepareProgress(terminal) as progress:
        summary = run(corpus, model, out, settings, limit, progress)
    terminal.result(asdict(summary))
