"""A certificate authority and what it signs, made for tests: keys and certificates as PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

NEEDED = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("c2pa") is None,
    reason="c2pa-python is not installed: pip install 'voxmill[provenance]'",
)
"""For tests of signed manifests."""


@dataclass(frozen=True)
class Issued:
    """PEM files: a private key, its certificate with that of the root, and the root alone."""

    key: Path
    cert: Path
    root: Path


def issued(
    folder: Path, name: str = "leaf", *, usage: str | None = "1.3.6.1.5.5.7.3.4", days: int = 30, key: Any = None
) -> Issued:
    """Return a key with a certificate below a new root. usage: extended key usage; by default protection of mail. days: until it
    expires. key: a private key; otherwise P-256."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    def named(common: str, organization: str) -> x509.Name:
        pairs = ((NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, organization))
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])

    def usages(**on: bool) -> x509.KeyUsage:
        names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
        return x509.KeyUsage(**{one: on.get(one, False) for one in names})

    now = datetime.now(UTC)
    above, key = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
    authority = named("Root", "Test CA")

    def begun(subject: x509.Name, public: Any, number: int, last: datetime) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(authority).public_key(public)
        builder = builder.serial_number(number).not_valid_before(now - timedelta(days=400)).not_valid_after(last)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), False)

    root = begun(authority, above.public_key(), 1, now + timedelta(days=400))
    root = root.add_extension(x509.BasicConstraints(True, None), True)
    root = root.add_extension(usages(key_cert_sign=True, crl_sign=True), True)
    leaf = begun(named("Anna", "Studio"), key.public_key(), 2, now + timedelta(days=days))
    leaf = leaf.add_extension(x509.BasicConstraints(False, None), True)
    leaf = leaf.add_extension(usages(digital_signature=True), True)
    if usage is not None:
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)]), False)
    pems = [one.sign(above, hashes.SHA256()).public_bytes(Encoding.PEM) for one in (leaf, root)]
    found = Issued(*(folder / f"{name}.{end}" for end in ("key.pem", "cert.pem", "root.pem")))
    found.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    found.cert.write_bytes(b"".join(pems))
    found.root.write_bytes(pems[1])
    return found
