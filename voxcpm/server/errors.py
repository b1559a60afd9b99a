"""Errors that a client sees: OpenAI's shape, one clear message, and the HTTP status."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


class ApiError(Exception):
    """An answer other than success. The message is for the client: it never holds a path or an exception's text."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.retry_after_s, self.retry = retry_after_s, retry

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Return Retry-After (whole seconds), retry-after-ms and x-should-retry, as far as they are known."""
        found = {}
        if self.retry_after_s is not None:
            found["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.retry is not None:
            found["x-should-retry"] = "true" if self.retry else "false"
        return found


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error of a request that cannot be right: 400."""
    return ApiError(400, message, param=param, code=code)


def not_found(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error of a name that does not exist: 404."""
    return ApiError(404, message, param=param, code=code)


def busy(message: str, retry_after_s: float) -> ApiError:
    """Return the error of a server or a key at its limit: 429, to be tried again."""
    return ApiError(
        429, message, "rate_limit_error", code="rate_limit_exceeded", retry_after_s=retry_after_s, retry=True
    )


def unavailable(message: str, retry_after_s: float | None = 2.0) -> ApiError:
    """Return the error of a server that cannot speak now: 503."""
    retry = retry_after_s is not None
    return ApiError(503, message, "server_error", code="unavailable", retry_after_s=retry_after_s, retry=retry)


def cancelled() -> ApiError:
    """Return the error of a request that its client cancelled: 499."""
    return ApiError(499, "the request was cancelled", code="cancelled", retry=False)


class UnknownVoice(ApiError):  # noqa: N818 (the name of the case, as clients of Voices know it)
    """A voice that is not stored: 404 with the nearest names."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(404, unknown("voice", name, known), param="voice", code="voice_not_found")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not known: it names the nearest known one, and a few others."""
    names, name = sorted(set(known)), name[:64]
    near = difflib.get_close_matches(name.lower(), names, 1, 0.5)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = f"Known: {shown}." if names else f"No {what} exists."
    return f"unknown {what} {name!r}: {hint}{listed}"
