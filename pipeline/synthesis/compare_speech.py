"""Compare made clips with the segments that they were cloned from."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from catalogs.corpus.reader import Corpus
from catalogs.vocabulary.languages import text_unit, text_units
from pipeline.records import PCM_RATE, Segment, Session
from pipeline.speech import faults
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.stages.classify_emotion import expressive_p
from pipeline.synthesis.bounds import FAULTS, Bounds, reasons_against
from pipeline.synthesis.pairs import DecoupleSession, Pair
from pipeline.synthesis.requests import StoredClip
from pipeline.text.compare import comparable, error_rate
from pipeline.text.counts import count_characters, count_syllables
from pipeline.text.timing import time_words
from pipeline.voice.encoders import EncoderName, load_encoder
from pipeline.voice.prosody import measure_prosody


class CompareSpeechConfig(StageConfig):
    """Settings of `compare_speech`: those of the run."""

    encoder: EncoderName = "ge2e"
    """Encoder of the voiceprints."""
    bounds: Bounds = Bounds()
    """Bounds that a clip is accepted by."""


class CompareSpeech(Stage[CompareSpeechConfig]):
    """Segments -> the rows of `decoupled`, and the requested text as the segments' text.

    The paper keeps the description of the source as the control prompt, so a clip must still fit it. Its voice is compared with
    the reference's and the source's voiceprint, its text with what was recognized, its style with the measures of the source:
    pitch, pitch range, rate, level, expressiveness (with the resting pitch of the source's voice). All scores are recorded.
    """

    name = "compare_speech"
    version = "1"
    config_type = CompareSpeechConfig
    inputs = ("windows", "segments", "speech", "segment.text", "segment.words", "segment.pitch_hz", "segment.energy_db")
    outputs = ("segment.text", "segment.words", "segment.flags")
    resources = Resources(cpus=0.05, memory_bytes=1024**3)

    def weights(self) -> tuple[str, ...]:
        return (self.config.encoder,)

    def load(self) -> None:
        self._encoder = load_encoder(self.config.encoder, "auto")
        self._corpora: dict[str, Corpus] = {}

    def __call__(self, session: Session) -> Session:
        if not isinstance(session, DecoupleSession):
            raise TypeError("compare_speech needs a DecoupleSession")
        speech = {span.source_id for span in session.speech}
        alive = list(session.alive())
        self.for_each(session, alive, lambda segment: self._compare(session, segment, segment.source_id in speech))
        for source_id in session.pairs:
            if source_id not in session.found:
                self._failed(session, source_id)
        return session

    def _compare(self, session: DecoupleSession, segment: Segment, has_speech: bool) -> None:
        pair = session.pairs[segment.source_id]
        samples = session.audio(segment)
        heard, wanted = segment.text or "", str(pair.text)
        scores: dict[str, Any] = {"cer": error_rate(heard, wanted, pair.language)}
        scores |= self._voices(session, pair, segment, samples)
        take_text(segment, wanted, heard, pair.language)
        scores |= style_scores(segment, samples, pair)
        scores["faults"] = ([] if has_speech else ["silent"]) + text_faults(
            samples, segment, wanted, heard, pair.language
        )
        session.found[segment.source_id] = self._row(session, segment.source_id, segment.segment_id, scores)

    def _voices(
        self, session: DecoupleSession, pair: Pair, segment: Segment, samples: np.ndarray
    ) -> dict[str, float | None]:
        made = segment.embedding if segment.embedding is not None else self._print(samples)
        described, timbre = pair.described(session.corpus), pair.timbre(session.corpus)
        source = self._print(self._stored(described))
        other = source if timbre == described else self._print(self._stored(timbre))
        margin = session.voiceprints.margin(pair.voice, made)
        return {"cosine": _cosine(made, other), "source_cosine": _cosine(made, source), "voice_margin": margin}

    def _stored(self, clip: StoredClip) -> np.ndarray:
        """Return a clip of the corpus, float32 [S] at 16 kHz."""
        import soundfile
        import soxr

        data = clip.flac(self._corpora.setdefault(clip.corpus, Corpus(clip.corpus)))
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        return np.asarray(samples if rate == PCM_RATE else soxr.resample(samples, rate, PCM_RATE, quality="HQ"))

    def _print(self, samples: np.ndarray) -> np.ndarray | None:
        if not np.any(samples):
            return None
        (prints,) = self._encoder.partials([samples])
        return np.asarray(prints.mean(axis=0))

    def _row(self, session: DecoupleSession, source_id: str, name: str, scores: dict[str, Any]) -> dict[str, Any]:
        pair = session.pairs[source_id]
        row = {
            "segment_id": name,
            "described_id": pair.described_id,
            "timbre_id": pair.timbre_id,
            "text": pair.text,
            "text_id": pair.text_id,
            "pair_id": pair.pair_id,
            "caption": session.requests[source_id].description,
            "attempt": session.attempt,
            "seed": session.requests[source_id].seed,
            "model": session.model,
            "ending": session.endings.get(source_id),
            "relatedness": pair.relatedness,
            "distance_rule": pair.distance_rule,
            **scores,
        }
        reasons = reasons_against(row, self.config.bounds)
        return row | {"reasons": reasons, "accepted": not reasons}

    def _failed(self, session: DecoupleSession, source_id: str) -> None:
        """Add the row of an utterance that has no clip: the model or a stage failed on it."""
        segment = next((s for s in session.segments if s.source_id == source_id), None)
        faults_found = [reason for reason in (segment.hard_reasons if segment else ()) if reason in FAULTS]
        row = self._row(session, source_id, segment.segment_id if segment else source_id, {"faults": faults_found})
        reasons = list(segment.hard_reasons + segment.failures) if segment else []
        session.found[source_id] = row | {"reasons": reasons or ["failed_generation"], "accepted": False}


def take_text(segment: Segment, wanted: str, heard: str, language: str | None) -> None:
    """Give a segment the text that was asked for, with times by the words that were recognized."""
    words = time_words(wanted, segment.words, language, segment.duration_s) if segment.words else []
    spoken_s = max(words[-1].end - words[0].start, 0.2) if words else 0.0
    segment.text, segment.text_source, segment.other_text, segment.words = wanted, "given", heard, words
    segment.chars_per_s = count_characters(wanted) / spoken_s if spoken_s else None
    segment.rate_sps = count_syllables(wanted) / spoken_s if spoken_s else None


def style_scores(segment: Segment, samples: np.ndarray, pair: Pair) -> dict[str, float | None]:
    """Return the differences of a clip, float32 [S] at 16 kHz, from its source, by score: `pitch_st` and `range_st` in semitones,
    `rate_octaves` in octaves, `energy_db` in dB, `expressive` within -1..1.

    None if either side has not been measured. Sets the segment's `expressive_p` by the resting pitch of the source's voice.
    """
    prosody = measure_prosody(samples)
    if prosody is not None and pair.rest_hz:
        segment.expressive_p = expressive_p(prosody, pair.rest_hz)

    def difference(own: float | None, theirs: float | None) -> float | None:
        return None if own is None or theirs is None else own - theirs

    def octaves(own: float | None, theirs: float | None) -> float | None:
        return None if not own or not theirs or own <= 0 or theirs <= 0 else math.log2(own / theirs)

    pitch = octaves(segment.pitch_hz, pair.pitch_hz)
    return {
        "pitch_st": None if pitch is None else 12 * pitch,
        "range_st": difference(segment.pitch_range_st, pair.pitch_range_st),
        "rate_octaves": octaves(segment.rate_sps, pair.rate_sps),
        "energy_db": difference(segment.energy_db, pair.energy_db),
        "expressive": difference(segment.expressive_p, pair.expressive_p),
    }


def text_faults(samples: np.ndarray, segment: Segment, wanted: str, heard: str, language: str | None) -> list[str]:
    """Return the faults of the text of a clip, float32 [S] at 16 kHz: `stops_early`, `repeats` and `tail`."""
    unit = text_unit(language, wanted)
    asked, found = (text_units(comparable(text, language), language) for text in (wanted, heard))
    reasons = []
    if faults.stops_early(asked, found, unit):
        reasons.append("stops_early")
    if faults.repeated_units(asked, found, faults.LOOP_UNITS[unit]):
        reasons.append("repeats")
    last_s = segment.words[-1].end if segment.words else 0.0
    sound_s = faults.find_sounds(samples).sound_after(last_s)
    if faults.units_after_the_end(asked, found) >= faults.TAIL_UNITS[unit] or (last_s and sound_s > faults.TAIL_S):
        reasons.append("tail")
    return reasons


def _cosine(one: np.ndarray | None, other: np.ndarray | None) -> float | None:
    if one is None or other is None:
        return None
    return float(np.dot(one, other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
