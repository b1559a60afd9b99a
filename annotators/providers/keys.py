"""Keys of services that show in no text, no pickle and no log."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from typing import NoReturn
from urllib.parse import quote

from annotators.providers.remote import FatalError

MOST_MESSAGE = 300
LEAST_KEY = 12
"""Characters of a key that is worth hiding in replies."""
_SHAPES = re.compile(r"AIza[\w-]{20,}|sk-[\w-]{16,}|(?i:bearer)\s+[^\s\"']{8,}")
"""How keys of services look: they are removed from messages even if they are not ours."""
_LOGGERS = (
    "httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.http2", "httpcore2.proxy", "httpcore2.socks",
    "google_genai", "google_genai._api_client", "google_genai.models",
)  # fmt: skip
"""Loggers of the client libraries. At DEBUG they print headers of replies, and a server may send a key back in these."""


class Key:
    """A secret. It shows in no text and no pickle; only `reveal` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Key(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled: give its environment variable to the other process")

    def __bool__(self) -> bool:
        return bool(self._value)

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value


def key_from(environment: Mapping[str, str], name: str) -> Key:
    """Return the key in an environment variable; an empty one if it is not set. Logs of the client libraries will not show it.

    Raises FatalError for a key that fits no header.
    """
    value = environment.get(name, "").strip()
    if not re.fullmatch(r"[!-~]*", value):
        raise FatalError(f"{name} holds spaces or signs that are not ASCII: set it to the key alone")
    if value:
        _LOG_FILTER.add(value)
    return Key(value)


def environment_key(name: str) -> Key:
    """Return the key in an environment variable of this process, see `key_from`."""
    return key_from(os.environ, name)


def without(text: str, *keys: Key) -> str:
    """Return text without these keys: a server that answers with what it was sent must not put them into a file.

    A word such as EMPTY, which servers of one's own take for a key, is none and stays: it may be part of an answer.
    """
    values = (key.reveal() for key in keys)
    return _masked(text, (value for value in values if len(value) >= LEAST_KEY), others=False)


def redacted(text: str, *keys: Key) -> str:
    """Return text as one short line without keys."""
    return " ".join(_masked(text, (key.reveal() for key in keys)).split())[:MOST_MESSAGE]


def _masked(text: str, values: Iterable[str], others: bool = True) -> str:
    for value in values:
        for form in {value, quote(value, safe=""), value.replace("/", "\\/")} - {""}:
            text = text.replace(form, "***")
    return _SHAPES.sub("***", text) if others else text


class _LogFilter(logging.Filter):
    """Mask keys in records of the client libraries."""

    def __init__(self) -> None:
        super().__init__()
        self._values: set[str] = set()

    def __repr__(self) -> str:
        return "LogFilter(***)"

    def add(self, value: str) -> None:
        """Mask this key from now on."""
        if not self._values:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(self)
        self._values.add(value)

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place; let all of them pass."""
        said = record.getMessage()
        masked = _masked(said, self._values)
        if masked != said:
            record.msg, record.args = masked, ()
        return True


_LOG_FILTER = _LogFilter()
