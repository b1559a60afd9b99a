"""Latents of clips, kept by the hash of the clip: the same clip is decoded and encoded once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxcpm.errors import AudioError
from voxcpm.server.references.decode import TIME_LIMIT_S, decode_clip

Latents = NDArray[np.float32]
Side = Literal["left", "right"]
"""Where a clip is padded to whole patches: a reference on the right, a prompt that is continued on the left."""
Encode = Callable[[NDArray[np.float32], Side], Awaitable[Latents]]
"""Mono samples [S] float32 at the codec's input rate to latents [N, P, D] float32."""

_DECODERS = 2


class ClipCache:
    """Decodes and encodes clips, and keeps the latest latents.

    encode: the engine's codec. sample_rate: its input rate, Hz. most: entries. most_bytes: of latents.
    """

    def __init__(self, encode: Encode, sample_rate: int, most: int = 1_024, most_bytes: int = 64_000_000) -> None:
        self._encode, self._rate = encode, sample_rate
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[tuple[bytes, Side], Latents] = OrderedDict()
        self._bytes = 0
        self._running: dict[tuple[bytes, Side], asyncio.Task[Latents]] = {}
        self._decoders = asyncio.Semaphore(_DECODERS)

    async def latents(self, clip: bytes, side: Side) -> Latents:
        """Return the latents [N, P, D] of a clip. Raises AudioError if it cannot be used."""
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
        async with self._decoders:
            try:
                async with asyncio.timeout(2 * TIME_LIMIT_S):
                    samples = await asyncio.to_thread(decode_clip, clip, self._rate)
            except TimeoutError:
                raise AudioError("the reference takes too long to decode: send it as WAV or FLAC") from None
        latents = await self._encode(samples, key[1])
        self._kept[key] = latents
        self._bytes += latents.nbytes
        while len(self._kept) > 1 and (len(self._kept) > self._most or self._bytes > self._most_bytes):
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return latents
