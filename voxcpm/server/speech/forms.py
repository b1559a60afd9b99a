"""Read forms and JSON bodies, within bounds."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.references.decode import MOST_BYTES
from voxcpm.server.speech.fields import read_json

MOST_TEXT = 4_096
"""Characters of a text field."""
_READ_HERE = 256 * 1024
"""Bytes up to which a JSON body is read in the event loop; a longer one is read by a thread."""
_FIELDS = 64
_MOST_PART = 4 * 100_000
"""Bytes of a field: a long text has 100,000 characters."""
FORM = "multipart/form-data"
AUDIO_TYPES = ("audio/", "video/webm", "video/mp4", "application/octet-stream")
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1")
"""What a form may name as its characters. Others can make halves of surrogate pairs, or take quadratic time."""


class _InMemory(MultiPartParser):
    """A parser that writes no part to the disk. The guard bounds the size of the body."""

    spool_max_size = sys.maxsize


@dataclass(frozen=True)
class Upload:
    """A file of a form."""

    data: bytes  #: at most one byte more than may be used
    kind: str  #: media type, in lower case


async def read_body(request: Request) -> dict[str, Any]:
    """Return the fields of a form or a JSON object: texts, numbers, and files as Upload. Raises ApiError."""
    kind = _media_type(request)
    if kind == FORM:
        return await _form(request)
    if kind == "application/json":
        return await json_of(request)
    raise ApiError(415, "send multipart/form-data, or application/json without a file", code="unsupported_media_type")


async def read_speech(request: Request) -> dict[str, Any]:
    """Return the fields of a speech request: JSON, or a form with the clip as the file `ref_audio`. Raises ApiError."""
    if _media_type(request) != FORM:
        return await json_of(request)
    fields = await _form(request)
    for name, value in fields.items():
        if isinstance(value, Upload):
            if name != "ref_audio":
                raise invalid(f"{name[:64]}: the only file of a speech request is ref_audio", name[:64])
            clip, kind = file_of(fields, name)
            fields[name] = (
                f"data:{kind if kind.startswith('audio/') else 'audio/x-clip'};base64,{b64encode(clip).decode()}"
            )
    return fields


async def json_of(request: Request) -> dict[str, Any]:
    """Return a JSON body; a long one does not hold up other requests. Raises ApiError as `read_json` does."""
    raw = await request.body()
    return read_json(raw) if len(raw) <= _READ_HERE else await asyncio.to_thread(read_json, raw)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _form(request: Request) -> dict[str, Any]:
    """Return the fields of a form. Nothing of it is on the disk, and its files are closed. Raises ApiError."""
    try:
        _, options = parse_options_header(request.headers["content-type"])
        if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
            raise invalid("the form has another charset than utf-8: send it in utf-8")
        async with aclosing(request.stream()) as stream:
            limits: dict[str, Any] = {"max_files": 1, "max_fields": _FIELDS, "max_part_size": _MOST_PART}
            form = await _InMemory(request.headers, stream, **limits).parse()
    except (MultiPartException, ValueError):
        raise invalid("the form cannot be read: send multipart/form-data with one file and short fields") from None
    try:
        return {name: await _upload(value) if isinstance(value, UploadFile) else value for name, value in form.items()}
    finally:
        await form.close()


async def _upload(file: UploadFile) -> Upload:
    kind = (file.content_type or "application/octet-stream").partition(";")[0].strip().lower()
    return Upload(await file.read(MOST_BYTES + 1), kind)


def text_of(fields: dict[str, Any], name: str, required: bool = False) -> str:
    """Return a text field without white space around it; "" if it is absent. Raises ApiError."""
    value = fields.get(name)
    if value is None or value == "":
        if required:
            raise invalid(f"the field {name} is missing", name, "missing_field")
        return ""
    if not isinstance(value, str):
        raise invalid(f"the field {name} must be a text", name)
    if len(value) > MOST_TEXT:
        raise invalid(f"the field {name} has {len(value)} characters: send at most {MOST_TEXT}", name)
    if required and not value.strip():
        raise invalid(f"the field {name} is empty", name, "missing_field")
    return value.strip()


def whole_number(fields: dict[str, Any], name: str) -> int | None:
    """Return a field that is a whole number of 0 to 2^63-1; None if it is absent. Raises ApiError."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    try:
        number = int(value) if not isinstance(value, bool | float) else -1
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < 2**63:
        raise invalid(f"the field {name} must be a whole number of at least 0", name)
    return number


def file_of(fields: dict[str, Any], name: str) -> tuple[bytes, str]:
    """Return (the bytes of an uploaded clip, its media type). Raises ApiError."""
    value = fields.get(name)
    if not isinstance(value, Upload):
        raise invalid(f"the file {name} is missing: send it in multipart/form-data", name, "missing_field")
    if not value.kind.startswith(AUDIO_TYPES):
        raise ApiError(
            415, f"{name} must have an audio type, such as audio/wav", param=name, code="unsupported_media_type"
        )
    if len(value.data) > MOST_BYTES:
        raise ApiError(413, f"{name} is larger than {MOST_BYTES // 1_000_000} MB", param=name, code="too_large")
    return value.data, value.kind
