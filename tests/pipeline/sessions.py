"""Sessions from real files and from arrays, as the stages get them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogs.weights import registry
from pipeline.audio.pcm_windows import WindowMaker
from pipeline.records import PCM_RATE, Recording, Session, Source
from pipeline.stage import Stage
from pipeline.stages import stage_class

FINGERPRINT = "0123456789abcdef"


def make_stage(stage_name: str, **settings: Any) -> Stage[Any]:
    """A loaded stage; skips where its weights are not on this machine."""
    kind = stage_class(stage_name)
    stage = kind(kind.config_type(**settings))
    for weights in stage.weights():
        if not registry.available(weights):
            pytest.skip(f"the weights {weights} are not here (voxmill models pull {weights})")
    stage.load()
    return stage


def source_of(path: Path, session: str = "s", language: str | None = None) -> Source:
    """A source as `find_sources` would give it, with an id from its name."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    size = path.stat().st_size if path.is_file() else 0
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Source(name, str(path), path.name, session, size, digest, language)


def session_of(*paths: Path, language: str | None = None) -> Session:
    """A session of files, before any stage."""
    return Session("s", FINGERPRINT, "/nowhere", [Recording(source_of(path, language=language)) for path in paths])


def session_of_samples(*clips: np.ndarray) -> Session:
    """A decoded session of float32 clips at 16 kHz, each a separate recording."""
    session = Session("s", FINGERPRINT, "/nowhere", [])
    for number, samples in enumerate(clips):
        source = source_of(Path(f"/nowhere/{number}.wav"))
        recording = Recording(source, len(samples) / PCM_RATE, PCM_RATE, 1, "wav/pcm_16")
        maker = WindowMaker(source.source_id)
        maker.add(samples.astype(np.float32))
        session.recordings.append(recording)
        session.windows += maker.finish()
    return session


@cache
def _detector() -> Stage[Any]:
    return make_stage("detect_speech")


def run_stages(session: Session, *names: str) -> Session:
    """The session after some stages with their default settings. The detector is loaded once: many tests need it."""
    for name in names:
        session = (_detector() if name == "detect_speech" else make_stage(name))(session)
    return session
