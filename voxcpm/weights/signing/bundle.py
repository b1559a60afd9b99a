"""A payload and its signature in one JSON file: a DSSE envelope in a Sigstore bundle, as model-signing 1.1 writes and reads it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from voxcpm.weights.signing.keys import SignatureError, hash_of, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey as PrivateKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePublicKey as PublicKey,
    )

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MOST_BYTES = 64_000_000
"""A larger file is not read: a signature has about 250 bytes per file of the model."""


def seal(payload: bytes, key: PrivateKey) -> bytes:
    """Return the bundle of a payload, signed with a key."""
    from cryptography.hazmat.primitives.asymmetric import ec

    signature = key.sign(_signed_bytes(payload), ec.ECDSA(hash_of(key)))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key_id(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode() + b"\n"


def is_bundle(data: bytes) -> bool:
    """Return True if data is a bundle, whoever signed it."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and str(found.get("mediaType", "")).startswith("application/vnd.dev.sigstore.bundle")


def unseal(data: bytes, key: PublicKey) -> bytes:
    """Return the payload of a bundle if its signature is of this key. Raises SignatureError, without the bundle's name."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    payload, signature, hint = _parts(data)
    if hint and hint != key_id(key):
        raise SignatureError(f"it was made with another key ({_shown(hint)}, not {_shown(key_id(key))})")
    try:
        key.verify(signature, _signed_bytes(payload), ec.ECDSA(hash_of(key)))
    except InvalidSignature:
        raise SignatureError("its signature is not of this key, or its content was changed") from None
    return payload


def _parts(data: bytes) -> tuple[bytes, bytes, str | None]:
    """Return payload, signature and the id of the key."""
    if not is_bundle(data):
        raise SignatureError("it is not a model signature (a Sigstore bundle in JSON)")
    found: dict[str, Any] = json.loads(data)
    if found["mediaType"] != MEDIA_TYPE:
        raise SignatureError(f"its format is {found['mediaType']}, and only {MEDIA_TYPE} is read")
    material = found.get("verificationMaterial")
    public_key = material.get("publicKey") if isinstance(material, dict) else None
    if not isinstance(public_key, dict):
        raise SignatureError(
            "it was not made with a key, but with a certificate; the package model-signing verifies it"
        )
    envelope = found.get("dsseEnvelope")
    if not isinstance(envelope, dict) or envelope.get("payloadType") != PAYLOAD_TYPE:
        raise SignatureError(f"it has no DSSE envelope with a payload of the type {PAYLOAD_TYPE}")
    try:
        (only,) = envelope["signatures"]
        parts = [base64.b64decode(text, validate=True) for text in (envelope["payload"], only["sig"])]
    except (ValueError, KeyError, TypeError):
        raise SignatureError("its envelope is damaged") from None
    hint = public_key.get("hint")
    return parts[0], parts[1], hint if isinstance(hint, str) else None


def _signed_bytes(payload: bytes) -> bytes:
    """Return what is signed: DSSE's encoding of a payload and its type (PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _shown(hint: str) -> str:
    return "".join(letter for letter in hint[:16] if letter.isalnum()) or "?"
