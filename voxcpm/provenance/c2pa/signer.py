"""Sign files: the key and the certificate, checked before anything is spoken, and what they make of a finished file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxcpm.provenance.c2pa.claim import USES, Clip, Use, manifest_of
from voxcpm.provenance.c2pa.library import MISSING, C2paError, context, library
from voxcpm.provenance.c2pa.store import EMBEDDED, format_of
from voxcpm.provenance.riff import wav_header
from voxcpm.provenance.statement import Statement

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_KEYS = "an EC key (P-256, P-384, P-521), an Ed25519 key, or an RSA key of at least 2048 bits"
_MAIL = "1.3.6.1.5.5.7.3.4"
"""Extended key usage that the C2PA library takes by default: protection of mail."""
_OTHER = "application/octet-stream"
"""The format for a manifest that stands beside a file: every byte of the file counts."""


@dataclass(frozen=True)
class Signed:
    """A signed file: its bytes, and those of the manifest if it stands beside the file."""

    data: bytes
    sidecar: bytes | None = None


class Signer:
    """A key with its certificates. It is safe to use from several threads."""

    def __init__(self, key: str | Path, certificates: str | Path, time_stamps: str | None = None) -> None:
        """key: PEM without a password. certificates: PEM, that of the key first, then those that it is signed by.

        time_stamps: URL of a time stamping service, which is then asked for each file. Without it nothing is asked.
        Raises C2paError with one line if they cannot sign, and OSError if they cannot be read.
        """
        self._library = library()
        self._key, self._chain = _read(key), _read(certificates)
        self._stamps: str | None = None
        leaf = _leaf(self._chain, certificates)
        self._algorithm = _algorithm(self._key, leaf, key, certificates)
        _check_time(leaf, certificates)
        try:
            self.sign(wav_header(8000, 0), Statement(created=None))
        except C2paError as error:
            raise C2paError(f"{certificates}: C2PA refuses the certificate ({_fault(error, leaf)})") from None
        if time_stamps is not None:
            self._stamps = time_stamps
            try:
                self.sign(wav_header(8000, 0), Statement(created=None))
            except C2paError as error:
                raise C2paError(f"{time_stamps}: no time stamp comes from there ({error})") from None

    def sign(
        self,
        data: bytes,
        statement: Statement,
        clips: Sequence[Clip] = (),
        payload: int | None = None,
        training: Use = "notAllowed",
    ) -> Signed:
        """Sign the bytes of a finished file. WAV, FLAC, MP3 and M4A hold the manifest; others get it beside them.

        payload, training: see `manifest_of`. Raises C2paError.
        """
        form = format_of(io.BytesIO(data))
        embedded = form in EMBEDDED
        sink = io.BytesIO()
        try:
            builder = self._library.Builder(manifest_of(statement, clips, payload, training), context=context())
            if not embedded:
                builder.set_no_embed()
            with builder:
                made = builder.sign(self._signer(), EMBEDDED.get(form or "", _OTHER), io.BytesIO(data), sink)
        except self._library.C2paError as error:
            raise C2paError(_one_line(error)) from None
        return Signed(sink.getvalue()) if embedded else Signed(data, made)

    def _signer(self) -> Any:
        parts = (self._algorithm, self._chain, self._key, self._stamps)
        info = self._library.C2paSignerInfo(*(part and part.encode() for part in parts))
        return self._library.Signer.from_info(info)


@dataclass(frozen=True)
class Signing:
    """How the files of one command are signed."""

    signer: Signer
    clips: tuple[Clip, ...] = ()
    payload: int | None = None  #: of the watermark in the samples
    training: Use = "notAllowed"

    def sign(self, data: bytes, statement: Statement) -> Signed:
        """Sign the bytes of a finished file. Raises C2paError."""
        return self.signer.sign(data, statement, self.clips, self.payload, self.training)


def signing_of(
    key: str | Path | None,
    certificates: str | Path | None,
    training: str = "notAllowed",
    time_stamps: str | None = None,
    marks: bool = True,
) -> Signing | None:
    """Return how files are signed, by the options of a command; None without a key.

    marks: whether the files state that they are synthetic. Raises as `Signer` does, and C2paError if options contradict each other.
    """
    if key is None and certificates is None:
        if time_stamps is not None or training != "notAllowed":
            raise C2paError("--sign-training and --sign-tsa need --sign-key and --sign-cert")
        return None
    if key is None or certificates is None:
        raise C2paError("--sign-key and --sign-cert belong together: give both")
    if not marks:
        raise C2paError("--no-mark leaves out what --sign-key signs: give one of them")
    if training not in USES:
        raise C2paError(f"--sign-training {training}: use one of {', '.join(USES)}")
    for name, path in (("--sign-key", key), ("--sign-cert", certificates)):
        if not Path(path).expanduser().is_file():
            raise C2paError(f"{name}: the file {path} does not exist")
    return Signing(Signer(key, certificates, time_stamps), training=training)


def _read(path: str | Path) -> str:
    """Return the text of a PEM file. The message of an error has no part of its content."""
    try:
        return Path(path).expanduser().read_text("ascii")
    except UnicodeDecodeError:
        raise C2paError(
            f"{path} is not a PEM file: convert it with openssl, e.g. openssl x509 -in FILE -inform der"
        ) from None


def _leaf(chain: str, path: str | Path) -> Certificate:
    """Return the first certificate of a chain."""
    try:
        from cryptography.x509 import load_pem_x509_certificates

        return load_pem_x509_certificates(chain.encode())[0]
    except ImportError as error:
        raise C2paError(f"{MISSING} ({error.name} is missing)") from None
    except ValueError:
        raise C2paError(
            f"{path} holds no certificate that can be read: give a PEM file with BEGIN CERTIFICATE"
        ) from None


def _algorithm(key: str, leaf: Certificate, key_path: str | Path, chain_path: str | Path) -> str:
    """Return C2PA's name of the algorithm of a key. Raises C2paError if the key is of another kind or of another certificate."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        private = serialization.load_pem_private_key(key.encode(), None)
    except TypeError:
        raise C2paError(f"{key_path} has a password: write it without one (openssl pkey -in KEY -out NEW)") from None
    except Exception:  # cryptography raises several types for keys that it does not know
        raise C2paError(
            f"{key_path} holds no private key that can be read: give a PEM file with BEGIN PRIVATE KEY"
        ) from None
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        found = _CURVES[private.curve.name]
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        found = "ed25519"
    elif isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        found = "ps256"
    else:
        raise C2paError(f"{key_path}: C2PA cannot sign with this kind of key; use {_KEYS}")
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise C2paError(
            f"{key_path} does not match the first certificate of {chain_path}: give the key that it was made for"
        )
    return found


def _check_time(leaf: Certificate, path: str | Path) -> None:
    now, first, last = datetime.now(UTC), leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now > last:
        raise C2paError(f"{path}: the certificate expired on {last:%Y-%m-%d}: get a new one")
    if now < first:
        raise C2paError(
            f"{path}: the certificate is not valid before {first:%Y-%m-%d}: check the clock of this machine"
        )


def _fault(error: C2paError, leaf: Certificate) -> str:
    """Return what is wrong with a certificate that the library refused."""
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound

    try:
        usages = [usage.dotted_string for usage in leaf.extensions.get_extension_for_class(ExtendedKeyUsage).value]
    except ExtensionNotFound:
        usages = []
    if _MAIL not in usages:
        listed = ", ".join(usages) or "none"
        return f"its extended key usages are {listed}; get one with emailProtection, {_MAIL}"
    return str(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
