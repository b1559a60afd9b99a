"""faster-whisper's model with two additions: a shorter window for short clips, and clips decoded side by side.

Several clips are decoded by faster-whisper's own code, each in a thread, with the calls of the network gathered
(`pipeline.speech.call_batches`). The windows, word times, scores and rules are therefore those of clips decoded one by one.
`BatchedInferencePipeline` of faster-whisper is another decoder: it processes each clip once, in one window, and does not
return to what follows the last written time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

from pipeline.speech.call_batches import CallBatcher


class Model(WhisperModel):  # type: ignore[misc]
    """See the module docstring. `margin_frames`, per thread: how much of the padding after a clip the encoder computes
    (None: all)."""

    model: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._thread = threading.local()
        self._gathering = CallBatcher(self._compute)
        self._network = self.model
        self.model = _Network(self._network, self._gathering)

    @property
    def margin_frames(self) -> int | None:
        frames: int | None = getattr(self._thread, "margin_frames", None)
        return frames

    @margin_frames.setter
    def margin_frames(self, frames: int | None) -> None:
        self._thread.margin_frames = frames

    def together(self, jobs: Sequence[Callable[[], Any]]) -> None:
        """Run jobs that each use this model, so that it computes for all of them at once; raises the first of their errors."""
        self._gathering.run(jobs)

    def encode(self, features: np.ndarray) -> Any:
        """Encode float32 [mels, frames] to what the decoder attends to."""
        if self.margin_frames is not None:
            # Padding is exactly 0 in every band; a frame of audio, silent or not, never is.
            filled = np.flatnonzero(features.any(axis=tuple(range(features.ndim - 1))))
            length = (int(filled[-1]) + 1 if len(filled) else 0) + self.margin_frames
            # In steps of half a second: every new length costs the library some preparation.
            features = np.ascontiguousarray(features[..., : -(-length // 50) * 50])
        if self._gathering.in_job and features.ndim == 2:
            return self._gathering.call(("encode", features.shape), (features, None, {}))
        return super().encode(features)

    def _compute(self, key: Hashable, calls: list[Any]) -> Sequence[Any]:
        """Compute one batch of calls of the same kind, with the same options and shapes."""
        assert isinstance(key, tuple)
        inputs, arguments, options = [call[0] for call in calls], [call[1] for call in calls], calls[0][2]
        if key[0] == "encode":
            return _split(super().encode(np.stack(inputs)), len(inputs))
        encoded = _join(inputs)
        found: Sequence[Any]
        if key[0] == "generate":
            found = self._network.generate(encoded, arguments, **options)
        elif key[0] == "align":
            texts, frames = [text for text, _ in arguments], [frames for _, frames in arguments]
            found = self._network.align(encoded, list(key[1]), texts, frames, **options)
        else:
            found = self._network.detect_language(encoded)
        return found


class _Network:
    """CTranslate2's Whisper. Calls from jobs are gathered; everything else is passed on directly."""

    def __init__(self, network: Any, gathering: CallBatcher) -> None:
        self._network = network
        self._gathering = gathering

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def generate(self, encoded: Any, prompts: list[list[int]], **options: Any) -> list[Any]:
        """See CTranslate2."""
        if not self._gathering.in_job:
            return list(self._network.generate(encoded, prompts, **options))
        (prompt,) = prompts
        key = ("generate", tuple(encoded.shape), len(prompt), repr(sorted(options.items())))
        return [self._gathering.call(key, (encoded, prompt, options))]

    def align(self, encoded: Any, start: list[int], texts: list[list[int]], frames: int, **options: Any) -> list[Any]:
        """See CTranslate2."""
        if not self._gathering.in_job:
            return list(self._network.align(encoded, start, texts, frames, **options))
        (text,) = texts
        key = ("align", tuple(start), tuple(encoded.shape), repr(sorted(options.items())))
        return [self._gathering.call(key, (encoded, (text, frames), options))]

    def detect_language(self, encoded: Any) -> list[Any]:
        """See CTranslate2."""
        if not self._gathering.in_job:
            return list(self._network.detect_language(encoded))
        return [self._gathering.call(("detect_language", tuple(encoded.shape)), (encoded, None, {}))]


def _split(batch: Any, count: int) -> list[Any]:
    """Split [B, T, D] on the CPU or a GPU into B storages of [1, T, D]."""
    import ctranslate2

    array = _array(batch)
    rows = [array[i : i + 1] for i in range(count)]
    return [ctranslate2.StorageView.from_array(row) for row in rows]


def _join(rows: Sequence[Any]) -> Any:
    """Join storages of [1, T, D] into one of [B, T, D]."""
    import ctranslate2

    if len(rows) == 1:
        return rows[0]
    arrays = [_array(row) for row in rows]
    if isinstance(arrays[0], np.ndarray):
        return ctranslate2.StorageView.from_array(np.concatenate(arrays))
    import torch

    return ctranslate2.StorageView.from_array(torch.cat(arrays))


def _array(storage: Any) -> Any:
    """Return a storage as a NumPy array, or on a GPU as a torch tensor."""
    if storage.device == "cpu":
        return np.asarray(storage)
    import torch

    return torch.as_tensor(storage, device=f"cuda:{storage.device_index}")
