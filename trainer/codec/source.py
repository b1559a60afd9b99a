"""Clips of a corpus, read on request: all may be drawn, while a bounded number of bytes stays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from trainer.codec.clips import CodecClip
from trainer.data.corpora import Corpora, SegmentError
from trainer.data.damage import refuse_many_damaged
from trainer.data.latent_cache import Recent


class CorpusClips(Sequence[CodecClip]):
    """The clips of segments at their native rate, read on request. The cache affects only the time, not the result."""

    def __init__(self, corpora: Corpora, segments: Sequence[str], memory_bytes: float) -> None:
        """memory_bytes: maximum size of the decoded audio in memory."""
        self._corpora, self.segments = corpora, segments
        self._recent: Recent[CodecClip] = Recent(memory_bytes, lambda clip: clip.samples.nbytes)
        self.unreadable: dict[str, str] = {}
        """Segments that turned out to be damaged, with the reasons."""

    def __len__(self) -> int:
        return len(self.segments)

    @overload
    def __getitem__(self, index: int) -> CodecClip: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CodecClip]: ...
    def __getitem__(self, index: int | slice) -> CodecClip | Sequence[CodecClip]:
        """Return a clip. Raises SegmentError if it is damaged, and TrainError once more than 1 % (and more than 10) are."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        segment = self.segments[index]
        try:
            return self._recent.get(index, lambda: CodecClip(*self._corpora.native_clip(segment)))
        except SegmentError as error:
            self.unreadable[segment] = str(error)
            refuse_many_damaged(len(self.unreadable), len(self), str(error))
            raise

    @property
    def memory_bytes(self) -> int:
        """Size of the decoded audio that is in memory."""
        return int(self._recent.held)


def read_each(clips: CorpusClips, most: int) -> Iterator[CodecClip]:
    """Yield the first `most` clips one by one, without damaged ones."""
    for index in range(min(most, len(clips))):
        try:
            clip = clips[index]
        except SegmentError:
            continue
        yield clip
