"""Likeness of voices: the cosine of voiceprints of a take, its reference, other references and the person's own recording.

The cosine to the reference clip as it was given is what papers call SIM-o. Scales of encoders never mix: the encoder is part of
the metric's name. Voiceprints are stored, so that comparisons with others are made without audio.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from evaluation.metrics.base import Need, Plain, Take, Value, read_clip

if TYPE_CHECKING:
    from pipeline.voice.encoders import EncoderName, SpeakerEncoder

RATE = 16_000
_PRINT = pa.list_(pa.float32())
_CLIPS = 16
"""Clips that are in memory at once."""


def voiceprint(partials: np.ndarray) -> np.ndarray:
    """Return the mean of the voiceprints of windows, float32 [N, D], at unit length: float32 [D]."""
    mean = partials.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)


def similarity_matrix(prints: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Return the cosine of each of N unit voiceprints with each of M others: float64 [N, M]."""
    matrix: np.ndarray = np.asarray(prints, np.float64) @ np.asarray(others, np.float64).T
    return matrix


class _Voice(Plain):
    """Cosine of a take's voiceprint to that of a clip of its item."""

    version = 1
    encoder: EncoderName
    schema = pa.schema(
        [pa.field("cosine", pa.float64()), pa.field("voiceprint", _PRINT), pa.field("clip_voiceprint", _PRINT)]
    )

    def __init__(self) -> None:
        self.weights = (self.encoder,)
        self._net: SpeakerEncoder | None = None
        self._clips: dict[Path, np.ndarray] = {}

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"encoder": self.encoder, "voiceprint": "mean of windows"}

    def load(self) -> None:
        """Load the encoder. Raises WeightsMissing."""
        from pipeline.voice.encoders import load_encoder

        self._net = load_encoder(self.encoder, "auto")
        self._clips = {}

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. Raises EvaluationError for a clip that cannot be decoded."""
        paths = [self._clip(take) for take in takes]
        own = self._prints([take.audio(RATE) for take in takes])
        clips = self.clips(paths)
        return [
            {
                "cosine": float(similarity_matrix([mine], [clips[path]])[0, 0]),
                "voiceprint": mine.tolist(),
                "clip_voiceprint": clips[path].tolist(),
            }
            for mine, path in zip(own, paths, strict=True)
        ]

    def clips(self, paths: Collection[Path]) -> dict[Path, np.ndarray]:
        """Return the voiceprints of clips, float32 [D], by path. Each is read once; the encoder is loaded when it is needed.

        Raises EvaluationError for a clip that cannot be decoded, and WeightsMissing.
        """
        missing = sorted({path for path in paths if path not in self._clips})
        if missing and self._net is None:
            self.load()
        for start in range(0, len(missing), _CLIPS):
            some = missing[start : start + _CLIPS]
            self._clips.update(zip(some, self._prints([read_clip(path, RATE) for path in some]), strict=True))
        return {path: self._clips[path] for path in paths}

    def _clip(self, take: Take) -> Path:
        assert take.item.reference is not None
        return take.item.reference

    def _prints(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert self._net is not None
        return [voiceprint(partials) for partials in self._net.partials(clips)] if clips else []


def _likeness(title: str) -> tuple[Value, ...]:
    return (Value("cosine", title, "cosine", "higher", digits=3, smallest=0.01),)


class VoiceGe2e(_Voice):
    """Likeness to the reference clip by GE2E."""

    name = "voice_ge2e"
    encoder: EncoderName = "ge2e"
    needs: frozenset[Need] = frozenset({"audio", "reference"})
    values = _likeness("SIM-o, GE2E")


class VoiceEcapa(VoiceGe2e):
    """Likeness to the reference clip by ECAPA-TDNN."""

    name = "voice_ecapa"
    encoder = "ecapa"
    values = _likeness("SIM-o, ECAPA")


class VoiceHuman(_Voice):
    """Likeness by GE2E to a recording of the same text by the person."""

    name = "voice_human"
    encoder: EncoderName = "ge2e"
    needs: frozenset[Need] = frozenset({"audio", "human"})
    values = _likeness("likeness to the recording, GE2E")

    def _clip(self, take: Take) -> Path:
        assert take.item.human is not None
        return take.item.human


class VoiceMargin(Plain):
    """Likeness to the own reference above that to the references of the other speakers of the list, by GE2E.

    `others` is the mean over speakers, `nearest_speaker` the one whose voice the take is most like: its own or another. All takes
    of a list are compared at once, and again when the list has grown. The other voices are those of all items of the list, also
    of those whose takes failed: otherwise two systems would be compared with different voices.
    """

    name = "voice_margin"
    version = 3
    needs: frozenset[Need] = frozenset({"audio", "reference"})
    uses: tuple[str, ...] = ("voice_ge2e",)
    schema = pa.schema(
        [
            *(pa.field(name, pa.float64()) for name in ("own", "others", "margin")),
            pa.field("other_speakers", pa.int32()),
            pa.field("nearest", pa.int8()),
            pa.field("nearest_speaker", pa.string()),
        ]
    )
    values = (
        Value("margin", "own above other voices, GE2E", "cosine", "higher", digits=3, smallest=0.01, relative=True),
        Value("nearest", "own voice is the nearest, GE2E", "%", "higher", None, None, 100.0, 1, relative=True),
    )

    def __init__(self) -> None:
        self._clips = VoiceGe2e()

    def group(self, take: Take) -> str | None:
        """The takes of a list are one group."""
        return take.item.list_name

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None if the list has no other speaker. Raises EvaluationError for a clip that cannot be decoded, and
        WeightsMissing if a clip has no voiceprint yet and the encoder is not here."""
        # Older versions wrote a row without a voiceprint for audio that could not be read.
        heard = [take for take in takes if take.given["voice_ge2e"]["cosine"] is not None]
        answers = dict(zip(map(id, heard), self._score(heard), strict=True)) if heard else {}
        return [answers.get(id(take)) for take in takes]

    def _score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        name = takes[0].item.list_name
        items = [*(take.item for take in takes), *(item for item in takes[0].items if item.list_name == name)]
        clips = sorted({(item.reference, item.speaker) for item in items if item.reference})
        speakers = sorted({speaker for _, speaker in clips})
        if len(speakers) < 2:
            return [None] * len(takes)
        known = {take.item.reference: _print(take, "clip_voiceprint") for take in takes if take.item.reference}
        known |= self._clips.clips({path for path, _ in clips} - known.keys())
        of_speaker = np.array([speakers.index(speaker) for _, speaker in clips])
        to_clips = similarity_matrix([_print(take, "voiceprint") for take in takes], [known[path] for path, _ in clips])
        answers: list[dict[str, Any] | None] = []
        for take, cosines in zip(takes, to_clips, strict=True):
            mine = float(take.given["voice_ge2e"]["cosine"])
            by_speaker = np.bincount(of_speaker, cosines) / np.bincount(of_speaker)
            place = speakers.index(take.item.speaker)
            rest = np.delete(by_speaker, place)
            others = float(rest.mean())
            by_speaker[place] = mine
            answers.append(
                {
                    "own": mine,
                    "others": others,
                    "margin": mine - others,
                    "other_speakers": len(rest),
                    "nearest": int(mine > rest.max()),
                    "nearest_speaker": speakers[int(by_speaker.argmax())],
                }
            )
        return answers


def _print(take: Take, column: str) -> np.ndarray:
    return np.asarray(take.given["voice_ge2e"][column], np.float32)
