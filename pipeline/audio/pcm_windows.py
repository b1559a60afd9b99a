"""Make the 16 kHz windows that stages pass on, from chunks of any size."""

from __future__ import annotations

import numpy as np

from pipeline.records import PCM_RATE, WINDOW_S, PcmWindow


class WindowMaker:
    """Gathers 16 kHz float32 chunks into int16 windows of `WINDOW_S`."""

    def __init__(self, source_id: str, separated: bool = False) -> None:
        self._source_id = source_id
        self._separated = separated
        self._parts: list[np.ndarray] = []
        self._length = 0
        self._windows: list[PcmWindow] = []
        self._size = round(WINDOW_S * PCM_RATE)

    def add(self, chunk: np.ndarray) -> None:
        """Append float32 [S] in -1..1 at 16 kHz."""
        pcm = np.clip(np.rint(chunk * 32768.0), -32768, 32767).astype(np.int16)
        while len(pcm):
            room = self._size - self._length
            self._parts.append(pcm[:room])
            self._length += len(self._parts[-1])
            pcm = pcm[room:]
            if self._length == self._size:
                self._close()

    def finish(self) -> list[PcmWindow]:
        """Close the last window and return all windows in order."""
        if self._length:
            self._close()
        return self._windows

    def _close(self) -> None:
        start = len(self._windows) * WINDOW_S
        self._windows.append(PcmWindow(self._source_id, start, np.concatenate(self._parts), self._separated))
        self._parts, self._length = [], 0
