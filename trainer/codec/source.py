"""Clips of a corpus as they are asked for: all of them may be drawn, a bounded number of bytes stays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from trainer.codec.clips import CodecClip
from trainer.data.corpora import Corpora, SegmentError
from trainer.data.damage import refuse_many_damaged
from trainer.data.latent_cache import Recent


class CorpusClips(Sequence[CodecClip]):
    """The clips of segments at their native rate, read when they are asked for. Whether one was in memory changes nothing but
    the time it takes."""

    def __init__(self, corpora: Corpora, segments: Sequence[str], memory_bytes: float) -> None:
        """memory_bytes: of decoded audio, at most."""
        self._corpora, self._segments = corpora, segments
        self._recent: Recent[CodecClip] = Recent(memory_bytes, lambda clip: clip.samples.nbytes)
        self.unreadable: dict[str, str] = {}
        """Segments that turned out to be damaged, and why."""

    def __len__(self) -> int:
        return len(self._segments)

    @overload
    def __getitem__(self, index: int) -> CodecClip: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CodecClip]: ...
    def __getitem__(self, index: int | slice) -> CodecClip | Sequence[CodecClip]:
        """A clip; SegmentError for one that is damaged, TrainError once these are more than 1 % (and more than a few)."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        segment = self._segments[index]
        try:
            return self._recent.get(index, lambda: CodecClip(*self._corpora.native_clip(segment)))
        except SegmentError as error:
            self.unreadable[segment] = str(error)
            refuse_many_damaged(len(self.unreadable), len(self), str(error))
            raise

    @property
    def memory_bytes(self) -> int:
        """Of decoded audio that is held."""
        return int(self._recent.held)


def read_each(clips: CorpusClips, most: int) -> Iterator[CodecClip]:
    """The first `most` clips one by one, without those that are damaged."""
    for index in range(min(most, len(clips))):
        try:
            clip = clips[index]
        except SegmentError:
            continue
        yield clip
