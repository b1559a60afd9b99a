"""Ogg Opus (RFC 7845): a page for each piece that arrives, so that nothing waits in a buffer."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

from voxcpm.provenance.ogg import FIRST, LAST, page_of
from voxcpm.provenance.vorbis import vorbis_comments
from voxcpm.server.writers.base import FramedCodec
from voxcpm.server.writers.blocks import Samples

CLOCK = 48_000
"""Positions of Opus count samples at this rate, whatever the rate of the input is."""
BIT_RATE = 64_000
_PER_PAGE = 40
"""Most packets on a page. A packet of Opus has at most 1,275 bytes, 6 of a page's 255 segments."""


class OpusWriter:
    """Opus packets of 20 ms. Players drop the encoder's delay at the start and the padding at the end."""

    def __init__(self, rate: int, tags: Mapping[str, str]) -> None:
        self._codec, self._rate, self._tags = FramedCodec("libopus", rate, "s16", BIT_RATE), rate, tags
        self._frame = CLOCK // 50
        # The streams of joined files need different numbers.
        self._serial = zlib.crc32(json.dumps(dict(tags)).encode())
        self._page, self._packets = 2, 0

    def head(self, whole: bool) -> bytes:
        """See `Writer`."""
        comments = b"OpusTags" + vorbis_comments(self._tags, "libopus")
        return page_of([self._codec.description], FIRST, 0, self._serial, 0) + page_of(
            [comments], 0, 0, self._serial, 1
        )

    def write(self, samples: Samples) -> bytes:
        """See `Writer`."""
        return self._pages(self._codec.push(samples))

    def finish(self) -> bytes:
        """See `Writer`."""
        packets = self._codec.finish()
        cut = max(len(packets) - 1, 0) // _PER_PAGE * _PER_PAGE
        delay = int.from_bytes(self._codec.description[10:12], "little")
        end = delay + round(self._codec.samples * CLOCK / self._rate)
        before = self._pages(packets[:cut])
        return before + page_of(packets[cut:], LAST, end, self._serial, self._page)

    def _pages(self, packets: list[bytes]) -> bytes:
        pages = b""
        for start in range(0, len(packets), _PER_PAGE):
            part = packets[start : start + _PER_PAGE]
            self._packets += len(part)
            pages += page_of(part, 0, self._packets * self._frame, self._serial, self._page)
            self._page += 1
        return pages
