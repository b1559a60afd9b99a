"""Events of the Wyoming protocol: a line of JSON, then `data_length` bytes of JSON, then `payload_length` bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.speech.fields import read_json

MOST_LINE = 64 * 1024
"""Bytes of the line of an event."""
MOST_DATA = 256 * 1024
"""Bytes of the data after the line, and of the bytes after the data."""


@dataclass(frozen=True)
class Event:
    """One event. payload: audio; empty for all others."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def packed(self) -> bytes:
        """Return the event as it is sent."""
        data = msgspec.json.encode(self.data) if self.data else b""
        head = {"type": self.type, "data_length": len(data), "payload_length": len(self.payload)}
        line = msgspec.json.encode({name: value for name, value in head.items() if value})
        return b"".join((line, b"\n", data, self.payload))


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Return the next event without its payload, which no event for us needs; None at the end. Raises ApiError (400, 413).

    The reader's limit is MOST_LINE.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise _too_long("the line of an event", MOST_LINE) from None
    except asyncio.IncompleteReadError:
        return None
    head = _object(line)
    kind, data = head.get("type"), head.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise _not_an_event()
    length, payload = (_length(head, name) for name in ("data_length", "payload_length"))
    try:
        if length:
            data = data | _object(await reader.readexactly(length))
        if payload:
            await reader.readexactly(payload)
    except asyncio.IncompleteReadError:
        return None
    return Event(kind, data)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        return read_json(raw)
    except ApiError as error:
        # The words of bodies of requests do not fit here.
        raise (error if error.status == 413 else _not_an_event()) from None


def _length(head: dict[str, Any], name: str) -> int:
    value = head.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise invalid(f"{name} is not a number of bytes: send an integer from 0", name)
    if value > MOST_DATA:
        raise _too_long(name, MOST_DATA)
    return value


def _not_an_event() -> ApiError:
    return invalid('this is not an event: send a line of JSON such as {"type": "describe"}', code="not_an_event")


def _too_long(what: str, most: int) -> ApiError:
    return ApiError(413, f"{what} is longer than {most} bytes: send less", code="event_too_long")
