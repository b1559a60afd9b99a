"""`voxmill run`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from catalogs.words import counted
from voxmill.terminal import JsonOption, Terminal, quoted


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(run)


def run(
    flow: Annotated[
        str,
        typer.Argument(
            metavar="FLOW",
            help="YAML of a flow, the name of a recipe (flow-toy, flow-voice, flow-corpus, flow-cluster, flow-proof), or the"
            " folder of a flow that has begun.",
        ),
    ],
    recordings: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECORDINGS", help="Recordings, as for prepare. Default: `sources` of the flow."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for everything that the flow makes. Default: the flow's name.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, e.g. steps.stage1.set.phases.toy.steps=100.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="First step to look at; the earlier ones stay as they are.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Last step to run.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print which steps are due, and hours, GPU hours, money and disk of each."),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Only print the state of each step and write the state page.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a whole flow: prepare, describe, train, evaluate, export. Steps that are up to date are left alone.

    May be killed at any time. Run the same command to resume. A changed setting does again what depends on it, and only that;
    models that are replaced are moved to FOLDER/superseded. FOLDER/index.html shows the state of all steps.

    Example:  voxmill run flow-voice ~/recordings --folder my-voice
    """
    from voxmill.flow.settings import load_flow

    terminal = Terminal(as_json)
    settings = load_flow(flow, set_ or (), recordings or (), folder)
    if status:
        from voxmill.flow.page import flow_rows, show_status

        page = show_status(settings, terminal)
        terminal.result({"page": str(page), "steps": flow_rows(settings)})
    elif dry_run:
        from voxmill.flow.forecast import forecast_flow, forecast_values, show_forecast

        found = forecast_flow(settings, from_, until, terminal)
        show_forecast(found, terminal)
        terminal.result(forecast_values(found))
    else:
        from voxmill.flow.run import run_flow

        summary = run_flow(settings, from_, until, terminal)
        done = f"{counted(len(summary.done), 'step')} run, {len(summary.up_to_date)} up to date"
        terminal.say(f"{summary.folder}: {done}; open {quoted(Path(summary.folder) / 'index.html')}")
        terminal.result(asdict(summary))
