"""Keys: the public one, and private ones from files. A secret is never shown."""

from __future__ import annotations

import logging
import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

_SHORTEST = 16
"""Fewest bytes of a secret."""

_LONGEST = 65_536
"""Most bytes of a key file."""


class WatermarkKeyError(ValueError):
    """A key cannot be used: missing, unreadable, too short. The message has one line and never the secret."""


@dataclass(frozen=True)
class Key:
    """A key of the watermark. Whoever has the secret can read the mark, remove it and forge it."""

    name: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < _SHORTEST:
            raise WatermarkKeyError(f"watermark key {self.name} has {len(self.secret)} bytes. Use at least {_SHORTEST}")


PUBLIC_KEY = Key("public", b"voxmill public watermark key 1")
"""The key that every copy of this program has. Its marks can be read by anybody, so anybody can remove or forge them."""


def new_key(name: str = "private") -> Key:
    """Return a key with 32 random bytes."""
    return Key(name, secrets.token_bytes(32))


def read_key(path: str | Path) -> Key:
    """Read a key file: at least 32 hexadecimal digits, or any other content of at least 16 bytes.

    The name of the key is the file's stem. Logs a warning if other users can read the file.
    Raises WatermarkKeyError if the file is missing or cannot be used.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        mode = path.stat().st_mode
    except OSError as error:
        raise WatermarkKeyError(f"watermark key {path} cannot be read: {error.strerror}") from None
    if len(content) > _LONGEST:
        raise WatermarkKeyError(f"watermark key {path} is larger than {_LONGEST} bytes. Is it a key?")
    if mode & 0o077:
        log.warning("watermark key %s can be read by other users. Run: chmod 600 %s", path, path)
    return Key(path.stem, _secret(content))


def _secret(content: bytes) -> bytes:
    """Return the bytes that hexadecimal digits stand for, or the content itself."""
    digits = content.strip()
    if len(digits) >= 2 * _SHORTEST and len(digits) % 2 == 0 and not digits.strip(string.hexdigits.encode()):
        return bytes.fromhex(digits.decode())
    return content
