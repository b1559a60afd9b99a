"""`voxmill consent`: the sentence of a consent, the check of its recording, and what is kept."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxmill.terminal import JsonOption, Terminal

if TYPE_CHECKING:
    from pipeline.voice.consent.record import Record

consent_app = typer.Typer(
    no_args_is_help=True, help="Consents of speakers: get a sentence, check its recording, list what is kept."
)

StoreOption = Annotated[Path, typer.Option("--store", help="The folder of consents.")]
_WEAK = "plausible is not identification: GE2E cannot tell similar voices apart, and a synthetic voice can read the sentence"


class NotCheckedError(ValueError):
    """Nothing was checked: a file or a challenge cannot be read."""

    exit_status = 2


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(consent_app, name="consent")


@consent_app.command()
def ask(
    speaker: Annotated[str, typer.Option(help="Who consents, by the name that the sentence says.")],
    to: Annotated[str, typer.Option(help="Who may use the voice: a person or an organization.")],
    language: Annotated[str, typer.Option(help="The speaker's language, e.g. de or pt-BR.")] = "en",
    purpose: Annotated[
        list[str] | None,
        typer.Option(help="cloning (default), tts-training, research, commercial, or other words. May be repeated."),
    ] = None,
    speaker_id: Annotated[str | None, typer.Option(help="A pseudonym of the speaker, as in a corpus.")] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Last day of the consent. Default: until withdrawn.", formats=["%Y-%m-%d"])
    ] = None,
    hours: Annotated[float, typer.Option(help="Hours within which the sentence is to be read and checked.")] = 24.0,
    store: StoreOption = Path("consent"),
    as_json: JsonOption = False,
) -> None:
    """Print a sentence for a speaker to read aloud. It has four random words, is valid for a day and for one recording.

    Example:  voxmill consent ask --speaker "Anna Weber" --to "Example Studio" --language de
    """
    from pipeline.voice.consent.challenge import new_challenge
    from pipeline.voice.consent.sentences import DEFAULT_PURPOSES, FALLBACK, wordings
    from pipeline.voice.consent.store import ConsentStore

    made = new_challenge(
        speaker,
        to,
        language,
        tuple(purpose or DEFAULT_PURPOSES),
        hours,
        speaker_id,
        until.date() if until is not None else None,
    )
    terminal = Terminal(as_json)
    fallback = made.language == FALLBACK and not language.lower().startswith(FALLBACK)
    if fallback:
        known = ", ".join(wordings())
        terminal.say(f"no sentence in {language!r} is known, so it is English; known: {known}")
    ConsentStore(store).add_challenge(made)
    terminal.say(f"{made.speaker} reads aloud, and you record it:")
    terminal.say(f"  {made.sentence}")
    where = [] if store == Path("consent") else ["--store", str(store)]
    command = [
        "voxmill",
        "consent",
        "check",
        "STATEMENT.wav",
        "--reference",
        "CLIP.wav",
        "--challenge",
        made.id,
        *where,
    ]
    terminal.say(f"by {made.expires}, then:")
    terminal.say(f"  {shlex.join(command)}")
    terminal.result(asdict(made))


@consent_app.command()
def check(
    statement: Annotated[Path, typer.Argument(metavar="STATEMENT", help="The recording of the sentence, up to 60 s.")],
    reference: Annotated[
        list[Path],
        typer.Option(help="A clip whose voice is to be used; its first 30 s count, as for cloning. May be repeated."),
    ],
    challenge: Annotated[
        str | None, typer.Option(help="The id that ask printed. Default: the only sentence that waits.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Speaker encoder: ge2e, ecapa, or auto: the better one here.")] = "auto",
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Do not keep the recording beside the record.")] = False,
    store: StoreOption = Path("consent"),
    as_json: JsonOption = False,
) -> None:
    """Check a recorded statement: its words, its voice, its quality, and that it is not marked as synthetic.

    Exit status: 0 accepted, 1 refused, 2 nothing was checked. The verdict of the encoder GE2E is plausible, that of ECAPA
    verified. The record holds no voiceprint. A refused recording is not kept.

    Example:  voxmill consent check statement.wav --reference her.wav
    """
    from voxmill.consent_check import check_files

    if encoder not in ("auto", "ge2e", "ecapa"):
        raise ValueError(f"--encoder {encoder} is unknown: give auto, ge2e or ecapa")
    try:
        record = check_files(store, statement, reference, challenge, encoder, not no_audio)
    except (ValueError, OSError) as error:
        from voxmill.terminal import explain

        raise NotCheckedError(explain(error)) from None
    terminal = Terminal(as_json)
    for line in _report(record):
        terminal.say(line)
    terminal.say(f"  kept in  {store / f'{record.id}.json'}")
    terminal.result(asdict(record))
    if not record.accepted:
        raise typer.Exit(1)


@consent_app.command("list")
def list_consents(store: StoreOption = Path("consent"), as_json: JsonOption = False) -> None:
    """List the consents with their state and last day, and the sentences that wait for a recording.

    Example:  voxmill consent list --store consent
    """
    from pipeline.voice.consent.store import ConsentStore

    if not store.is_dir():
        raise FileNotFoundError(f"no folder of consents at {store}: make one with voxmill consent ask")
    folder, now = ConsentStore(store), datetime.now(UTC)
    records = [{**asdict(one), "state": one.state(now)} for one in folder.records()]
    waiting = [
        {**asdict(one), "state": "stale" if one.is_stale(now) else "waiting"}
        for one in folder.challenges()
        if one.statement_sha256 is None
    ]
    terminal = Terminal(as_json)
    for one in records:
        until = one["expires"] or "until withdrawn"
        terminal.say(f"{one['id']}  {one['state']:<9}  {one['speaker']} to {one['recipient']}, {until}")
    for one in waiting:
        terminal.say(
            f"{one['id']}  {one['state']:<9}  {one['speaker']} to {one['recipient']}, to be read by {one['expires']}"
        )
    if not records and not waiting:
        terminal.say(f"{store} holds no consents: get a sentence with voxmill consent ask")
    terminal.result({"consents": records, "challenges": waiting})


def _report(record: Record) -> list[str]:
    """Return what was found, as lines."""
    words = f"CER {record.cer:.1%}" if record.cer is not None else "none recognized"
    missing = f", missing: {', '.join(record.missing_words)}" if record.missing_words else ", all random words"
    lines = [f"consent {record.id}: {record.verdict}", *(f"  refused  {reason}" for reason in record.reasons)]
    lines.append(f"  heard    {record.transcript or '-'}")
    lines.append(f"  words    {words}{missing}")
    for seconds, near, least in zip(record.reference_s, record.cosine, record.least_cosine, strict=True):
        found = "not compared" if near is None else f"cosine {near:.2f}, at least {least:.2f} is needed"
        lines.append(f"  voice    {found} ({record.encoder}; {record.statement_s:g} s with {seconds:g} s of speech)")
    if record.verdict == "plausible":
        lines.append(f"  note     {_WEAK}")
    return lines
