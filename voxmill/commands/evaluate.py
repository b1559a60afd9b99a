"""`voxmill evaluate`: whether a model is good, and which of two is better."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalogs.words import counted
from evaluation.results.headlines import HEADLINES
from voxmill.commands import listening
from voxmill.terminal import JsonOption, Terminal, quoted

if TYPE_CHECKING:
    from evaluation.items import Item
    from evaluation.results.summary import Summary
    from evaluation.run import Outcome
    from evaluation.runs.forecast import Forecast

FAILURES = 3
"""Reasons of failed takes that are printed."""

evaluate_app = typer.Typer(
    no_args_is_help=True, help="Evaluate a model: speak test lists, score, compare with intervals, gate, listen."
)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN ...", help="Folders of runs; the first is the baseline.")
]
MetricsOption = Annotated[
    str | None,
    typer.Option(help="Metrics or profiles, with commas: quick, small (default), codec, full; none: only speak."),
]
OnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        help="Lists, with commas, e.g. corpus:DIR, seed:DIR/en/meta.lst, mine.jsonl; may be repeated. Default: panel.",
    ),
]
MetricSetOption = Annotated[
    list[str] | None,
    typer.Option("--metric-set", help="Option of a metric, e.g. transcript.model=whisper-large-v3; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(evaluate_app, name="evaluate")
    listening.register(evaluate_app)


@evaluate_app.command()
def run(
    system: Annotated[
        str,
        typer.Argument(
            metavar="SYSTEM",
            help="A checkpoint folder, or KIND:ARGUMENT, e.g. human, folder:DIR, codec:CHECKPOINT, openai:URL.",
        ),
    ],
    on: OnOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("evaluation-run"),
    recipe: Annotated[
        str | None,
        typer.Option(help="How a checkpoint speaks: plain, reference, continuation, both, design or controllable."),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the system, e.g. cfg=2.5; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of takes per item, with the seeds 0, 1, ...", min=1)] = 1,
    limit: Annotated[int | None, typer.Option(help="Most items of each list; default: all.", min=1)] = None,
    languages: Annotated[str | None, typer.Option(help="Languages, with commas, e.g. en,de. Default: all.")] = None,
    metrics: MetricsOption = None,
    metric_set: MetricSetOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run in tables.")] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Speak takes again that had an error or a time-out in an earlier call."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Speak 3 items and print hours and cost of the run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Speak test lists with a system, score the takes, and print the tables.

    Rerun the same command to resume: nothing is spoken or scored twice.

    Example:  voxmill evaluate run demo/model/latest --on panel --recipe plain -o runs/toy
    """
    from evaluation.run import evaluate, foresee

    terminal = Terminal(as_json)
    items = _items(on, limit, languages, terminal)
    chosen = _names(metrics)
    settings: dict[str, Any] = {"recipe": recipe} if recipe else {}
    settings |= _options(options or [])
    if dry_run:
        found = foresee(system, items, settings, range(seeds), chosen, _metric_options(metric_set or []))
        _print_forecast(found, terminal)
        return
    with terminal.counting("takes") as count:
        done = evaluate(
            system,
            items,
            out,
            settings,
            range(seeds),
            chosen,
            name,
            count,
            _metric_options(metric_set or []),
            retry_failed,
        )
    _print_outcome(done, terminal, chosen)


@evaluate_app.command()
def score(
    folder: RunArgument,
    metrics: MetricsOption = None,
    metric_set: MetricSetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the takes of a run with more metrics, or with metrics that have changed.

    Example:  voxmill evaluate score runs/toy --metrics quick
    """
    from evaluation.run import rescore
    from evaluation.runs.folder import open_run

    terminal = Terminal(as_json)
    with terminal.counting("takes") as count:
        done = rescore(open_run(folder), _names(metrics), count, _metric_options(metric_set or []))
    _print_outcome(done, terminal, _names(metrics))


@evaluate_app.command()
def decay(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="As for `evaluate run`; it must use references.")],
    on: OnOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the rounds, each of them a run.")] = Path("decay"),
    rounds: Annotated[int, typer.Option(help="Rounds; each takes its references from the round before.", min=2)] = 4,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the system, e.g. recipe=reference; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most items of each list; default: all.", min=1)] = None,
    metrics: MetricsOption = "transcript,words_clean,voice_ge2e",
    as_json: JsonOption = False,
) -> None:
    """Clone a clone of a clone, and measure each round against the original voice and text.

    Example:  voxmill evaluate decay model/latest --on corpus:corpus,share=0.001 --set recipe=reference -o runs/decay
    """
    from evaluation.metrics import load_metrics
    from evaluation.runs.decay import decay as speak_rounds
    from evaluation.runs.decay import decay_figures, decay_table
    from evaluation.systems import open_system

    terminal = Terminal(as_json)
    chosen = load_metrics(_names(metrics))
    items = _items(on, limit, None, terminal)
    with closing(open_system(system, _options(options or []))) as opened, terminal.counting("takes") as count:
        runs = speak_rounds(opened, items, rounds, out, count=count)
    rows = decay_figures(runs, chosen)
    terminal.table("", *decay_table(rows, chosen))
    terminal.result(rows)


@evaluate_app.command()
def compare(folders: RunsArgument, as_json: JsonOption = False) -> None:
    """Compare runs on the items that they share: paired differences, intervals and verdicts.

    Example:  voxmill evaluate compare runs/before runs/after
    """
    from evaluation.compare import compare as compare_runs
    from evaluation.runs.folder import open_run

    terminal = Terminal(as_json)
    if len(folders) < 2:
        raise ValueError("compare needs at least two runs")
    found = compare_runs([open_run(folder) for folder in folders])
    for line in found.text().splitlines():
        terminal.say(line)
    terminal.result(found.as_json())


@evaluate_app.command()
def gate(
    folder: RunArgument,
    baseline: Annotated[Path, typer.Option(help="The run to compare with: RUN must not be worse.")],
    rules: Annotated[
        Path | None, typer.Option(help="A TOML file of rules. Default: the rules that come with voxmill.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Exit with status 1 if a run is worse than a baseline beyond a margin, and with 3 if there are too few items to tell.

    Example:  voxmill evaluate gate runs/after --baseline runs/before
    """
    from evaluation.gate import gate as check
    from evaluation.runs.folder import open_run

    terminal = Terminal(as_json)
    found = check(open_run(folder), open_run(baseline), rules)
    for line in found.text().splitlines():
        terminal.say(line)
    terminal.result(found.as_json())
    if found.exit_code:
        raise typer.Exit(found.exit_code)


@evaluate_app.command()
def report(
    folders: RunsArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page. Default: RUN/report.html of the first run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one page about runs: tables with intervals, published figures, worst items to listen to.

    Example:  voxmill evaluate report runs/toy
    """
    from evaluation.report.page import write_report
    from evaluation.runs.folder import open_run

    terminal = Terminal(as_json)
    page = write_report([open_run(folder) for folder in folders], out)
    terminal.say(f"report: {page}")
    terminal.result({"report": str(page)})


@evaluate_app.command()
def lists(as_json: JsonOption = False) -> None:
    """Name the test lists that `--on` takes: what they are, their licenses and where they come from.

    Example:  voxmill evaluate lists
    """
    from evaluation.lists import describe_lists

    terminal = Terminal(as_json)
    rows = describe_lists()
    _say_entries(rows, ("what", "example", "options", "license"), terminal)


@evaluate_app.command()
def systems(as_json: JsonOption = False) -> None:
    """Name the kinds of systems, and the options that `--set` takes for each.

    Example:  voxmill evaluate systems
    """
    from evaluation.systems import systems as kinds

    terminal = Terminal(as_json)
    found = kinds()
    for kind in found:
        terminal.title(kind.usage)
        terminal.say(f"  {kind.words}")
        for name, default, words in kind.options:
            terminal.say(f"  --set {name}={default}  {words}".rstrip())
    terminal.result([asdict(kind) for kind in found])


@evaluate_app.command()
def metrics(as_json: JsonOption = False) -> None:
    """Name the metrics, their units and profiles, and whether they can be measured on this machine.

    Example:  voxmill evaluate metrics
    """
    from evaluation.metrics.overview import overview

    terminal = Terminal(as_json)
    rows = overview()
    _say_entries(rows, ("figures", "profiles", "needs", "here"), terminal)


def _say_entries(rows: Sequence[Mapping[str, Any]], shown: Sequence[str], terminal: Terminal) -> None:
    """Print some fields of each row, one per line: tables of these would be wider than a terminal. JSON has all."""
    for row in rows:
        terminal.title(row["name"])
        for key in shown:
            if row[key]:
                terminal.say(f"  {key:<8} {row[key]}")
    terminal.result(rows)


def _items(on: list[str] | None, limit: int | None, languages: str | None, terminal: Terminal) -> list[Item]:
    from evaluation.lists import open_lists

    with terminal.printing("evaluation"):
        return open_lists(
            [spec for given in on or ["panel"] for spec in split_lists(given)],
            limit=limit,
            languages=tuple(name.strip() for name in languages.split(",")) if languages else None,
        )


def split_lists(given: str) -> list[str]:
    """Return the specifications of lists in a text with commas. `NAME=VALUE` after a comma is an option of the list before."""
    found: list[str] = []
    for part in given.split(","):
        if found and re.fullmatch(r"[a-z_]+=.*", part):
            found[-1] += f",{part}"
        elif part.strip():
            found.append(part.strip())
    return found


def _names(metrics: str | None) -> list[str] | None:
    """Return names of metrics or profiles; None for the default."""
    if metrics is None:
        return None
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    if "none" in names and len(names) > 1:
        raise ValueError(f"--metrics {metrics}: none stands alone")
    return [name for name in names if name != "none"]


def _metric_options(given: list[str]) -> dict[str, dict[str, Any]]:
    """Return options by metric and name."""
    found: dict[str, dict[str, Any]] = {}
    for option in given:
        name, dot, rest = option.partition(".")
        if not dot or "=" not in rest:
            raise ValueError(f"--metric-set {option}: write METRIC.OPTION=VALUE")
        found.setdefault(name, {}).update(_options([rest]))
    return found


def _options(given: list[str]) -> dict[str, Any]:
    """Return options by name; values are YAML, so that numbers are numbers."""
    from catalogs.settings import parse_yaml

    found: dict[str, Any] = {}
    for option in given:
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--set {option}: write NAME=VALUE")
        found |= parse_yaml(f"{key.strip()}: {value}", f"--set {option}")
    return found


def _print_forecast(found: Forecast, terminal: Terminal) -> None:
    rows = [
        ["speak", f"{found.generate_h:.2f}", ""],
        *([f"score {name}", f"{hours:.2f}", ""] for name, hours in found.score_h.items()),
        *([f"score {name}", "", f"{dollars:.2f}"] for name, dollars in found.dollars.items()),
    ]
    terminal.table(
        f"{counted(found.items, 'item')}, {counted(found.takes, 'take')}, {found.audio_h:.2f} h of audio",
        ["step", "hours", "USD"],
        rows,
    )
    terminal.say(f"{found.hours:.2f} hours in all at the speed of the trial")
    for name, why in found.not_measured.items():
        terminal.say(f"not measured: {name} ({why})")
    if failed := {status: n for status, n in found.statuses.items() if status != "ok"}:
        terminal.say(f"failed in the trial: {failed}")
    terminal.result(vars(found) | {"hours": found.hours})


def _print_outcome(done: Outcome, terminal: Terminal, asked: list[str] | None) -> None:
    """Print the counts, why takes failed, and the figures that were asked for by name, or the headlines."""
    from evaluation.metrics import PROFILES
    from evaluation.runs.generate import failures
    from evaluation.tables import write_tables

    failed = {status: count for status, count in done.statuses.items() if status != "ok"}
    takes = sum(done.statuses.values())
    words = ", ".join(f"{count} {status}" for status, count in failed.items())
    terminal.say(f"{counted(takes, 'take')}: {done.statuses.get('ok', 0)} ok{', ' + words if words else ''}")
    for reason, items in list(failures(done.run).items())[:FAILURES]:
        terminal.say(f"failed: {counted(len(items), 'take')}, such as {items[0]}: {reason}")
    if failed.keys() & {"error", "timeout"}:
        terminal.say("failed takes count; --retry-failed asks for those with an error or a time-out again")
    for name, why in done.scored.not_measured.items():
        terminal.say(f"not measured: {name} ({why})")
    named = [name for name in asked or () if name not in PROFILES]

    def shown(found: Summary) -> list[str]:
        names = dict.fromkeys(cell.name for cell in found.cells)
        return [name for name in names if name in HEADLINES or name.partition(".")[0] in named]

    found, text = write_tables(done.run, shown)
    terminal.say(text)
    terminal.say(f"all figures: {done.run.root / 'tables.md'}")
    terminal.say(f"report: voxmill evaluate report {quoted(done.run.root)}")
    terminal.result({"statuses": done.statuses, "not_measured": done.scored.not_measured, **found.as_json()})
