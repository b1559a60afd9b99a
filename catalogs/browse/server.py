"""`browse`: serve the page of a corpus on this machine until it is stopped."""

from __future__ import annotations

import getpass
import ipaddress
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catalogs.browse.guard import LOOPBACK


@dataclass(frozen=True)
class Served:
    """A server that is ready. url: its address with the token."""

    url: str
    stop: Callable[[], None]


def browse(
    corpus: str | Path,
    port: int = 0,
    by: str | None = None,
    host: str = "127.0.0.1",
    allow_remote: bool = False,
    open_: bool = False,
    ready: Callable[[Served], None] | None = None,
) -> None:
    """Serve a page to search, hear, compare and mark the segments of a corpus, until Ctrl-C or `Served.stop`.

    port: 0 takes a free one. by: who marks (default: the login name). host: the address to listen at; one that other machines can
    reach needs `allow_remote`: whoever has the token may then hear everything and mark, and it is sent unencrypted. open_: open a
    browser. ready: called once the page can be opened. Raises ValueError for a wrong name or address, CorpusError if the folder
    is not a corpus, OSError if the port is taken.
    """
    import uvicorn

    from catalogs.browse.app import make_app
    from catalogs.browse.catalog import Catalog
    from catalogs.browse.guard import Guard
    from catalogs.browse.marking import Marking

    if not is_loopback(host) and not allow_remote:
        raise ValueError(
            f"{host} can be reached from other machines; add --allow-remote if that is meant, or use ssh -L to reach this one"
        )
    root = Path(corpus).resolve()
    marking = Marking(root, by or getpass.getuser())
    catalog = Catalog(root)
    token = secrets.token_urlsafe(24)
    listening = _listen(host, port)
    number = listening.getsockname()[1]
    names = () if is_loopback(host) else (host,)
    guard = Guard(make_app(root, catalog, marking), token, None if _is_wildcard(host) else names)
    shown = "127.0.0.1" if _is_wildcard(host) else host
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/?token={token}"
    settings = uvicorn.Config(
        guard, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if ready is not None:
                ready(Served(url, self.stop))
            if open_:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        def stop(self) -> None:
            self.should_exit = True

    server = Server(settings)
    try:
        server.run(sockets=[listening])
    finally:
        catalog.close()
        listening.close()


def is_loopback(host: str) -> bool:
    """Return True for an address that only this machine can reach."""
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise OSError(error.errno, f"{error.strerror}; choose another with --port", f"{host}:{port}") from None
    return found
