"""Keys for signatures: ECDSA on the curves P-256, P-384 and P-521, which are those of the format. New keys are P-256."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from voxcpm.weights.atomic import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey as PrivateKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePublicKey as PublicKey,
    )
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

PASSWORD = "VOXMILL_KEY_PASSWORD"
"""Environment variable with the password of encrypted keys. A password on the command line would be seen by other users."""
_CURVES = {"secp256r1": 256, "secp384r1": 384, "secp521r1": 512}
"""Curves, and the bits of SHA-2 that signatures with each use."""
_MOST_BYTES = 100_000


class SignatureError(ValueError):
    """A key or a signature cannot be used, or does not hold; the message is one line."""


def make_key_pair(path: Path) -> Path:
    """Write a new private key (PEM, mode 0600) and beside it the public one; return the path of the public one.

    The private key is encrypted if the variable `PASSWORD` has a password. Raises SignatureError if a file is there already.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public_path = path.with_name(f"{path.stem}.pub{path.suffix or '.pem'}")
    for file in (path, public_path):
        if os.path.lexists(file):
            raise SignatureError(f"{file} exists: choose another name for the new key")
    if not path.parent.is_dir():
        raise SignatureError(f"{path.parent} is not a folder: make it, or choose another place for the new key")
    key, password = ec.generate_private_key(ec.SECP256R1()), _password()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )
    write_file(path, private, mode=0o600)
    write_file(public_path, public_pem(key.public_key()))
    return public_path


def load_private_key(path: Path) -> PrivateKey:
    """Return the key of a PEM file. Raises SignatureError for one that cannot be used."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data, password = _read(path), _password()
    if b"PUBLIC KEY-----" in data:
        raise SignatureError(f"{path} is a public key: sign with the private one")
    encrypted = b"ENCRYPTED" in data
    if encrypted and not password:
        raise SignatureError(f"{path} is encrypted: give its password in the environment variable {PASSWORD}")
    try:
        key = load_pem_private_key(data, password if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        fault = f"the password in {PASSWORD} does not open it" if encrypted else "it is not a private key in PEM"
        raise SignatureError(f"{path} cannot be used: {fault}") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _other_kind(path)
    return key


def load_public_key(path: Path) -> PublicKey:
    """Return the key of a PEM file. Raises SignatureError for one that cannot be used."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path)
    if b"PRIVATE KEY-----" in data:
        raise SignatureError(f"{path} is a private key: give the public one, and keep this one to yourself")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError(f"{path} cannot be used: it is not a public key in PEM") from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _other_kind(path)
    return key


def hash_of(key: PrivateKey | PublicKey) -> HashAlgorithm:
    """Return the hash that signatures with a key use, by its curve."""
    from cryptography.hazmat.primitives import hashes

    kinds: dict[int, HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
    return kinds[_CURVES[key.curve.name]]


def public_pem(key: PublicKey) -> bytes:
    """Return a public key as PEM."""
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(key: PublicKey) -> str:
    """Return the SHA-256 of a public key's PEM, in hex: how a signature names its key."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def others_can_read(path: Path) -> bool:
    """Return True if other users of this machine can read a private key's file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _password() -> bytes | None:
    return os.environ.get(PASSWORD, "").encode() or None


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise SignatureError(f"no key at {path}; make one with: voxmill sign --new-key FILE")
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _other_kind(path: Path) -> SignatureError:
    return SignatureError(
        f"{path} is not an ECDSA key on P-256, P-384 or P-521, and the format of model signatures has no other keys; "
        "make one with: voxmill sign --new-key FILE"
    )
