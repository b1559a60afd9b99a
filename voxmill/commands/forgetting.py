"""`voxmill forget`: hide and erase recordings, sessions or voices, and name the checkpoints that were trained on them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalogs.words import counted
from voxmill.commands.corpus import CorpusArgument
from voxmill.terminal import JsonOption, Terminal

if TYPE_CHECKING:
    from catalogs.corpus.tombstones import Tombstone
    from voxmill.forgetting.plan import CorpusPlan, Plan

_SHOWN = 5
_LISTED = 20
"""Segments of a voice that the plan lists, those that are the least near to it."""


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(forget)


def forget(
    corpus: CorpusArgument,
    recording: Annotated[
        str | None, typer.Option(metavar="PATH|ID", help="Path, source id or content hash of a recording.")
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="A session, all parts of it.")] = None,
    speaker: Annotated[
        str | None, typer.Option(metavar="NAME", help="A voice within --session (column speaker).")
    ] = None,
    speaker_id: Annotated[
        str | None, typer.Option(metavar="PSEUDONYM", help="The owner's name of a speaker (column owner_speaker).")
    ] = None,
    like: Annotated[Path | None, typer.Option(metavar="CLIP", help="A clip of the voice; read the plan.")] = None,
    cosine: Annotated[
        float | None, typer.Option(help="For --like: least cosine. Default: the encoder's limit for one voice.")
    ] = None,
    with_copies: Annotated[
        bool, typer.Option("--with-copies", help="Forget segments of other recordings with the same audio, too.")
    ] = False,
    derived: Annotated[
        list[Path] | None,
        typer.Option(help="A corpus that decouple made of this one. CORPUS-decoupled is found by itself."),
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of training runs: name the checkpoints that were trained on it.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Stored as it is: without names.")] = None,
    requested_by: Annotated[
        str | None, typer.Option("--requested-by", help="Who asked for it. Only a hash is stored.")
    ] = None,
    no_print: Annotated[
        bool, typer.Option("--no-print", help="Keep no audio print: re-encoded copies are not recognized later.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only the plan is printed.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="End what a killed forget has begun.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List what was forgotten.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget recordings, a session or a voice: print the plan; with --yes, hide it at once and erase it.

    Stop training, describe, encode, decouple and browse on the corpus before: they read what they opened.

    Example:  voxmill forget corpus --recording talks/a.wav --models runs --yes
    """
    terminal = Terminal(as_json)
    given = (recording, session, speaker, speaker_id, like, cosine)
    if resume or list_all:
        if (resume and list_all) or yes or any(value is not None for value in given):
            raise ValueError("--resume takes CORPUS and --derived alone, --list CORPUS and --models")
        if list_all:
            _list(terminal, corpus, models)
        else:
            _resume(terminal, corpus, models, derived or ())
        return
    from voxmill.forgetting.forget import forget as carry_out

    plan = carry_out(
        corpus,
        recording=recording,
        session=session,
        speaker=speaker,
        speaker_id=speaker_id,
        like=like,
        cosine=cosine,
        with_copies=with_copies,
        derived=derived or (),
        models=models,
        reason=reason,
        requested_by=requested_by,
        keep_prints=not no_print,
        yes=yes,
        say=terminal.say,
    )
    for part in plan.corpora:
        is_derived = part.corpus != str(corpus.absolute())
        _say_corpus(
            terminal, part, is_derived, by_session=session is not None and speaker is None, with_copies=with_copies
        )
    _say_checkpoints(terminal, plan, models)
    terminal.say(plan.limits)
    terminal.say(
        "erased; the tombstone stays, so that prepare does not take it again"
        if yes
        else "nothing was changed: add --yes to do this"
    )
    _finish(terminal, asdict(plan), plan.problems)


def _resume(terminal: Terminal, corpus: Path, models: Path | None, derived: Sequence[Path]) -> None:
    from voxmill.forgetting.forget import resume_forgetting

    if models is not None:
        raise ValueError("--models goes with a request or with --list")
    problems = resume_forgetting(corpus, terminal.say, derived)
    if not problems:
        terminal.say(f"{corpus}: nothing is left to be erased")
    _finish(terminal, {"corpus": str(corpus), "problems": problems}, problems)


def _list(terminal: Terminal, corpus: Path, models: Path | None) -> None:
    from voxmill.forgetting.forget import list_forgotten

    found, plan = list_forgotten(corpus, models)
    for one in found:
        _say_tombstone(terminal, one)
    if not found:
        terminal.say(f"{corpus} has forgotten nothing")
    elif plan.state != "erased":
        terminal.say(f"not erased yet; end it with: voxmill forget {shlex.quote(str(corpus))} --resume")
    _say_checkpoints(terminal, plan, models)
    checkpoints = [asdict(one) for one in plan.checkpoints]
    terminal.result({"tombstones": [asdict(one) for one in found], "checkpoints": checkpoints})


def _say_tombstone(terminal: Terminal, one: Tombstone) -> None:
    reason = f"; {one.reason}" if one.reason else ""
    terminal.say(
        f"{one.id}  {one.at}  {one.state}: {counted(len(one.source_ids), 'recording')}, "
        f"{counted(len(one.segment_ids), 'segment')}, {one.seconds / 60:.1f} min, by {one.scope.get('by', '?')}{reason}"
    )


def _say_corpus(terminal: Terminal, part: CorpusPlan, is_derived: bool, by_session: bool, with_copies: bool) -> None:
    what = " (synthetic speech made of it)" if is_derived else ""
    partly = f", {counted(part.partial, 'recording')} in part" if part.partial else ""
    terminal.say(f"{part.corpus}{what}: tombstone {part.tombstone}")
    terminal.say(
        f"  {counted(part.recordings, 'recording')}{partly}; {counted(part.segments, 'segment')} "
        f"({part.kept:,} kept), {part.hours:,.3f} h; {counted(part.units, 'unit')} to write again"
    )
    if by_session and not is_derived:
        terminal.say(f"  {counted(len(part.sessions), 'session')}: {', '.join(part.sessions)}")
    terminal.say(
        f"  {counted(part.references, 'reference')} of other segments, {counted(part.descriptions, 'description')}, "
        f"{counted(part.checks, 'check')}, {part.latents:,} latents, {counted(part.marks, 'mark')}, "
        f"{part.decoupled:,} rows on synthetic clips"
    )
    for row in part.heard[:_LISTED]:
        near = f"cosine {row['cosine']:.2f}, " if row["cosine"] is not None else ""
        terminal.say(f"  {row['segment_id']}: {near}{row['start_s']:.1f} to {row['end_s']:.1f} s of {row['path']}")
    if len(part.heard) > _LISTED:
        terminal.say(f"  and {counted(len(part.heard) - _LISTED, 'further segment')}; --json lists all")
    if part.copies:
        stay = "and stay: --with-copies forgets them, too" if not with_copies else "and stay"
        terminal.say(
            f"  {counted(len(part.copies), 'segment')} elsewhere with the same audio {stay}: {_some(part.copies)}"
        )
    if part.linked:
        terminal.say(
            f"  {counted(len(part.linked), 'segment')} share a part or the text, and stay: {_some(part.linked)}"
        )
    for row in part.exports:
        terminal.say(f"  out of reach: {row['path']} ({row['format']}, {row['clips']:,} clips, {row['at']})")


def _some(rows: tuple[dict[str, Any], ...]) -> str:
    names = [f"{row['segment_id']} ({row['duplicate_kind'] or 'first'})" for row in rows[:_SHOWN]]
    return ", ".join(names) + (", ..." if len(rows) > _SHOWN else "")


def _say_checkpoints(terminal: Terminal, plan: Plan, models: Path | None) -> None:
    if models is None:
        return
    if not plan.checkpoints:
        terminal.say(f"{models}: no checkpoints")
    for one in plan.checkpoints:
        detail = f" ({one.why})" if one.why else ""
        if one.verdict == "affected":
            first = f", first in step {one.first_step}" if one.first_step is not None else ", by a checkpoint before it"
            detail = (
                f": {counted(one.draws, 'draw')}, {one.as_reference:,} as reference, {one.through_decoupled:,} through"
            )
            detail += f" synthetic speech{first}"
        terminal.say(f"{one.path}: {one.verdict}{detail}")
    for run, path in plan.unaffected.items():
        terminal.say(f"{run}: newest unaffected checkpoint: {path or 'none: train again'}")


def _finish(terminal: Terminal, result: dict[str, Any], problems: list[str] | tuple[str, ...]) -> None:
    for line in problems:
        terminal.say(line)
    terminal.result(result)
    if problems:
        raise typer.Exit(1)
