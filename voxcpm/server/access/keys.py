"""API keys: a file with one key a line, quotas for each, and what is used of them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import shlex
import time
from collections import deque
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from voxcpm.server.errors import ApiError, busy
from voxcpm.server.settings import NAME
from voxcpm.weights.atomic import write_file

log = logging.getLogger("voxcpm.server")

MINUTE_S, DAY_S = 60.0, 86_400.0
KEY_PREFIX = "vx-"
"""Keys start with it, so that scanners for secrets find them."""
REVOKED = "key_revoked"
"""Code of the error about a key that is not in the file any more."""


@dataclass(frozen=True)
class Key:
    """One line of the keys file. 0 means no limit, but for `queued`, where it means that none may wait."""

    name: str
    sha256: str
    running: int = 4  #: calls at once
    queued: int = 20  #: calls that wait for one of these to end
    characters: int = 0  #: of text per minute
    audio: int = 0  #: seconds of audio per day
    admin: bool = False  #: may read metrics and consents, change voices, and see and cancel all requests

    @property
    def sessions(self) -> int | None:
        """Most WebSocket sessions at once: as many as may run and wait. None: no limit."""
        return self.running + self.queued if self.running else None


LIMITS = tuple(f.name for f in fields(Key) if f.name not in ("name", "sha256", "admin"))


def digest(secret: str) -> str:
    """Return the sha256 of a key, hexadecimal. A key has 256 random bits, so that no salt is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def make_key(name: str, admin: bool = False, **limits: int | None) -> tuple[str, str]:
    """Return (a new key, its line for the keys file). limits: fields of Key. Raises ValueError for a bad name or limit."""
    if not NAME.fullmatch(name):
        raise ValueError(f"key name {name!r}: use letters a-z, digits, '.', '_' and '-', at most 64")
    given = {limit: value for limit, value in limits.items() if value is not None}
    for limit, value in given.items():
        if value < 0:
            raise ValueError(
                f"{limit} {value} must be at least 0 (0: {'none may wait' if limit == 'queued' else 'no limit'})"
            )
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    words = [
        name,
        digest(secret),
        *(f"{limit}={value}" for limit, value in given.items()),
        *(["admin"] if admin else []),
    ]
    return secret, " ".join(words)


def add_line(path: Path, line: str) -> None:
    """Add a line to a keys file, which only its owner can read. Raises ValueError if it would not be a keys file then."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    text = before + ("" if before.endswith("\n") or not before else "\n") + line + "\n"
    parse_keys(text, str(path))
    write_file(path, text.encode(), 0o600)


def parse_keys(text: str, where: str, may_be_empty: bool = False) -> dict[str, Key]:
    """Read a keys file -> keys by sha256. Raises ValueError with the file's name and the line's number.

    may_be_empty: a file without a key is not an error.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        key = _parse_line(words, f"{where}, line {number}")
        if key.sha256 in keys or any(other.name == key.name for other in keys.values()):
            raise ValueError(f"{where}, line {number}: {key.name} is there twice: remove one of the lines")
        keys[key.sha256] = key
    if not keys and not may_be_empty:
        raise ValueError(f"{where} holds no key: make a line with voxmill serve-key NAME")
    return keys


def _parse_line(words: list[str], where: str) -> Key:
    if len(words) < 2 or not NAME.fullmatch(words[0]):
        raise ValueError(f"{where}: expected 'name sha256 limits', as voxmill serve-key prints it")
    if len(words[1]) != 64 or set(words[1].lower()) - set("0123456789abcdef"):
        raise ValueError(f"{where}: the second word is not a sha256 (64 hexadecimal digits)")
    limits: dict[str, int] = {}
    admin = False
    for word in words[2:]:
        name, equals, value = word.partition("=")
        if word == "admin":
            admin = True
        elif equals and name in LIMITS and value.isdigit():
            limits[name] = int(value)
        else:
            raise ValueError(
                f"{where}: {word!r} is not a limit: use {', '.join(f'{n}=NUMBER' for n in LIMITS)} or admin"
            )
    return Key(words[0], words[1].lower(), admin=admin, **limits)


@dataclass
class _Use:
    """What a key has used."""

    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    characters: deque[tuple[float, int]] = field(default_factory=deque)  #: (time, characters) of the last minute
    audio: deque[tuple[float, float]] = field(default_factory=deque)  #: (time, seconds) of the last day


class Ticket:
    """Leave to run one call; close it when the call has ended."""

    def __init__(self, keys: Keys | None = None, key: Key | None = None, text: tuple[float, int] = (0.0, 0)) -> None:
        """text: the entry of the call's characters."""
        self._keys, self._key, self._text = keys, key, text

    def close(self, audio_s: float, refused: bool = False) -> None:
        """Count the audio, and let the next waiting call of the key run. refused: the text does not count."""
        if self._keys is not None and self._key is not None:
            self._keys.release(self._key, audio_s, self._text if refused else None)
        self._keys = None


class Keys:
    """The keys of a file, read again when it changes, and their use. Without a file everyone may use the server."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the file. Raises FileNotFoundError and ValueError."""
        self.path = path
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int] | None = None
        self._uses: dict[str, _Use] = {}
        if path is not None:
            if not path.is_file():
                raise FileNotFoundError(
                    f"no keys file at {path}: make one with voxmill serve-key NAME --keys {shlex.quote(str(path))}"
                )
            self._keys, self._stamp = parse_keys(path.read_text(encoding="utf-8"), str(path)), _stamp(path)

    def find(self, secret: str | None) -> Key | None:
        """Return the key of a secret; None without a keys file. Raises ApiError (401) if it is missing or unknown."""
        if self.path is None:
            return None
        self._reload()
        if not secret:
            raise ApiError(401, "this server asks for a key: send 'Authorization: Bearer KEY'", code="missing_api_key")
        wanted, found = digest(secret), None
        for known, key in self._keys.items():
            # Every key is compared, in constant time, so that the time says nothing about the keys.
            if hmac.compare_digest(known, wanted):
                found = key
        if found is None:
            raise ApiError(401, "the key is not known to this server", code="invalid_api_key")
        return found

    def current(self, key: Key | None) -> Key | None:
        """Return a key that was found before with its present limits. Raises ApiError (401) if it was revoked since."""
        if key is None or self.path is None:
            return key
        self._reload()
        now = self._keys.get(key.sha256)
        if now is None or now.name != key.name:
            raise ApiError(401, f"key {key.name} was revoked", code=REVOKED, retry=False)
        return now

    def _reload(self) -> None:
        """Read a file that has changed. An empty one revokes all keys; one that cannot be read or is wrong revokes none."""
        assert self.path is not None
        try:
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return
            text = self.path.read_text(encoding="utf-8")
            self._stamp = stamp
            self._keys = parse_keys(text, str(self.path), may_be_empty=True)
            if not self._keys:
                log.warning("the keys file holds no key any more: all keys are revoked")
        except (OSError, ValueError) as error:
            log.error("the keys file could not be read again, the earlier keys stay: %s", error)

    def check(self, key: Key | None, characters: int) -> None:
        """Raise ApiError: 429 if a quota of the key is used up, or its queue is full, 401 if it was revoked."""
        key = self.current(key)
        if key is None:
            return
        use = self._uses.setdefault(key.name, _Use())
        self._check_characters(key, use, characters)
        self._check_audio(key, use)
        if self._must_wait(key, use) and len(use.waiting) >= key.queued:
            raise busy(f"key {key.name} has {use.running} requests running and {len(use.waiting)} waiting", 2.0)

    async def admit(self, key: Key | None, characters: int) -> Ticket:
        """Wait until one of the key's calls may run. Raises ApiError: 429 if a quota is used up, 401 if the key was revoked.

        The characters count from now on, also while the call waits. The audio of the calls before it is known at its turn only.
        """
        if key is None:
            return Ticket()
        self.check(key, characters)
        use = self._uses[key.name]
        text = (time.monotonic(), characters)
        use.characters.append(text)
        if not self._must_wait(key, use):
            use.running += 1
            return Ticket(self, key, text)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        use.waiting.append(turn)
        try:
            await turn
            self._check_audio(self.current(key) or key, use)
        except BaseException:
            if turn.done() and not turn.cancelled():
                # The turn came, but the client has just gone or may not use it: the place goes to the next one.
                self.release(key, 0.0, text)
            else:
                _remove(use.waiting, turn)
                _remove(use.characters, text)
            raise
        return Ticket(self, key, text)

    @staticmethod
    def _must_wait(key: Key, use: _Use) -> bool:
        return bool(key.running) and use.running >= key.running

    def _check_characters(self, key: Key, use: _Use, characters: int) -> None:
        now = time.monotonic()
        _forget(use.characters, now - MINUTE_S)
        if key.characters and characters > key.characters:
            raise ApiError(429, f"the text has {characters} characters; key {key.name} may send {key.characters} per minute",
                           "rate_limit_error", code="rate_limit_exceeded", retry=False)  # fmt: skip
        if key.characters and sum(n for _, n in use.characters) + characters > key.characters:
            wait = use.characters[0][0] + MINUTE_S - now
            raise busy(f"key {key.name} may send {key.characters} characters per minute", wait)

    def _check_audio(self, key: Key, use: _Use) -> None:
        now = time.monotonic()
        _forget(use.audio, now - DAY_S)
        if key.audio and sum(s for _, s in use.audio) >= key.audio:
            wait = use.audio[0][0] + DAY_S - now
            raise ApiError(429, f"key {key.name} may make {key.audio} seconds of audio per day", "rate_limit_error",
                           code="rate_limit_exceeded", retry_after_s=wait, retry=False)  # fmt: skip

    def release(self, key: Key, audio_s: float, text: tuple[float, int] | None = None) -> None:
        """Count a call's audio and pass its place on. text: characters that do not count."""
        use = self._uses[key.name]
        if text is not None:
            _remove(use.characters, text)
        if audio_s and key.audio:
            use.audio.append((time.monotonic(), audio_s))
        while use.waiting:
            turn = use.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        use.running -= 1


def _stamp(path: Path) -> tuple[int, int]:
    about = os.stat(path)  # noqa: PTH116 (one call for both numbers)
    return about.st_mtime_ns, about.st_size


def _remove(uses: deque[Any], one: object) -> None:
    if one in uses:
        uses.remove(one)


def _forget(uses: deque[tuple[float, int]] | deque[tuple[float, float]], before: float) -> None:
    while uses and uses[0][0] < before:
        uses.popleft()
