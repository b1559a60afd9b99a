"""Requests to stores (web servers, object stores): with time-outs, retries, and errors of known types.

A missing file raises FileNotFoundError. Any other failure of a store is a StoreError, which may be tried again. Files of
this machine keep their own errors.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from catalogs.urls import public, redacted
from pipeline.inputs.manifests import MissingLibraryError, SourceError
from pipeline.stage import StoreError

PAGES = ("http", "https")
"""Protocols without folders: only the links of a web page can be listed."""
_HERE = frozenset({"file", "local", "memory", "zip", "tar", "dir", "data"})
_EXTRAS = {"http": "pipeline", "https": "pipeline", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "pipeline"}
_THREADS = 16
_PAUSE_S = 0.25
"""Seconds before the second try; four times as long before each further one."""
_IN_A_ROW = 20
"""A listing ends after this many failures of one store in a row: the store is down, not the files."""
_BLOCK = 8 << 20
_AHEAD = 2 << 20
_GONE = (404, 410)
_TRY_AGAIN = (408, 425, 429)

Answer = TypeVar("Answer")
Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Stores:
    """Limits for every request to a store."""

    timeout_s: float = 60.0
    """Seconds to wait for a connection, and for the next bytes."""
    tries: int = 3
    """Total number of tries before a request counts as failed."""

    def locate(self, url: str) -> tuple[Any, str]:
        """Return (file system, path in it) of a URL. Raises the errors of the module docstring."""
        import fsspec

        inner, _, outer = url.partition("::")
        protocol, _, path = inner.partition("://")
        if protocol == "zip" and outer and not _is_here(outer):
            from fsspec.implementations.zip import ZipFileSystem

            file = StoreFile(self, *self.locate(outer), parts=True)
            try:
                # Whether a server sends only whole files shows at the first request for a part.
                file.seek(-1, io.SEEK_END)
                file.read(1)
                file.seek(0)
            except io.UnsupportedOperation:
                raise SourceError(
                    "the server does not send parts of files, which a zip needs: download it first"
                ) from None
            return ZipFileSystem(fo=io.BufferedReader(file, _AHEAD)), path.lstrip("/")
        options = {name: limits for name in _protocols(url) if (limits := self._options(name))}
        return self.ask(lambda: fsspec.core.url_to_fs(url, **options), remote=not _is_here(url))

    def ask(self, request: Callable[[], Answer], remote: bool = True) -> Answer:
        """Return the answer of a request, which is tried again if that may help. Raises the errors of the module docstring."""
        if not remote:
            return request()
        for number in range(self.tries):
            try:
                return request()
            except Exception as error:
                fault, again = self._fault(error)
                if not again or number == self.tries - 1:
                    raise fault from None
                time.sleep(_PAUSE_S * 4**number)
        raise AssertionError("no try was made")

    def info(self, system: Any, path: str) -> Mapping[str, Any]:
        """Return the size, type and version of a file."""
        return self.ask(lambda: system.info(path), is_remote(system))

    def open(self, system: Any, path: str, ahead: bool = True) -> Any:
        """Open a file of a store, to be read in order or, if the store supports it, from any position. `ahead`: a read may
        fetch more than requested, so that small reads in order need few requests."""
        if not is_remote(system):
            return system.open(path, "rb")
        file = StoreFile(self, system, path)
        return io.BufferedReader(file, _AHEAD) if ahead else file

    def look_at(self, items: Iterable[Asked], look: Callable[[Asked], Answer]) -> Iterator[Answer | Exception]:
        """Run `look` on each item, several at once, and yield answers and errors in order. Raises SourceError if the store
        is down."""
        failed = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            futures = [pool.submit(look, item) for item in items]
            try:
                for future in futures:
                    error = future.exception()
                    failed = failed + 1 if isinstance(error, StoreError) else 0
                    if failed == _IN_A_ROW:
                        raise SourceError(
                            f"the store does not answer: {failed} files in a row failed, the last with: "
                            f"{redacted(str(error))}; run the same command again when it does"
                        )
                    if error is not None and not isinstance(error, Exception):
                        raise error
                    yield error if error is not None else future.result()
            finally:
                for future in futures:
                    future.cancel()

    def _options(self, protocol: str) -> dict[str, Any]:
        if protocol in PAGES:
            import aiohttp

            limits = aiohttp.ClientTimeout(total=None, sock_connect=self.timeout_s, sock_read=self.timeout_s)
            return {"client_kwargs": {"timeout": limits}}
        if protocol in ("s3", "s3a"):
            return {"config_kwargs": {"connect_timeout": self.timeout_s, "read_timeout": self.timeout_s}}
        if protocol in ("gs", "gcs"):
            return {"requests_timeout": self.timeout_s}
        return {}

    def _fault(self, error: BaseException) -> tuple[OSError, bool]:
        """Return (the error to raise, whether another try may help)."""
        if isinstance(error, StoreError | io.UnsupportedOperation):
            return error, False
        seen, cause = [], error
        while cause is not None and cause not in seen:
            seen.append(cause)
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        for one in seen:
            # If an answer breaks off, aiohttp's `code` is not the server's status.
            status = getattr(
                one, "status", None if type(one).__module__.startswith("aiohttp") else getattr(one, "code", 0)
            )
            if isinstance(status, int) and status >= 400:
                if status in _GONE:
                    return FileNotFoundError(f"nothing is there (the server answered {status})"), False
                words = getattr(one, "message", "")
                return StoreError(
                    f"the server answered {status} {words}".strip()
                ), status >= 500 or status in _TRY_AGAIN
        if any(isinstance(one, TimeoutError) for one in seen):
            return StoreError(f"no answer within {self.timeout_s:g} s"), True
        if isinstance(error, FileNotFoundError) and len(seen) == 1:
            return FileNotFoundError("nothing is there"), False
        if type(error).__name__ == "ClientPayloadError":
            return StoreError("the answer broke off before its end"), True
        last = seen[-1] if isinstance(error, FileNotFoundError) else error
        words = redacted(" ".join(str(last).split())) or type(last).__name__
        return StoreError(words), not isinstance(error, PermissionError | ImportError)


DEFAULT = Stores()


class StoreFile(io.RawIOBase):
    """A file of a store. A failed read is tried again from the same position; only what is read is fetched.

    With `parts`, a server that sends only whole files raises io.UnsupportedOperation. Without it, the file is read in
    order.
    """

    def __init__(self, stores: Stores, system: Any, path: str, parts: bool = False) -> None:
        self._parts = parts
        self._stores, self._system, self._path = stores, system, path
        self._place = 0
        self._streamed = False
        self._file = stores.ask(self._opened)
        self.size: int | None = getattr(self._file, "size", None)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        """Return True if the store serves byte ranges."""
        return self.size is not None and not self._streamed and not type(self._file).__name__.startswith("HTTPStream")

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size or 0}[whence]
        if not self.seekable() and start + offset != self._place:
            raise io.UnsupportedOperation("the server does not send parts of files")
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer only at the end of the file. Raises the errors of the module docstring."""
        if self.size is not None:
            left = max(0, self.size - self._place)
            size = left if size < 0 else min(size, left)
        blocks: list[bytes] = []
        missing = size
        while size < 0 or missing > 0:
            wanted = _BLOCK if size < 0 else min(missing, _BLOCK)
            block = self._stores.ask(lambda wanted=wanted: self._read(wanted))  # type: ignore[misc]
            if not block:
                break
            blocks.append(block)
            self._place += len(block)
            missing -= len(block)
        if self.size is not None and missing > 0:
            raise StoreError(f"the store sent {self._place} of {self.size} bytes")
        return b"".join(blocks)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._opened()
            if self._file.tell() != self._place:
                self._forward()
            return bytes(self._file.read(size))
        except Exception as error:
            self._file, broken = None, self._file
            if broken is not None:
                broken.close()
            if isinstance(error, ValueError) and not self._streamed and "range requests" in str(error):
                # Only this error shows that the server sends only whole files.
                self._streamed = True
                if self._parts:
                    raise io.UnsupportedOperation("the server does not send parts of files") from None
                return self._read(size)
            raise

    def _forward(self) -> None:
        if self.seekable():
            self._file.seek(self._place)
            return
        while (there := self._file.tell()) < self._place:
            if not self._file.read(min(_BLOCK, self._place - there)):
                raise StoreError("the file has become shorter while it was read")

    def _opened(self) -> Any:
        options: dict[str, Any] = {"block_size": 0} if self._streamed else {"cache_type": "none"}
        return self._system.open(self._path, "rb", **options)


def store_error(error: BaseException | None) -> StoreError | None:
    """Return the store's failure behind an error, or None: `zipfile` reports such a failure as a damaged archive."""
    while error is not None and not isinstance(error, StoreError):
        error = error.__cause__ or error.__context__
    return error


def is_remote(system: Any) -> bool:
    """Return True if a file system is a store: its requests may time out and may be tried again."""
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return not set(protocols) & _HERE


def check_url(url: str) -> None:
    """Raise SourceError for a URL that this installation cannot open, whatever its store answers."""
    for protocol in _protocols(url):
        if words := _lacking(protocol):
            raise MissingLibraryError(f"{public(url)}: {words}")


@lru_cache
def _lacking(protocol: str) -> str:
    """Return what is missing to open URLs of a protocol; empty if nothing is."""
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        if extra := _EXTRAS.get(protocol):
            return f"{protocol}:// needs a library that is not installed: pip install 'voxmill[{extra}]'"
        return f"{protocol}:// needs a library that is not installed ({' '.join(str(error).split())})"
    except ValueError:
        known = "http, https, s3, gs, hf, file"
        return f"{protocol}:// is not a protocol that can be opened here (such are: {known}); correct the URL"
    return ""


def _protocols(url: str) -> list[str]:
    return [part.partition("://")[0] for part in url.split("::")]


def _is_here(url: str) -> bool:
    """Return True if the file or archive that a URL ends in is on this machine."""
    return _protocols(url)[-1] in _HERE or "://" not in url
