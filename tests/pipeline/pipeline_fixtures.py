"""What tests of the pipeline may share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def encoded_once() -> Iterator[None]:
    """Whisper's encoder computes each window once a process: it takes most of the time, and many tests hear the same clips.

    What is decoded from it is computed each time.
    """
    from faster_whisper import WhisperModel

    from pipeline.speech.whisper_model import Model

    honest_init, honest_encode = Model.__init__, WhisperModel.encode
    found: dict[tuple[str, tuple[int, ...], bytes], Any] = {}

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        honest_init(self, *arguments, **options)
        self.kind = repr((arguments, sorted(options.items())))

    def encode(self: Any, features: Any) -> Any:
        # Other tests of this process use faster-whisper's own class, or a model that was made before.
        if features.ndim != 2 or not hasattr(self, "kind"):
            return honest_encode(self, features)
        key = (self.kind, features.shape, hashlib.sha256(features.tobytes()).digest())
        if key not in found:
            found[key] = honest_encode(self, features)
        return found[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Model, "__init__", init)
        patched.setattr(WhisperModel, "encode", encode)
        yield
