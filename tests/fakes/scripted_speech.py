"""Stages of `decouple` without models: a tone for each utterance, and scores that follow from the pair and the attempt."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from catalogs.candidates.held_out import hash_number
from pipeline.records import Recording, Segment, Session, SpeechSpan
from pipeline.stage import Stage, StageError
from pipeline.synthesis.compare_speech import CompareSpeech
from pipeline.synthesis.generate_speech import GenerateSpeechConfig, store_speech
from pipeline.synthesis.pairs import DecoupleSession
from pipeline.synthesis.requests import SpeechSession

RATE = 16_000
GROUPS = (("fakes.scripted_speech:ScriptedSpeech",), ("fakes.scripted_speech:ScriptedScores", "cut_clips"))
CANNOT = "bread"
"""A text with this word cannot be spoken."""


class ScriptedSpeech(Stage[GenerateSpeechConfig]):
    """A tone whose pitch and length follow from the text and the seed."""

    name = "generate_speech"
    version = "scripted"
    config_type = GenerateSpeechConfig

    def __call__(self, session: Session) -> Session:
        assert isinstance(session, SpeechSession)
        folder = Path(session.spool)
        folder.mkdir(parents=True, exist_ok=True)

        def make(recording: Recording) -> None:
            request = session.requests[recording.source.source_id]
            if CANNOT in request.text:
                raise StageError("the text is beyond the context")
            time.sleep(float(os.environ.get("SCRIPTED_SPEECH_S", "0")))
            times = np.arange(RATE + request.seed % 4000) / RATE
            noise = np.random.default_rng(request.seed).normal(0, 0.02, len(times))
            wav = 0.3 * np.sin(2 * np.pi * (100 + request.seed % 200) * times) + noise
            store_speech(session, recording, wav.astype(np.float32), RATE, "stop", folder)

        self.for_each(session, session.usable(), make)
        for seq, segment in enumerate(session.segments):
            segment.seq = seq
            session.speech.append(SpeechSpan(segment.source_id, 0.0, segment.end_s))
        return session


class ScriptedScores(CompareSpeech):
    """Scores by a hash of the pair and the attempt: about half are accepted at once."""

    name = "compare_speech"
    version = "scripted"

    def weights(self) -> tuple[str, ...]:
        return ()

    def load(self) -> None:
        self._corpora = {}

    def _compare(self, session: DecoupleSession, segment: Segment, has_speech: bool) -> None:
        pair = session.pairs[segment.source_id]
        assert has_speech
        number = hash_number("scores", pair.pair_id, session.attempt) % 100 / 100
        segment.text, segment.language = pair.text, pair.language
        scores = {"cer": 0.3 * number, "cosine": 0.9, "source_cosine": 0.9 - 0.3 * number, "pitch_st": 6 * number}
        row = self._row(session, segment.source_id, segment.segment_id, scores | {"faults": []})
        session.found[segment.source_id] = row
