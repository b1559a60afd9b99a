"""Latents of clips, kept by the hash of the clip: the same clip is decoded and encoded once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Literal

import msgspec

from voxcpm.errors import AudioError
from voxcpm.server.process.link import EngineLink
from voxcpm.server.process.messages import Clip, Latents
from voxcpm.server.references.decode import TIME_LIMIT_S, decode_clip

Side = Literal["left", "right"]
"""Where a clip is padded to whole patches: a reference on the right, a prompt that is continued on the left."""

_DECODERS = 2


class ClipCache:
    """Decodes clips here, encodes them in the engine process, and keeps the latest latents: `most` of `most_bytes` in all."""

    def __init__(self, link: EngineLink, most: int = 1_024, most_bytes: int = 64_000_000) -> None:
        self._link = link
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[tuple[bytes, Side], Latents] = OrderedDict()
        self._bytes = 0
        self._running: dict[tuple[bytes, Side], asyncio.Task[Latents]] = {}
        self._decoders = asyncio.Semaphore(_DECODERS)

    async def latents(self, clip: bytes, side: Side) -> Latents:
        """Return the latents of a clip. Raises AudioError if it cannot be used, and ApiError if the engine cannot work."""
        key = (hashlib.sha256(clip).digest(), side)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._running:
            task = asyncio.create_task(self._make(key, clip))
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        # One request that is cancelled does not take the clip from the others that wait for it.
        return await asyncio.shield(self._running[key])

    def _ended(self, key: tuple[bytes, Side], done: asyncio.Task[Latents]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # Retrieved: all who waited may have been cancelled.

    async def _make(self, key: tuple[bytes, Side], clip: bytes) -> Latents:
        rate = self._link.about.encode_rate
        async with self._decoders:
            try:
                async with asyncio.timeout(2 * TIME_LIMIT_S):
                    samples = await asyncio.to_thread(decode_clip, clip, rate)
            except TimeoutError:
                raise AudioError("the reference takes too long to decode: send it as WAV or FLAC") from None
        latents = await self._link.encode(Clip(rate, samples.astype("<f4").tobytes()), key[1])
        latents = msgspec.structs.replace(latents, clip_sha256=key[0].hex())
        self._kept[key] = latents
        self._bytes += len(latents.data)
        while len(self._kept) > 1 and (len(self._kept) > self._most or self._bytes > self._most_bytes):
            self._bytes -= len(self._kept.popitem(last=False)[1].data)
        return latents
