"""What all remote providers share: clips into requests, the texts around their audio, and the bound of their tokens."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from string import ascii_uppercase
from typing import Any, ClassVar

from annotators.providers.http import host_of, is_private
from annotators.providers.remote import MOST_TOKENS, Ask, RemoteProvider, Request, Tokens
from annotators.questions.answers import MISMATCH, Reading, read_answers
from annotators.questions.models import TOKENS_PER_SECOND, checked, profile, same_family
from annotators.questions.prompt import load_prompt
from annotators.questions.wire import Dialect, unseal, wire_schema
from annotators.schema import VoiceDescription
from catalogs.vocabulary.voices import CAPTION_LANGUAGES

MOST_SECONDS = 120.0
"""Audio of a request in seconds, unless a single clip is longer."""
MOST_BYTES = 15_000_000
"""Body of a request in bytes. Services refuse more than 20 MB."""
ENVELOPE_TOKENS = 64
"""Tokens that a service may add around the parts of a message, at most."""


@dataclass(frozen=True)
class Answered:
    """What a stored reply holds: the text of the answer, or the reason (as of `RemoteProvider.parse`) why there is none."""

    text: str | None = None
    reason: str | None = None


class Questions(RemoteProvider):
    """A remote provider that asks with the prompt of prompts/describe.md. Subclasses have the wire format.

    languages: codes of caption languages, or `own` for the clip's. Raises ValueError for a wrong model name or language.
    """

    base_url: str
    dialect: ClassVar[Dialect]

    def __init__(self, model: str, languages: Sequence[str] = CAPTION_LANGUAGES, clips: int | None = None) -> None:
        self.model = checked(model)
        self.languages = tuple(dict.fromkeys(languages))
        self.profile = profile(model)
        self.clips = min(clips or self.profile.clips, len(ascii_uppercase))
        prompt = load_prompt()
        if not self.languages or not set(self.languages) <= set(prompt.languages):
            known = ", ".join(prompt.languages)
            raise ValueError(
                f"captions in {', '.join(self.languages) or 'no language'} are not possible: choose of {known}"
            )
        self.prompt = prompt
        self.prompt_version = prompt.version
        self.fixed_text = prompt.text(self.languages)
        self.schema = wire_schema(self.dialect, self.languages)
        decides = [self.kind, self.model, prompt.hash, self.fixed_text, self.schema, self.settings()]
        self.identity = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def warnings(self) -> list[str]:
        """Return a line if keys and clips would be readable on the way."""
        if self.base_url.startswith("https:") or is_private(self.base_url):
            return []
        return [f"keys and clips go to {host_of(self.base_url)} without encryption: use https in --base-url"]

    def settings(self) -> Mapping[str, Any]:
        """Return the generation settings, as part of the identity."""
        known = self.profile
        return {
            "thinking": known.thinking, "sampling": dict(known.sampling), "extra": dict(known.extra),
            "thoughts": known.thoughts, "piece_s": known.piece_s, "structured": known.structured,
        }  # fmt: skip

    def group(self, asks: Sequence[Ask]) -> list[Request]:
        """Return requests of at most `clips` clips, MOST_SECONDS and MOST_BYTES, each of clips of one speaker."""
        by_speaker: dict[str | None, list[Ask]] = {}
        for ask in asks:
            by_speaker.setdefault(ask.speaker, []).append(ask)
        return [new_request(part) for clips in by_speaker.values() for part in self._parts(clips)]

    def _parts(self, asks: Sequence[Ask]) -> Iterator[list[Ask]]:
        part: list[Ask] = []
        seconds, size = 0.0, 0
        for ask in asks:
            bytes_ = self.body_bytes(ask)
            full = len(part) >= self.clips or seconds + ask.seconds > MOST_SECONDS or size + bytes_ > MOST_BYTES
            if part and full:
                yield part
                part, seconds, size = [], 0.0, 0
            part.append(ask)
            seconds, size = seconds + ask.seconds, size + bytes_
        if part:
            yield part

    def body_bytes(self, ask: Ask) -> int:
        """Return the bytes that a clip adds to the body of a request."""
        return len(ask.audio) * 4 // 3 + 1024

    def bound(self, request: Request) -> Tokens:
        """Return an upper bound. A token of text has at least one byte; audio has at most 32 tokens per second, plus 5 %."""
        schema = json.dumps(self.schema, ensure_ascii=False)
        texts = [self.fixed_text, schema, *self.introductions(request), self.closing(request)]
        audio = sum(ceil(ask.seconds * TOKENS_PER_SECOND * 1.05) + 8 for ask in request.asks)
        text = sum(len(text.encode()) for text in texts) + ENVELOPE_TOKENS
        return Tokens(text, audio, 0, self.output_tokens(len(request.asks)))

    def output_tokens(self, clips: int) -> int:
        """Return the limit of output tokens of a request, thoughts included."""
        return self.prompt.output_tokens(clips, self.languages) + self.profile.thoughts

    def introductions(self, request: Request) -> list[str]:
        """Return the text before each clip's audio."""
        labelled = zip(labels_of(len(request.asks)), request.asks, strict=True)
        return [self.prompt.introduce(label, ask.segment_id, ask.language) for label, ask in labelled]

    def closing(self, request: Request) -> str:
        """Return the text after the last clip's audio."""
        return self.prompt.closing(labels_of(len(request.asks)))

    def parse(self, raw: str, keys: Sequence[str]) -> Mapping[str, VoiceDescription | str]:
        """Return the description or the reason of its failure by key."""
        return {key: one.description or one.error or "empty" for key, one in self.readings(raw, keys).items()}

    def readings(self, raw: str, keys: Sequence[str]) -> dict[str, Reading]:
        """Return what a stored reply says by key."""
        seconds, body = unseal(raw)
        answered = self.answered(body)
        if answered.text is None:
            return dict.fromkeys(keys, Reading(error=answered.reason or "empty"))
        if len(keys) > len(ascii_uppercase) or (seconds is not None and len(seconds) != len(keys)):
            return dict.fromkeys(keys, Reading(error=MISMATCH))
        labels = labels_of(len(keys))
        found = read_answers(answered.text, labels, seconds, self.languages)
        return {key: found[label] for label, key in zip(labels, keys, strict=True)}

    @abstractmethod
    def answered(self, body: str) -> Answered:
        """Return the text of the answer in a reply's body, or the reason why there is none."""

    def answered_by_another(self, model_version: str | None) -> bool:
        """Return True if a model of another family names itself. A service that names none is believed."""
        return model_version is not None and not same_family(self.model, model_version)


def new_request(asks: Sequence[Ask]) -> Request:
    """Return a request about clips."""
    return Request(hashlib.sha256("\n".join(ask.key for ask in asks).encode()).hexdigest(), tuple(asks))


def labels_of(clips: int) -> str:
    """Return the labels of clips, a letter each."""
    return ascii_uppercase[:clips]


def count(value: object) -> int:
    """Return a number of tokens as a service states it; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else 0


def plausible(said: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Return True if each of these counts is a possible number of tokens or absent."""
    return all(said.get(name) is None or said[name] == 0 or count(said[name]) for name in names)
