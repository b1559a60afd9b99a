"""Detect the language and recognize the words and their times with Whisper. Use the transcript that came with a recording
if it fits."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
from pydantic import Field

from catalogs.vocabulary.languages import language as known_language
from catalogs.vocabulary.languages import text_unit
from pipeline.records import PCM_RATE, Recording, Segment, Session
from pipeline.runtime.devices import Device
from pipeline.speech.language import LEAST_S, DetectedLanguage, of_segment, speech_windows, vote
from pipeline.speech.whisper import WINDOW_S, Recognizer, Transcription
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.text.align import share_out
from pipeline.text.compare import error_rate
from pipeline.text.counts import count_characters, count_syllables
from pipeline.text.given import share_transcript
from pipeline.text.invented import signs_of_invention
from pipeline.text.match import MatchRules, WordSupport, judge
from pipeline.text.timing import time_words

# One window of speech per two minutes votes: the language of a talk may change after an hour.
_VOTE_EVERY_S, _MOST_WINDOWS = 120.0, 24
_CHUNK_S = 25.0


class TranscribeConfig(StageConfig):
    """Settings of `transcribe`."""

    model: str = "whisper-base"
    """Name of the CTranslate2 weights in models.toml."""
    beam_size: int = Field(5, ge=1)
    """Hypotheses of the beam search. 1 decodes greedily, twice as fast and about a point worse."""
    language_windows: int = Field(4, ge=1)
    """Windows of up to 30 s of speech, spread over a recording, that vote for its language. Recordings over eight minutes
    use more: one per two minutes."""
    language_switch_p: float = Field(0.8, ge=0, le=1)
    """A segment gets another language than its recording if its own audio has that language with at least this probability.
    It is tested if the windows disagree or the recognizer is in doubt. 1 practically switches it off."""
    unknown_below: float = Field(0.3, ge=0, le=1)
    """A language detected with a lower probability is recorded as unknown (null); the text stays."""
    given_cer: float = Field(0.5, ge=0)
    """If the fit of a given transcript cannot be measured, it is used up to this character error rate."""
    given_gain: float = Field(1.5)
    """Nats per token that a given transcript must gain from the audio. Correct ones gain 2.5 to 9, wrong ones up to 1.3."""
    second_pass: str = "greedy"
    """What recognizes a segment again for `agreement_cer`: `off`, `greedy` (the same model, without a beam and shifted by a
    quarter of a second), or the name of another model."""
    second_pass_on: Literal["doubtful", "all"] = "doubtful"
    """Which segments are recognized again: those with a doubtful first pass, or all with a recognized text."""
    doubtful_logprob: float = -0.5
    """A pass with a lower mean log probability is doubtful, as is one with a compression ratio above 2 or any sign of
    invention."""
    window_margin_s: float | None = Field(6.0, ge=0)
    """Seconds of the empty rest of Whisper's 30 s window that are computed after a clip. null: all of it."""
    threads: int = Field(1, ge=1)
    """CPU threads per actor. Two actors with one thread each process a third more than one actor with two."""
    device: Device = "auto"
    """`auto`: the actor's share of a GPU (`engine.gpus`) if it has one, otherwise the CPU."""
    compute_type: str = "default"
    """Compute type of CTranslate2. default: int8 on the CPU, float16 on a GPU."""


class Transcribe(Stage[TranscribeConfig]):
    """Segments -> language, text, words with times (from the segment's start), and the recognizer's confidence.

    The paper transcribes with Whisper and aligns. Each segment is decoded separately at temperature 0 and without the text
    before it, so that the same segment always gives the same text and an error cannot spread.

    * **Language**: that of the recording, by the mean probability over windows of its speech; a language given with the
      source counts as certain. If windows disagree, or the recognizer is in doubt, the segment itself may get another.
    * **Given transcripts come first**: they are distributed over the segments by their times or by alignment, and judged by
      how much the audio supports their words. They are trimmed or completed at the ends, and used (`text_source` "given" or
      "repaired"); otherwise the recognized text stays ("asr"). `other_text` keeps the text that was not used.
    * **A second pass** gives `agreement_cer`. Signs of invention, a switch of language and what was done with a given
      transcript become `flags`. Nothing is dropped here.

    `chars_per_s` and `rate_sps` (syllables) are per second between the start of the segment's first word and the end of its
    last.
    """

    name = "transcribe"
    version = "3"
    continues = ("2",)
    config_type = TranscribeConfig
    inputs = ("windows", "segments")
    outputs = (
        "segment.language",
        "segment.language_p",
        "segment.text",
        "segment.text_source",
        "segment.other_text",
        "segment.words",
        "segment.asr_logprob",
        "segment.no_speech_p",
        "segment.compression_ratio",
        "segment.agreement_cer",
        "segment.given_cer",
        "segment.given_gain",
        "segment.flags",
        "segment.chars_per_s",
        "segment.rate_sps",
    )
    resources = Resources(cpus=1.0, memory_bytes=1024**3)

    def weights(self) -> tuple[str, ...]:
        second = self.config.second_pass
        return tuple(dict.fromkeys((self.config.model, *(() if second in ("off", "greedy") else (second,)))))

    def load(self) -> None:
        models = [self._recogniser(name) for name in self.weights()]
        self.first, self.second = models[0], models[-1]
        self.known_languages: dict[str, DetectedLanguage] = {}
        """Language by source id. A forecast processes parts of recordings, but detects their languages over the whole
        recordings."""

    def _recogniser(self, name: str) -> Recognizer:
        config = self.config
        return Recognizer(name, config.device, config.compute_type, config.threads, config.window_margin_s)

    def __call__(self, session: Session) -> Session:
        languages = self.find_languages(session)
        alive = [segment for segment in session.alive() if segment.source_id in languages]
        heard: dict[int, Transcription] = {}
        self.for_each(session, alive, lambda s: self._recognise(session, s, languages[s.source_id], heard))
        alive = [segment for segment in alive if id(segment) in heard]
        self.for_each(session, session.usable(), lambda recording: self.use_given(session, recording, heard))
        self.for_each(session, alive, lambda segment: self._check(segment))
        again = [s for s in alive if not s.failures and self._is_heard_again(s)]
        self.for_each(session, again, lambda s: self._hear_again(session, s, heard[id(s)].language))
        return session

    def find_languages(self, session: Session) -> dict[str, DetectedLanguage]:
        """Return the language of each recording that has speech, by its source id."""
        languages: dict[str, DetectedLanguage] = {}
        self.for_each(session, session.usable(), lambda recording: self._hear_language(session, recording, languages))
        return languages

    def _hear_language(self, session: Session, recording: Recording, languages: dict[str, DetectedLanguage]) -> None:
        """Add {source id: language}, or nothing if the recording has no speech."""
        source = recording.source
        if source.source_id in self.known_languages:
            languages[source.source_id] = self.known_languages[source.source_id]
            return
        if source.language and self.first.code(source.language):
            languages[source.source_id] = DetectedLanguage(source.language, 1.0, given=True)
            return
        if source.language:
            session.notices.append(
                f"{self.config.model} does not know the language {source.language}: it is detected instead"
            )
        if not self.first.multilingual:
            languages[source.source_id] = DetectedLanguage("en", 1.0, given=True)
            return
        spoken_s = sum(s.duration_s for s in session.alive() if s.source_id == source.source_id)
        count = min(max(self.config.language_windows, round(spoken_s / _VOTE_EVERY_S)), _MOST_WINDOWS)
        voted = vote(speech_windows(session, source.source_id, count), self.first.languages)
        if voted:
            languages[source.source_id] = voted

    def _recognise(
        self, session: Session, segment: Segment, spoken: DetectedLanguage, heard: dict[int, Transcription]
    ) -> None:
        """Recognize the segment's text, in its recording's language or in the one that it is clearly in."""
        audio = session.audio(segment)
        ask = not spoken.given and segment.duration_s >= LEAST_S and self.first.multilingual
        here = spoken
        if ask and spoken.mixed:
            here = of_segment(spoken, self.first.languages(audio), self.config.language_switch_p)
        found = self.first.transcribe(audio, here.language, self.config.beam_size)
        if ask and not spoken.mixed and self._is_doubtful(found, here.language):
            other = of_segment(spoken, self.first.languages(audio), self.config.language_switch_p)
            if other is not spoken:
                again = self.first.transcribe(audio, other.language, self.config.beam_size)
                if (again.logprob or -9.0) > (found.logprob or -9.0):
                    here, found = other, again
        heard[id(segment)] = found
        if here is not spoken and "language_switch" not in segment.flags:
            segment.flags.append("language_switch")
        segment.language = here.language if here.p >= self.config.unknown_below else None
        segment.language_p = here.p
        segment.text, segment.text_source, segment.words = found.text, "asr", found.words
        segment.asr_logprob, segment.no_speech_p = found.logprob, found.no_speech_p
        segment.compression_ratio = found.compression_ratio

    def _is_doubtful(self, heard: Transcription, language: str | None) -> bool:
        if heard.logprob is None or heard.logprob < self.config.doubtful_logprob or (heard.compression_ratio or 0) > 2:
            return True
        return bool(signs_of_invention(heard.text, language, _spoken_s(heard), heard.logprob, heard.no_speech_p))

    def use_given(self, session: Session, recording: Recording, heard: dict[int, Transcription]) -> None:
        """Distribute the transcript that came with a recording over its segments, and use the parts that fit.

        `heard`: by `id(segment)`, what was recognized in each segment.
        """
        source = recording.source
        segments = [s for s in session.alive() if s.source_id == source.source_id and id(s) in heard]
        if not source.text or not segments:
            return
        shares = share_transcript(source, segments, [heard[id(segment)].text for segment in segments])
        letters, used = count_characters(source.text), sum(map(count_characters, shares))
        if used < 0.9 * letters:
            session.notices.append(
                f"{source.relative_path}: {1 - used / letters:.0%} of its transcript lies where no speech was found"
            )
        rules = MatchRules(least_gain=self.config.given_gain, fallback_cer=self.config.given_cer)
        for segment, given in zip(segments, shares, strict=True):
            if given:
                self._judge(session, segment, heard[id(segment)], given, rules)

    def _judge(self, session: Session, segment: Segment, heard: Transcription, given: str, rules: MatchRules) -> None:
        language = heard.language

        def support(text: str) -> list[WordSupport] | None:
            return self._support(session, segment, heard, text)

        match = judge(given, heard.text, heard.words, language, support, rules)
        segment.given_cer, segment.given_gain = match.cer, match.gain
        segment.flags += match.flags
        if match.source == "asr":
            segment.other_text = given
            return
        segment.text, segment.text_source, segment.other_text = match.text, match.source, heard.text
        segment.words = time_words(match.text, heard.words, language, segment.duration_s)

    def _support(self, session: Session, segment: Segment, heard: Transcription, text: str) -> list[WordSupport] | None:
        """Return how well the audio supports each word of a text; None if that cannot be measured. A segment that is longer
        than the model's window is measured chunk by chunk."""
        audio, language = session.audio(segment), heard.language
        if segment.duration_s <= WINDOW_S:
            return self.first.support(audio, text, language)
        cuts = _chunks(heard, segment.duration_s)
        texts = [
            " ".join(word.word for word in heard.words if a <= (word.start + word.end) / 2 < b)
            for a, b in itertools.pairwise(cuts)
        ]
        found: list[WordSupport] = []
        for (a, b), share in zip(
            itertools.pairwise(cuts), share_out(text, texts, text_unit(language, text)), strict=True
        ):
            part = (
                self.first.support(audio[round(a * PCM_RATE) : round(b * PCM_RATE)], share, language) if share else []
            )
            if part is None:
                return None
            found += part
        return found

    def _check(self, segment: Segment) -> None:
        """Set the rates and flags of a segment whose text is decided."""
        text, language = str(segment.text), segment.language
        if language and known_language(language) is None:
            segment.flags.append("foreign_language")
        if segment.words and text:
            spoken = max(segment.words[-1].end - segment.words[0].start, 0.2)
            segment.chars_per_s = count_characters(text) / spoken
            segment.rate_sps = count_syllables(text) / spoken
            signs = signs_of_invention(text, language, spoken, segment.asr_logprob, segment.no_speech_p)
            # A given text may say anything. Only its rate is a sign, namely of words that belong elsewhere.
            segment.flags += signs if segment.text_source == "asr" else [s for s in signs if s == "unusual_rate"]

    def _is_heard_again(self, segment: Segment) -> bool:
        """Return True if a segment gets a second pass: its text was recognized, and it is doubtful or all segments get one."""
        config = self.config
        if segment.text_source != "asr" or config.second_pass == "off":
            return False
        if not (self.second.multilingual or known_language(segment.language) == known_language("en")):
            return False
        doubtful = (segment.asr_logprob or -9.0) < config.doubtful_logprob or (segment.compression_ratio or 0.0) > 2
        return config.second_pass_on == "all" or doubtful or bool(set(segment.flags) - {"given_rejected"})

    def _hear_again(self, session: Session, segment: Segment, language: str | None) -> None:
        """Run the second pass: set `agreement_cer` of a recognized text."""
        config = self.config
        audio, beam = session.audio(segment), config.beam_size
        if config.second_pass == "greedy":
            # The same audio at another place of the window: words that the model guesses change, words that the audio
            # supports stay.
            audio, beam = np.concatenate([np.zeros(PCM_RATE // 4, dtype=np.float32), audio]), 1
        again = self.second.transcribe(audio, language, beam)
        segment.agreement_cer = error_rate(again.text, str(segment.text), segment.language)


def _spoken_s(heard: Transcription) -> float:
    return heard.words[-1].end - heard.words[0].start if heard.words else 0.0


def _chunks(heard: Transcription, end_s: float) -> list[float]:
    """Return times that cut a long segment into chunks the model processes at once. A cut is the end of a piece of the
    first pass if one is near enough."""
    cuts = [0.0]
    while end_s - cuts[-1] > _CHUNK_S:
        fitting = [end for end in heard.ends if cuts[-1] + 1.0 < end <= cuts[-1] + _CHUNK_S]
        cuts.append(max(fitting, default=cuts[-1] + _CHUNK_S))
    return [*cuts, end_s]
