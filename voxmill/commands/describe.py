"""Commands about descriptions of voices: describe, verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalogs.words import counted
from voxmill.commands.corpus import CorpusArgument
from voxmill.terminal import JsonOption, Terminal, quoted

if TYPE_CHECKING:
    from annotators.paid.estimate import Estimate
    from annotators.paid.pass_options import PassStats


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (describe, verify):
        app.command()(command)


def describe(
    corpus: CorpusArgument,
    annotator: Annotated[
        str,
        typer.Option(
            help="acoustic (offline, from measured scores), gemini, gemini-batch (half the price, within a day), chat (any"
            " server of OpenAI's chat format), or another package's: its entry point or module:Class."
        ),
    ] = "acoustic",
    model: Annotated[str | None, typer.Option(help="Model of the service. Default: that of the annotator.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Server of chat, e.g. http://127.0.0.1:8000/v1, or another one of gemini.")
    ] = None,
    cap_usd: Annotated[
        float | None,
        typer.Option(
            help="Most that this pass may spend in all, in US dollars, earlier runs included. Required if it costs money."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Describe only the first N clips of the selection; a larger N extends it.", min=1)
    ] = None,
    languages: Annotated[
        str | None, typer.Option(help="Languages of the captions, e.g. en,zh,own (own: the clip's). Default: en,zh.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Describe every kept segment. Default: the 30 % that are most expressive in each language, 10 % calm ones,"
            " and the voices of children and old people.",
        ),
    ] = False,
    concurrency: Annotated[int, typer.Option(help="Most requests at a time.", min=1)] = 16,
    requests_per_minute: Annotated[float | None, typer.Option(help="Limit of the service.", min=0.01)] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(help="Limit of the service.", min=1)] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for batch jobs. Default: a later run of the same command collects them."),
    ] = False,
    prices: Annotated[
        Path | None,
        typer.Option(help="TOML of prices that come before the built-in ones (annotators/paid/prices.toml)."),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="SQLite file of requests, replies and spend, on a local disk. Default: in the folder of the pass."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the expected and the worst-case price, tokens and time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Describe the voices and styles of the kept segments. Run the same command to resume.

    Services get the audio of the selected clips and their spoken language: no transcript, no names. Keys come from
    GEMINI_API_KEY and VOXMILL_CHAT_API_KEY. The exit status is 3 if a quota of the service is used up, 4 if another model answers,
    5 if no request can work (key, model), and 6 if the service does not reply.

    Example:  voxmill describe corpus --annotator gemini --cap-usd 5 --dry-run
    """
    from annotators.describe import describe as run
    from annotators.describe import price
    from annotators.paid.pass_options import PassOptions, PassStats

    terminal = Terminal(as_json)
    options = PassOptions(
        cap_usd=cap_usd,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        poll_s=60.0 if wait else None,
        prices=prices,
        ledger=ledger,
        say=terminal.say,
        progress=lambda stats: terminal.say(f"  {stats.line}"),
    )
    asked: dict[str, Any] = {
        "model": model, "base_url": base_url, "limit": limit, "everything": everything, "options": options,
        "languages": None if languages is None else _listed(languages),
    }  # fmt: skip
    if dry_run:
        clips, found, pays_for = price(corpus, annotator, **asked)
        for line in (clips.line, *found.lines, *_cap_lines(cap_usd, pays_for, clips.first)):
            terminal.say(line)
        terminal.result(_estimated(found, clips.first, pays_for))
        return
    with terminal.printing("annotators"):
        stats = run(corpus, annotator, **asked)
    terminal.say(stats.line)
    if isinstance(stats, PassStats):
        terminal.say(f"next: voxmill verify {quoted(corpus)} --annotator {quoted(stats.name)}")
        terminal.result(_counts(stats))
    else:
        terminal.result(asdict(stats))


def _listed(text: str) -> list[str]:
    """Return the parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _cap_lines(cap_usd: float | None, pays_for: int | None, wanted: int) -> list[str]:
    if pays_for is None:
        return []
    enough = "it pays for all" if pays_for >= wanted else f"it surely pays for the first {counted(pays_for, 'clip')}"
    return [f"cap ${cap_usd:,.2f}: {enough}; what replies cost less than their worst case pays for more"]


def _estimated(found: Estimate, selected: int, pays_for: int | None) -> dict[str, Any]:
    return {
        "selected": selected,
        "clips": found.clips,
        "answered": found.answered,
        "audio_s": found.audio_s,
        "requests": found.requests,
        "expected_usd": found.expected / 1e6,
        "worst_case_usd": found.worst / 1e6,
        "expected_tokens": asdict(found.expected_tokens),
        "worst_case_tokens": asdict(found.worst_tokens),
        "seconds": found.seconds,
        "price": found.price.words,
        "cap_pays_for": pays_for,
    }


def _counts(stats: PassStats) -> dict[str, Any]:
    totals = stats.totals
    return {
        "annotator": stats.name,
        "clips": dict(stats.clips),
        "requests": stats.requests,
        "cap_reached": stats.cap_reached,
        "jobs_running": stats.jobs_running,
        "spent_usd": None if totals is None else totals.spent / 1e6,
        "unknown_usd": None if totals is None else totals.unknown / 1e6,
    }


def verify(
    corpus: CorpusArgument,
    annotator: Annotated[
        str | None,
        typer.Option(help="Folder below CORPUS/annotations. Default: all that listen to the audio (not acoustic)."),
    ] = None,
    experts: Annotated[
        str,
        typer.Option(help="Experts to compare with: gender, age, ears-gender, ears-age, or another package's."),
    ] = "gender,age",
    allow_non_commercial: Annotated[
        bool, typer.Option("--allow-non-commercial", help="Allow experts whose license forbids commercial use.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare descriptions with measures, experts and votes; repair what they refute, or drop it. Free and repeatable.

    Claims are read from the attributes and from the captions, in English and Chinese. What evidence cannot decide stays as it is.
    The description as it was given stays in the column `answered`, and each finding is a row of the view `checks`.

    Example:  voxmill verify corpus --annotator gemini@1
    """
    from annotators.verification.answered import passes_to_verify
    from annotators.verification.verify import verify_corpus

    terminal = Terminal(as_json)
    results = []
    for name in [annotator] if annotator else passes_to_verify(corpus):
        with terminal.printing("annotators"):
            stats = verify_corpus(corpus, name, _listed(experts), allow_non_commercial)
        terminal.say(stats.line)
        results.append(stats.counts)
    terminal.say(f"next: voxmill report {quoted(corpus)}")
    terminal.result(results)
