"""Check the files of a consent: read them, see whether they are marked, compare, and keep the record."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.voice.consent.clips import Clip
    from pipeline.voice.consent.record import Record
    from pipeline.voice.encoders import EncoderName

_MOST_BYTES = 200_000_000
_SUFFIX = re.compile(r"\.[a-z0-9]{1,9}")


def check_files(
    store: Path,
    statement: Path,
    references: Sequence[Path],
    challenge_id: str | None = None,
    encoder: str = "auto",
    keep_audio: bool = True,
) -> Record:
    """Check a statement against its challenge and references, and store the record; with its recording if it is accepted.

    Raises ValueError, AudioError and OSError if a file or the challenge cannot be read. Then nothing is stored.
    """
    from pipeline.voice.consent.check import ConsentChecker
    from pipeline.voice.consent.store import ConsentStore
    from voxcpm.server.references.decode import LONGEST_S

    folder = ConsentStore(store)
    challenge = folder.challenge(challenge_id) if challenge_id is not None else folder.only_open()
    said, clips = read_clip(statement), [read_clip(path, LONGEST_S) for path in references]
    checker = ConsentChecker(None if encoder == "auto" else cast("EncoderName", encoder))
    record = checker.check(challenge, said, clips)
    if record.accepted and not folder.claim(challenge.id, said.sha256):
        # Another recording was accepted while this one was checked.
        record = checker.check(folder.challenge(challenge.id), said, clips)
    recording = None
    if record.accepted and keep_audio:
        suffix = statement.suffix.lower()
        record = replace(record, audio=f"{record.id}{suffix if _SUFFIX.fullmatch(suffix) else '.audio'}")
        recording = statement.read_bytes()
    folder.add(record, recording)
    return record


def read_clip(path: Path, longest_s: float | None = None) -> Clip:
    """Return a file's digest, its first seconds at 16 kHz, and its marks.

    longest_s: at most 60, which is the default and for statements. References are checked to where cloning uses them.
    Raises FileNotFoundError, OSError and AudioError.
    """
    from pipeline.records import PCM_RATE
    from pipeline.voice.consent.clips import Clip
    from voxcpm.server.references.decode import READ_S, decode_samples, resampled

    if not path.is_file():
        raise FileNotFoundError(f"no audio file at {path}")
    data = path.read_bytes()
    samples, rate = decode_samples(data, str(path), longest_s or READ_S, _MOST_BYTES)
    return Clip(hashlib.sha256(data).hexdigest(), resampled(samples, rate, PCM_RATE), marks_of(path, samples, rate))


def marks_of(path: Path, samples: NDArray[np.float32], rate: int) -> tuple[str, ...]:
    """Return why a file is known to be synthetic: its own statement, and the watermark in its samples, float32 [S]."""
    from voxcpm.provenance.files import read_marks
    from voxcpm.watermark import detect

    stated = read_marks(path)
    marks = () if stated is None else (f"the file states that {stated.generator} made it",)
    marked = any(found.marked for found in detect(samples, rate))
    return (*marks, "it has the watermark of voxmill") if marked else marks


def check_models() -> None:
    """Raise WeightsMissing if a model that a check needs is not on this machine."""
    from catalogs.weights.registry import resolve
    from pipeline.voice.consent.check import RECOGNIZER
    from pipeline.voice.consent.voices import best_encoder

    for name in ("silero-vad", RECOGNIZER, best_encoder()):
        resolve(name)
