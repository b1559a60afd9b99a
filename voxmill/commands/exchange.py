"""Commands that write a corpus for other tools and read the files of other tools: export, import."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogs.durations import duration_text
from catalogs.words import counted
from voxmill.terminal import JsonOption, Terminal

if TYPE_CHECKING:
    from catalogs.exchange.export import ExportSummary

CorpusArgument = Annotated[Path, typer.Argument(help="A corpus folder.", metavar="CORPUS")]
_REASONS = 10
"""Reasons of the quarantine that are shown."""
_FORMATS = "hf, voxcpm, webdataset, lhotse, ljspeech, nemo, pocket-tts, dots, qwen3-tts or croissant"


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(export)
    app.command("import")(import_)


def export(
    corpus: CorpusArgument,
    out: Annotated[Path, typer.Argument(help="The folder to make or to continue.", metavar="OUT")],
    to: Annotated[str, typer.Option("--to", help=f"The format: {_FORMATS}.")],
    where: Annotated[str, typer.Option(help="SQL condition on the view `segments`.")] = "kept",
    license_allow: Annotated[
        list[str] | None,
        typer.Option(help="Only clips with this license: an SPDX id, CC-BY-*, commercial or stated; may be repeated."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Splits that share no voice, session, copy or text: train=0.9,validation=0.05,test=0.05."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other splits.")] = 0,
    same_text: Annotated[
        str, typer.Option(help="Clips of one text: link (all in one split) or leave-out (only in the first split).")
    ] = "link",
    columns: Annotated[
        str | None, typer.Option(help="More columns of `segments`, e.g. snr_db,dnsmos_ovr. hf and croissant have all.")
    ] = None,
    text: Annotated[str, typer.Option(help="The column that is the text.")] = "text",
    audio: Annotated[
        str | None,
        typer.Option(
            help="flac (as stored, if the rate stays), wav or none. Default: what the readers of the format take."
        ),
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(help="Resample to this rate, in Hz. Default: as stored; qwen3-tts: 24000.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            help='Folder that manifests name, e.g. /data/speech on the training machine; "" for relative paths.'
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write clips in the format of another tool, with splits, a card and licenses. Run it again to continue after a kill.

    The audio is copied as it is where the format takes FLAC. README.md is the card, export.json says what is in the folder; it
    is written last.

    Example:  voxmill export corpus speech --to hf --split train=0.9,validation=0.05,test=0.05
    """
    from catalogs.exchange.export import export as run
    from catalogs.exchange.request import parse_splits

    terminal = Terminal(as_json)
    with terminal.counting("clips") as progress:
        summary = run(
            corpus,
            to,
            out,
            where=where,
            license_allow=license_allow or (),
            splits=parse_splits(split) if split else None,
            seed=seed,
            same_text=same_text,
            columns=[name.strip() for name in columns.split(",")] if columns else (),
            text=text,
            audio=audio,
            sample_rate=sample_rate,
            prefix=prefix,
            progress=progress,
        )
    _show_export(terminal, summary)
    terminal.result(asdict(summary))


def _show_export(terminal: Terminal, summary: ExportSummary) -> None:
    if summary.done_before:
        terminal.say(f"{summary.out} is complete already: nothing was written. To export again, choose another folder")
    for name, own in summary.splits.items():
        voices = f"{counted(own['speakers'], 'voice')} in {counted(own['sessions'], 'session')}"
        terminal.say(f"  {name:<12} {counted(own['clips'], 'clip')}, {duration_text(own['seconds'])}, {voices}")
    if summary.counts.get("without_text"):
        terminal.say(f"  {counted(summary.counts['without_text'], 'clip')} without text left out")
    for note in summary.notes:
        terminal.say(f"  {note}")
    if not summary.done_before:
        terminal.say(
            f"{summary.out}: {counted(summary.clips, 'clip')}, {duration_text(summary.seconds)}; see README.md in it"
        )


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A .jsonl, .csv or .tsv manifest, lhotse cuts, a .tar, .parquet, or a folder of these, e.g. an export.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The corpus to make or to continue.")],
    root: Annotated[
        list[Path] | None, typer.Option(help="Another folder that audio may be read from; may be repeated.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of rows that name none, e.g. en.")] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="License of rows that name none, e.g. CC0-1.0.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the corpus; default: that of the source.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a corpus of clips that are cut and transcribed already. Run it again to continue after a kill.

    Each row becomes a segment with its id, text, words, language, speaker and license; the samples stay as they are. No model is
    run: measures stay null, and thresholds do not apply to null. `voxmill prepare` on the same source measures everything, in a
    corpus of new segments. Rows that cannot be used are in the view `quarantine`.

    Example:  voxmill import speech/train.jsonl --out corpus
    """
    from catalogs.exchange.importing import import_corpus as run

    terminal = Terminal(as_json)
    with terminal.counting("rows") as progress:
        summary = run(source, out, roots=root or (), language=language, license=license_, name=name, progress=progress)
    for reason, count in sorted(summary.reasons.items(), key=lambda item: -item[1])[:_REASONS]:
        terminal.say(f"  quarantined {count}: {reason}")
    if summary.already:
        terminal.say(f"  {counted(summary.already, 'clip')} of an earlier run")
    if summary.rounded:
        terminal.say(f"  {counted(summary.rounded, 'clip')} rounded to integers (lossy codecs, floats)")
    terminal.say(f"{out}: {counted(summary.clips, 'clip')} added, {duration_text(summary.seconds)}")
    terminal.result(asdict(summary))
