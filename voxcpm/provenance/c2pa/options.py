"""The options of signing for command lines that are made with argparse."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from voxcpm.provenance.c2pa.claim import USES, Clip, Role

if TYPE_CHECKING:
    from voxcpm.provenance.c2pa.signer import Signing


def add_signing(parser: argparse.ArgumentParser) -> None:
    """Add the options of signing to a parser."""
    add = parser.add_argument
    add("--sign-key", help="sign the audio files with this private key (PEM), as C2PA does")
    add("--sign-cert", help="the certificate of the key and its chain (PEM)")
    add("--sign-training", choices=USES, default="notAllowed", help="what they say of training on them (notAllowed)")
    add("--sign-tsa", help="the URL of a time stamping service (none is asked)")


def given_signing(options: argparse.Namespace, clips: dict[Role, str | None]) -> Signing | None:
    """Return how files are signed, with the hashes of the clips; None without a key. Raises C2paError and OSError."""
    from voxcpm.provenance.c2pa.signer import signing_of

    signing = signing_of(
        options.sign_key, options.sign_cert, options.sign_training, options.sign_tsa, marks=not options.no_mark
    )
    if signing is None:
        return None
    return replace(signing, clips=tuple(Clip.of(path, role) for role, path in clips.items() if path))
