"""The mark of speech of one checkpoint: its payload, its keys, and where the pattern starts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from voxcpm.watermark.code import payload_of
from voxcpm.watermark.embed import SpeechMark
from voxcpm.watermark.keys import PUBLIC_KEY, Key, read_key

METHOD = "org.voxmill.watermark.1"
"""Name of the method in headers and manifests. It changes if older detectors cannot read a mark."""


def embedding_keys(key_file: str | Path | None = None, off: bool = False) -> tuple[Key, ...]:
    """Return the public key and, if there is a file, the private key in it; none if the watermark is off.

    Raises WatermarkKeyError, and ValueError for a key of a watermark that is off.
    """
    if off:
        if key_file is not None:
            raise ValueError("--no-watermark and --watermark-key exclude each other: leave one of them out")
        return ()
    return (PUBLIC_KEY,) if key_file is None else (PUBLIC_KEY, read_key(key_file))


def checkpoint_payload(checkpoint: str | None) -> int:
    """Return the payload for the digest of a checkpoint, 0 if it is not known."""
    return payload_of(checkpoint) if checkpoint else 0


def speech_mark(checkpoint: str | None, keys: Sequence[Key], *request: object) -> SpeechMark:
    """Return the mark of an utterance.

    checkpoint: its digest, None: not known. request: what the utterance was made from, e.g. the seed and the text. The phase of the
    pattern depends on it, so that the same request gives the same samples and other requests another phase.
    """
    phase = hashlib.sha256(repr(request).encode()).digest()[:8]
    return SpeechMark(checkpoint_payload(checkpoint), keys, int.from_bytes(phase, "big"))
