"""HTTP for annotators: one request with one outcome, and what a refusal means.

No exception of the client library leaves this module: those hold the request with its key. Ours are raised outside `except`, so
that not even `__context__` leads to them.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from annotators.providers.keys import Key, redacted
from annotators.providers.remote import FatalError, QuotaError, RefusedError, RemoteError, TransientError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

MOST_REPLY_BYTES = 32 << 20
"""A longer reply is not read to its end."""
MOST_PACKED_BYTES = 256 << 10
"""The same of a reply that was compressed although none was asked for."""
MOST_BYTES = "most_bytes"
"""Extension of a request that allows a reply of another size."""
CONNECT_S, WRITE_S = 10.0, 60.0
MOST_PAUSES = 4
"""A whole exchange may last as many times the longest pause of a reply."""


def new_client(timeout_s: float = 180.0, connections: int = 128) -> httpx2.AsyncClient:
    """Return a client that follows no redirect and never repeats a request. timeout_s: longest pause of a reply, in seconds.

    Raises FatalError if the library is not installed.
    """
    try:
        import httpx2
    except ImportError:
        raise FatalError("httpx2 is not installed: install voxmill with the extra `annotate`") from None

    times = httpx2.Timeout(connect=CONNECT_S, read=timeout_s, write=WRITE_S, pool=None)

    async def set_times(request: httpx2.Request) -> None:
        # google-genai sets one time for everything, connecting included.
        request.extensions = {**request.extensions, "timeout": times.as_dict()}

    async def limit_size(response: httpx2.Response) -> None:
        # google-genai reads all that comes.
        response.stream = _limited(response)

    return httpx2.AsyncClient(
        follow_redirects=False,
        verify=trusted(),
        timeout=times,
        # A small body that is unpacked to a huge one would pass the limit of bytes.
        headers={"accept-encoding": "identity"},
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        event_hooks={"request": [set_times], "response": [limit_size]},
    )


def _limited(response: httpx2.Response) -> httpx2.AsyncByteStream:
    """Return the stream of a reply, which breaks off after the bytes that the request allows (extension `most_bytes`)."""
    import httpx2

    inner: httpx2.AsyncByteStream = response.stream  # type: ignore[assignment]
    most = response.request.extensions.get(MOST_BYTES, MOST_REPLY_BYTES)
    if response.headers.get("content-encoding", "identity") != "identity":
        most = min(most, MOST_PACKED_BYTES)

    class Limited(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in inner:
                size += len(part)
                if size > most:
                    raise httpx2.ReadError(f"more than {most} bytes")
                yield part

        async def aclose(self) -> None:
            await inner.aclose()

    return Limited()


@cache
def trusted() -> ssl.SSLContext:
    """Return the certificates that are trusted. Reading them takes a tenth of a second."""
    import httpx2

    return httpx2.create_ssl_context()


@dataclass(frozen=True)
class HttpReply:
    """Status, headers (names in lower case) and body of a reply."""

    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> dict[str, Any] | None:
        """Return the body as a JSON object, or None if it is not one."""
        return json_object(self.body)


def json_object(text: str) -> dict[str, Any] | None:
    """Return a text as a JSON object, or None if it is not one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


async def ask(client: httpx2.AsyncClient, request: httpx2.Request, *keys: Key, most_s: float) -> HttpReply:
    """Send one request, once, and return its reply whatever the status. Raises TransientError or FatalError without a reply."""
    return (await fetch(client, request, *keys, most_s=most_s)).text()


@dataclass(frozen=True)
class BinaryReply:
    """A reply whose body may be anything. `first_s`: seconds from sending to more than `after` bytes of the body, see `fetch`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    first_s: float | None

    def text(self) -> HttpReply:
        """Return the reply with its body as text."""
        return HttpReply(self.status, self.headers, self.body.decode("utf-8", "replace"))


async def fetch(
    client: httpx2.AsyncClient, request: httpx2.Request, *keys: Key, most_s: float, after: int = 0
) -> BinaryReply:
    """Send one request, once, and return its reply as bytes, with the time of its first bytes after `after` (a file's header).

    Raises TransientError or FatalError without a whole reply.
    """
    return await safely(_fetched(client, request, after), request.url.host, *keys, most_s=most_s)


async def _fetched(client: httpx2.AsyncClient, request: httpx2.Request, after: int) -> BinaryReply:
    started = time.perf_counter()
    first: float | None = None
    response = await client.send(request, stream=True)
    try:
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if first is None and len(body) > after:
                first = time.perf_counter() - started
    finally:
        await response.aclose()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return BinaryReply(response.status_code, headers, bytes(body), first)


async def safely(call: Awaitable[T], host: str, *keys: Key, most_s: float) -> T:
    """Await a call of the client library for at most `most_s` seconds and turn its exceptions into ours."""
    import httpx2

    failed: RemoteError
    try:
        # A server that sends a byte now and then never exceeds the pause that the client allows.
        async with asyncio.timeout(most_s):
            return await call
    except TimeoutError:
        failed = TransientError(redacted(f"no complete reply from {host} in {most_s:g} s", *keys), sent=True)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, UnicodeError) as error:
        failed = _failure(error, host, keys)
    raise failed


def _failure(error: BaseException, host: str, keys: tuple[Key, ...]) -> RemoteError:
    import httpx2

    name = type(error).__name__
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError | UnicodeError):
        return FatalError(
            redacted(f"the request to {host} cannot be written ({name}): correct --base-url and the key", *keys)
        )
    unsent = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError
    if isinstance(error, unsent):
        # The text of an error of the system, e.g. "Name or service not known", does not hold the request.
        return TransientError(redacted(f"no connection to {host} ({name}: {error})", *keys), sent=False)
    return TransientError(f"no complete reply from {redacted(host, *keys)} ({name})", sent=True)


def check(reply: HttpReply, host: str, *keys: Key) -> None:
    """Return if the status is 200; otherwise raise the error that the reply stands for. Nothing of these is billed."""
    if reply.status != 200:
        raise refusal(reply, host, *keys)


def refusal(reply: HttpReply, host: str, *keys: Key) -> RemoteError:
    """Return the error that a reply with a status other than 200 stands for."""
    status = reply.status
    said = error_text(reply)
    text = redacted(f"{host} answered {status}: {said}" if said else f"{host} answered {status}", *keys)
    if 300 <= status < 400:
        target = urlsplit(reply.headers.get("location", "")).hostname or "another place"
        return FatalError(redacted(f"{host} answered {status}, a redirect to {target}: correct --base-url", *keys))
    if status == 429 or status == 402:
        if status == 402 or _quota_is_gone(reply):
            return QuotaError(text)
        return TransientError(text, sent=False, retry_after=retry_after(reply), status=status)
    if status == 408 or status >= 500 or status < 200:
        return TransientError(text, sent=False, retry_after=retry_after(reply), status=status)
    if status < 300:
        return TransientError(text, sent=True, status=status)
    if status in (400, 413, 422) and not _key_is_bad(reply):
        return RefusedError(text)
    return FatalError(text, status)


def error_text(reply: HttpReply) -> str:
    """Return what a reply says about its error. The forms of Google, OpenAI, older vLLM and FastAPI are known."""
    body = reply.json() or {}
    error = body.get("error")
    if isinstance(error, Mapping):
        parts = [error.get("status") or error.get("code"), error.get("message")]
        return ": ".join(str(part) for part in parts if part)
    for said in (error, body.get("message"), body.get("detail")):
        if said:
            return str(said)
    return "" if "<" in reply.body[:200] else reply.body[:200]


def _details(reply: HttpReply) -> list[Mapping[str, Any]]:
    error = (reply.json() or {}).get("error")
    details = error.get("details") if isinstance(error, Mapping) else None
    return [one for one in details if isinstance(one, Mapping)] if isinstance(details, list) else []


def _key_is_bad(reply: HttpReply) -> bool:
    """Return True for Google's status 400 of a bad key."""
    return any(str(detail.get("reason", "")).startswith("API_KEY_") for detail in _details(reply))


def _quota_is_gone(reply: HttpReply) -> bool:
    for detail in _details(reply):
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else []:
            if isinstance(violation, Mapping) and "PerDay" in str(violation.get("quotaId", "")):
                return True
    error = (reply.json() or {}).get("error")
    said = [error.get("code"), error.get("type")] if isinstance(error, Mapping) else []
    return "insufficient_quota" in said


def retry_after(reply: HttpReply, now: datetime | None = None) -> float | None:
    """Return the seconds that a service asks to wait, the longest of all its ways to say so, or None."""
    headers = reply.headers
    waits = [_seconds(headers.get("retry-after-ms"), 1e-3), _seconds(headers.get("retry-after"))]
    if waits[1] is None:
        waits.append(_until(headers.get("retry-after"), now or datetime.now(UTC)))
    for detail in _details(reply):
        delay = detail.get("retryDelay")
        if isinstance(delay, str):
            waits.append(_seconds(delay.removesuffix("s")))
    if reply.status == 429 and not any(wait is not None for wait in waits):
        # The longer of the two is an upper bound: the service does not say which limit was reached.
        waits += [_span(headers.get(f"x-ratelimit-reset-{what}")) for what in ("requests", "tokens")]
    return max((wait for wait in waits if wait is not None), default=None)


def _seconds(text: str | None, unit: float = 1.0) -> float | None:
    try:
        value = float(text or "") * unit
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(text: str | None, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (TypeError, ValueError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _span(text: str | None) -> float | None:
    """Return the seconds of a span such as `6m0s` or `120ms`."""
    if not text or not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        return None
    units = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(n) * units[unit] for n, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text))


def sse_events(text: str) -> list[str]:
    """Return the data of each server-sent event of a stream. An event that was cut off is not one."""
    events: list[str] = []
    data: list[str] = []
    # Only line feeds end lines here; other breaks of `splitlines` may be part of the data.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            events.append("\n".join(data))
            data = []
    return events


def host_of(url: str) -> str:
    """Return the host of a URL for messages, without a user's name or password."""
    return urlsplit(url).hostname or "the service"


def checked_url(url: str) -> str:
    """Return a base URL without the slash at its end. Raises ValueError for one that is not http or https."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
        fits = fits and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("the base URL is not of the form https://host/path: correct --base-url")
    return url.rstrip("/")


def is_private(url: str) -> bool:
    """Return True if the host of a URL is this machine or one of a private network."""
    host = host_of(url)
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return ip_address(host).is_private
    except ValueError:
        return False
