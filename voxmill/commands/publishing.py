"""Commands for a corpus or a model that is given away: card, sign, verify-model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogs.words import counted
from voxmill.terminal import JsonOption, Terminal, quoted

if TYPE_CHECKING:
    from voxcpm.weights.signing.model import Verified

_SHOWN = 20
"""Files of a kind that are named; the JSON names all."""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(card)
    app.command()(sign)
    app.command("verify-model")(verify_model)


def card(
    path: Annotated[
        Path, typer.Argument(metavar="CORPUS|MODEL", help="A corpus folder, or that of a checkpoint or adapter.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the files. Default: PATH itself.")] = None,
    name: Annotated[str | None, typer.Option(help="Name in the title. Default: that of the corpus or folder.")] = None,
    contact: Annotated[
        str | None, typer.Option(help="Where people ask to have their voice removed: an address or a page.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Corpus: page where it is published, for croissant.json.")] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Model: license of its weights. None follows from its data.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Model: language that it speaks, e.g. en; may be repeated.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Model: the Hub's id of the model that it was made from.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Model: the Hub's id of a data set of its training; may be repeated.")
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option(help="Model: corpus of its training, for the credits in ATTRIBUTION.md; may be repeated."),
    ] = None,
    evaluation: Annotated[Path | None, typer.Option(help="Model: folder of an evaluation run of it.")] = None,
    watermark_key: Annotated[
        str, typer.Option(help="Model: key of the watermark in its published speech: public, none, or an id.")
    ] = "public",
    force: Annotated[bool, typer.Option("--force", help="Write over files that a person wrote or changed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the card of a corpus or a model: README.md with the head of the Hub, croissant.json, ATTRIBUTION.md.

    It states what is recorded and what is not known. It concludes no license. Run it again after a change: text outside of its
    marks in README.md stays.

    Example:  voxmill card corpus --contact voices@example.org
    """
    from voxmill.publish import card as run

    terminal = Terminal(as_json)
    made = run(
        path,
        out=out,
        name=name,
        contact=contact,
        url=url,
        license=license_,
        languages=language or (),
        base_model=base_model,
        datasets=dataset or (),
        corpora=corpus or (),
        evaluation=evaluation,
        watermark=watermark_key,
        force=force,
    )
    for notice in made.notices:
        terminal.say(f"  {notice}")
    for file in made.files:
        terminal.say(str(file))
    terminal.result(asdict(made))


def sign(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="The folder of a model or an adapter.")] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Private key in PEM: ECDSA P-256, P-384 or P-521. Its password is read from VOXMILL_KEY_PASSWORD."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The signature to write. Default: model.sig in the folder.")
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make a key pair: this file, and the public key beside it. Signs nothing.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign every file of a model in the OpenSSF format of model-signing, whose `verify key` reads it, too.

    The signature names each file with its SHA-256, lineage.json among them. Git's files are left out, links are refused.

    Example:  voxmill sign demo/model/latest --key key.pem
    """
    from voxcpm.weights.signing.keys import make_key_pair, others_can_read
    from voxcpm.weights.signing.model import sign_model

    terminal = Terminal(as_json)
    if new_key is not None:
        if model or key or out:
            raise ValueError("--new-key only makes a key pair: leave out MODEL, --key and --out")
        public = make_key_pair(new_key)
        terminal.say(f"{new_key}: private key; keep it to yourself")
        terminal.say(f"{public}: public key; give it to those who verify")
        terminal.result({"private": str(new_key), "public": str(public)})
        return
    if model is None or key is None:
        raise ValueError(
            "give a model and a key: voxmill sign MODEL --key KEY; a key is made by: voxmill sign --new-key KEY"
        )
    with terminal.counting("files") as count:
        signed = sign_model(model, key, out, count)
    if others_can_read(key):
        terminal.say(f"other users of this machine can read {key}: chmod 600 {quoted(key)}")
    terminal.say(f"{signed.signature}: {counted(signed.files, 'file')} signed with the key {signed.key[:16]}")
    if not signed.lineage:
        terminal.say("  no lineage.json among them: the signature says nothing about the data of the model")
    terminal.result(asdict(signed))


def verify_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a model or an adapter.")],
    public_key: Annotated[Path, typer.Option(help="Public key of the signer, in PEM.")],
    signature: Annotated[Path | None, typer.Option(help="The signature. Default: model.sig in the folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a model with its signature. Names files that changed, are missing or were added; exit status 1 if there are any.

    Signatures of the package model-signing that were made with a key are read, too.

    Example:  voxmill verify-model demo/model/latest --public-key key.pub.pem
    """
    from voxcpm.weights.signing.model import verify_model as run

    terminal = Terminal(as_json)
    with terminal.counting("files") as count:
        found = run(model, public_key, signature, count)
    _show(terminal, model, found)
    terminal.result(asdict(found) | {"whole": found.whole})
    if not found.whole:
        raise typer.Exit(1)


def _show(terminal: Terminal, model: Path, found: Verified) -> None:
    for words, names in (("changed", found.changed), ("missing", found.missing), ("not signed", found.extra)):
        for name in names[:_SHOWN]:
            terminal.say(f"  {words}: {name}")
        if len(names) > _SHOWN:
            terminal.say(f"  {words}: {len(names) - _SHOWN} more")
    if found.not_covered:
        terminal.say(f"  left out by the signature: {', '.join(found.not_covered)}")
    if found.whole:
        terminal.say(f"{model}: as signed, {counted(found.files, 'file')}, key {found.key[:16]}")
    else:
        terminal.say(f"{model}: not what was signed with the key {found.key[:16]}")
