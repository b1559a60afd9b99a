"""Commands that make, mark and check a corpus: prepare, retry, catalog, report, browse, fsck."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogs.words import counted
from voxmill.terminal import JsonOption, Terminal, quoted

if TYPE_CHECKING:
    from catalogs.corpus.thresholds import Thresholds

CorpusArgument = Annotated[Path, typer.Argument(help="A corpus folder.", metavar="CORPUS")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (prepare, retry, catalog, report, browse, fsck):
        app.command()(command)


def prepare(
    recordings: Annotated[
        list[str],
        typer.Argument(
            metavar="RECORDINGS",
            help="Folders, files, globs, URLs, tars, zips, .parquet, .arrow, .txt lists or manifests (.csv, .jsonl).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The corpus to make or to continue.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. transcribe.beam_size=1.")] = None,
    executor: Annotated[str | None, typer.Option(help="ray (default) or inline: all in this process.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join.")] = None,
    rights: Annotated[
        Path | None,
        typer.Option("--rights", help="YAML with license, consent ... by path: docs/licenses.md."),
    ] = None,
    require_license: Annotated[
        bool, typer.Option("--require-license", help="Refuse recordings for which no license is stated.")
    ] = False,
    license_allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Refuse recordings with another license: CC-BY-4.0, a glob, or commercial; may be repeated.",
        ),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Process everything that is given again.")] = False,
    share: Annotated[
        str | None,
        typer.Option(
            help="Only a part of the sessions, e.g. 2/4: the second of four runs into one corpus, at once or not."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only forecast time, kept hours and disk, from a few minutes of audio.")
    ] = False,
    sample_minutes: Annotated[
        float | None,
        typer.Option(help="Minutes of audio to sample for --dry-run. Default: one third of all, at most 8.", min=0.5),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn recordings into a corpus: separate, find speech, cut, transcribe, score, embed, mine references, commit.

    May be killed at any time. Run the same command to resume. Recordings that cannot be processed go to the quarantine with
    their reason, and never stop the run. Work begins while the recordings are still being read.

    Several runs with --share 1/4 ... 4/4, also on several machines with a common disk, fill one corpus. The last to end marks
    duplicates, describes and builds the catalog.

    Example:  voxmill prepare ~/podcasts --out corpus
    """
    from catalogs.corpus.locks import Share
    from pipeline.config import load_config
    from pipeline.inputs.rights import load_rules
    from pipeline.prepare import prepare as run

    part = Share.parse(share) if share else None
    overrides = list(set_ or [])
    if executor:
        overrides.append(f"engine.executor={executor}")
    if address:
        overrides.append(f"engine.address={address}")
    if rights:
        overrides.append(f"sources.rights={json.dumps([rule.as_written() for rule in load_rules(rights)])}")
    if license_allow or require_license:
        overrides.append(f"sources.licenses={json.dumps(license_allow or ['stated'])}")
    settings = load_config(config, overrides)
    terminal = Terminal(as_json)
    if dry_run:
        from voxmill.forecast import show_forecast

        show_forecast(recordings, out, settings, sample_minutes and sample_minutes * 60, terminal, redo, part)
        return
    from voxmill.progress import PrepareProgress

    with PrepareProgress(terminal) as progress:
        summary = run(recordings, out, settings, redo, progress, part)
    terminal.result(asdict(summary))


def retry(
    corpus: CorpusArgument,
    stage: Annotated[str | None, typer.Option(help="Only what failed in this stage.")] = None,
    cause: Annotated[
        list[str] | None, typer.Option(help="machine, bug or data; may be repeated. Default: machine and bug.")
    ] = None,
    executor: Annotated[str | None, typer.Option(help="ray or inline; default: as the corpus was prepared.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be processed again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Process again what failed in a corpus, with the corpus' settings and the sources of its runs.

    A broken recording (cause data) fails again unless the code has changed: it is left out unless you ask for it. Files that were
    refused before any stage, such as broken links, have the stage "sources": they are processed if they can be read now.

    Example:  voxmill retry corpus --cause bug --dry-run
    """
    from pipeline.retry import DEFAULT_CAUSES, failures, retry_lines, settings_of
    from pipeline.retry import retry as run
    from voxmill.progress import PrepareProgress

    terminal = Terminal(as_json)
    causes = cause or DEFAULT_CAUSES
    if dry_run:
        wanted = failures(corpus, stage, causes)
        for line in retry_lines(wanted, stage, causes):
            terminal.say(line)
        rows = [row for rows in wanted.values() for row in rows]
        for row in rows:
            terminal.say(f"  {row['path']} ({row['stage']}: {row['error']})")
        terminal.result(rows)
        return
    overrides = [f"engine.executor={executor}"] if executor else []
    with PrepareProgress(terminal) as progress:
        summary = run(corpus, settings_of(corpus, overrides), stage, causes, progress)
    terminal.result(asdict(summary))


def catalog(
    corpus: CorpusArgument,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a threshold, e.g. min_snr_db=10 (null: off, default: as prepared); calls no model."
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option("--thresholds", help="YAML of thresholds to change, e.g. min_snr_db: 10; --set overrides it."),
    ] = None,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Drop all saved thresholds first; for one alone: --set min_snr_db=default."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Rebuild catalog.duckdb: views over all that is committed, under the present or the given thresholds.

    Which segments are kept, and why not, is computed from the recorded scores: no model is called, no audio is read.
    Thresholds given here are saved in CORPUS/thresholds.yaml, and win over those of `prepare`. Thresholds that differ from the
    defaults are listed, each with the number of segments that would be kept under its default.

    Example:  voxmill catalog corpus --thresholds strict.yaml --set min_dnsmos_ovr=3.0
    """
    from catalogs.corpus.thresholds import change_thresholds, load_thresholds
    from catalogs.query.views import build_catalog, count_kept
    from catalogs.query.views import query as ask

    terminal = Terminal(as_json)
    before = load_thresholds(corpus)
    present = change_thresholds(corpus, set_ or (), thresholds, reset) if set_ or thresholds or reset else before
    path = build_catalog(corpus)
    (segments,) = ask(corpus, "select count(*) from segments")[1][0]
    was, kept = count_kept(corpus, before, present)
    moved = f" ({was} before)" if present != before else ""
    terminal.say(f"{path}: {kept} of {segments} segments kept{moved}")
    differ = _differing(corpus, present)
    if differ:
        terminal.table(
            "thresholds that differ from the defaults", list(differ[0]), [list(row.values()) for row in differ]
        )
    terminal.say(f'open it with duckdb, or ask: voxmill query {quoted(corpus)} "select * from funnel"')
    terminal.result(
        {"catalog": str(path), "segments": segments, "kept": kept, "kept_before": was, "thresholds": differ}
    )


def _differing(corpus: Path, present: Thresholds) -> list[dict[str, object]]:
    """Return the thresholds that are not the defaults: which command set them, and how many segments the default would keep."""
    from catalogs.corpus.thresholds import Thresholds, changes, prepared_thresholds
    from catalogs.query.views import count_kept

    default, prepared = Thresholds(), prepared_thresholds(corpus)
    by_prepare = {name for name, _, _ in changes(default, prepared)} - {
        name for name, _, _ in changes(prepared, present)
    }
    differ = changes(default, present)
    if not differ:
        return []
    singly = [present.model_copy(update={name: getattr(default, name)}) for name, _, _ in differ]
    counts = count_kept(corpus, *singly)
    return [
        {"threshold": name, "default": old, "now": new, "set by": "prepare" if name in by_prepare else "catalog"}
        | {"kept at the default": count}
        for (name, old, new), count in zip(differ, counts, strict=True)
    ]


def report(
    corpus: CorpusArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page to write; CORPUS/report.html if not given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page: what was kept and why not, histograms, playable clips, voices, quarantine.

    Example:  voxmill report corpus --out report.html
    """
    from catalogs.report.report import build_report

    terminal = Terminal(as_json)
    path = build_report(corpus, out or corpus / "report.html")
    terminal.say(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser, it needs no network")
    terminal.result({"report": str(path)})


def browse(
    corpus: CorpusArgument,
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = 0,
    by: Annotated[str | None, typer.Option(help="Name of who marks. Default: the login name.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Let other machines reach it, with the token, unencrypted. Needs --host."),
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the address; open no browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Open a page on this machine to search, hear, compare, correct and mark segments, without a mouse. Ctrl-C ends it.

    Marks say who keeps, drops or corrects a segment. They are an annotation pass beside the others: nothing that is there is
    changed, and every mark can be undone. The catalog, `train` and exports follow them. Several people may mark at once, also on
    the same corpus.

    Example:  voxmill browse corpus --by ann
    """
    from catalogs.browse.server import Served
    from catalogs.browse.server import browse as serve

    terminal = Terminal(as_json)

    def ready(served: Served) -> None:
        terminal.say(f"{served.url}\nCtrl-C ends it; press ? on the page for the keys")
        terminal.result({"url": served.url})

    serve(corpus, port, by, host, allow_remote, open_=not no_open, ready=ready)


def fsck(
    corpus: CorpusArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be repaired; delete only duplicates of committed files.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that a corpus is whole: every file's digest, no segment twice, every second of every recording accounted for.

    --repair rebuilds corpus.json, lost commit records, and indexes of units whose segments all have audio. It uncommits any other
    damaged unit, so that the same prepare command processes exactly its recordings again. If recordings of such a unit are
    missing, it leaves the unit unchanged and names them.

    The digest names the content: two corpora with the same digest hold the same clips, texts and measures.

    Example:  voxmill fsck corpus --repair
    """
    from catalogs.corpus.commit import CorpusError
    from catalogs.corpus.fsck import fsck as check
    from catalogs.lineage.digest import corpus_digest

    terminal, digest = Terminal(as_json), None
    problems = check(corpus, repair=repair)
    for problem in problems:
        terminal.say(str(problem))
    errors = [problem for problem in problems if problem.severity == "error"]
    notices = sum(problem.severity == "notice" for problem in problems)
    whole = f"whole ({counted(notices, 'notice')})" if notices else "whole"
    terminal.say(f"{corpus}: {whole if not errors else counted(len(errors), 'error')}")
    # A damaged record is among the errors already.
    with suppress(CorpusError):
        digest = corpus_digest(corpus)
        terminal.say(f"digest of its committed files: {digest}")
    terminal.result({"digest": digest, "problems": [vars(problem) for problem in problems]})
    if errors:
        raise typer.Exit(1)
