"""Clips of requests, as the rest of the server asks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from voxcpm.errors import AudioError
from voxcpm.server.errors import invalid
from voxcpm.server.process.link import EngineLink
from voxcpm.server.process.messages import Latents
from voxcpm.server.references.cache import ClipCache, Side
from voxcpm.server.references.fetch import Fetcher
from voxcpm.server.references.sources import read_source
from voxcpm.server.settings import ServerSettings

Permit = Callable[[str | None, bytes, str], Awaitable[None]]


class ClipReader:
    """Reads clips under the rules of the settings (`--reference-hosts`, `--require-consent`)."""

    def __init__(self, settings: ServerSettings, link: EngineLink, permit: Permit | None = None) -> None:
        """permit: awaited for each clip with (consent id or None, bytes, field) before it is used; it raises ApiError."""
        self._permit = permit
        self.fetcher = Fetcher(frozenset(host.lower() for host in settings.reference_hosts))
        self.cache = ClipCache(link)

    async def read(self, source: str | bytes, param: str, side: Side = "right", consent: str | None = None) -> Latents:
        """Return the latents of a clip: a data: URL, an https address, or the bytes of an upload.

        side: "right" for a reference, "left" for a prompt that is continued. param: the field that is at fault in an error.
        consent: id of the speaker's consent, for a server that requires it. Raises ApiError.
        """
        try:
            clip = await read_source(source, self.fetcher)
            if self._permit is not None:
                await self._permit(consent, clip, param)
            return await self.cache.latents(clip, side)
        except AudioError as error:
            raise invalid(str(error), param, "invalid_audio") from None
