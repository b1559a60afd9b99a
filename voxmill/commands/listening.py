"""`voxmill evaluate listen`: a listening test as one offline page, and what its answers say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from catalogs.words import counted
from voxmill.terminal import JsonOption, Terminal, quoted

listen_app = typer.Typer(
    no_args_is_help=True, help="Listening tests with people: make the page, then read its answers. No server is needed."
)


def register(app: typer.Typer) -> None:
    """Add these commands to `voxmill evaluate`."""
    app.add_typer(listen_app, name="listen")


@listen_app.command()
def make(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN ...", help="Runs whose takes are heard.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for the page and its key.")] = Path(
        "listening"
    ),
    kind: Annotated[
        str, typer.Option(help="acr (points 1-5), cmos (-3 to +3), ab, abx (closer to the voice X) or mushra (0-100).")
    ] = "acr",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Another setting, e.g. items=30, sessions=20, scales=[similarity]; may be repeated."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a listening test from runs: one page to send to listeners, and a key that stays with you.

    The page works offline in any browser. Each listener returns one JSON file, which `listen read` reads.

    Example:  voxmill evaluate listen make runs/before runs/after --kind cmos -o test
    """
    from catalogs.settings import load_settings
    from evaluation.listen.make import make_test
    from evaluation.listen.settings import ListenSettings
    from evaluation.runs.folder import open_run

    terminal = Terminal(as_json)
    chosen = load_settings(ListenSettings, None, [f"kind={kind}", *(settings or [])])
    made = make_test([open_run(folder) for folder in folders], out, chosen)
    terminal.say(
        f"{counted(made.items, 'item')} of {made.common_items} in common, {counted(len(made.systems), 'system')}, "
        f"{counted(made.trials, 'trial')} per listener, about {made.minutes:.0f} minutes"
    )
    for reason, count in made.left_out.items():
        terminal.say(f"left out: {counted(count, 'item')} ({reason})")
    terminal.say(f"send to the listeners: {made.page}")
    terminal.say(f"keep to yourself:      {made.key}")
    terminal.say(f"then: voxmill evaluate listen read {quoted(out)} ANSWERS.json ...")
    terminal.result({**vars(made), "page": str(made.page), "key": str(made.key)})


@listen_app.command()
def read(
    test: Annotated[Path, typer.Argument(metavar="TEST", help="The folder of the test, or its key.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="ANSWERS ...", help="JSON files of listeners, or folders of them.")
    ],
    keep: Annotated[
        str,
        typer.Option(
            help="Screening rules that exclude nobody, with commas: duplicate, headphones, attention, gold, variance, reference."
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the tables to this Markdown file too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read listeners' answers: means with intervals over listeners and items, screening, and faults of files.

    Example:  voxmill evaluate listen read test answers/
    """
    from dataclasses import asdict

    from catalogs.files import write_atomically
    from evaluation.listen.read import read_answers
    from evaluation.listen.tables import markdown

    terminal = Terminal(as_json)
    ratings = read_answers(test, files, keep=[rule for rule in keep.split(",") if rule])
    text = markdown(ratings)
    terminal.say(text)
    if out is not None:
        write_atomically(out, text.encode())
    terminal.result(_json_keys(asdict(ratings)))


def _json_keys(value: Any) -> Any:
    """Return a value whose tables by pair of systems are lists, because JSON has no such keys."""
    if isinstance(value, list | tuple):
        return [_json_keys(one) for one in value]
    if not isinstance(value, dict):
        return value
    if any(isinstance(key, tuple) for key in value):
        return [{"systems": list(pair), "found": _json_keys(one)} for pair, one in value.items()]
    return {key: _json_keys(one) for key, one in value.items()}
