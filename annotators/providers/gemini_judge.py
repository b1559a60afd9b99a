"""Gemini as a judge: one clip and one question per request, the answer an object with one field that is true or false."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from annotators.providers.gemini import Gemini
from annotators.providers.remote import Ask, Request
from annotators.questions.wire import extract_json, unseal

OUTPUT_TOKENS = 2048
"""Limit of an answer, thoughts included, besides those of the model's family."""


class GeminiJudge(Gemini):
    """Asks with rules, a schema and questions of the caller. `ask` makes a question; the runner sends it.

    Raises ValueError for a wrong model name or base URL.
    """

    name = "gemini-judge"
    kind = "gemini-judge"
    default_model = ""

    def __init__(
        self, model: str, rules: str, schema: Mapping[str, Any], field: str, closing: str, base_url: str | None = None
    ) -> None:
        """rules: the system prompt. field: the one of the schema that must be true or false. closing: the text after the audio."""
        super().__init__(model, base_url, clips=1)
        self._field, self._closing = field, closing
        self._questions: dict[str, str] = {}
        self.fixed_text, self.schema = rules, dict(schema)
        decides = [self.kind, self.model, rules, self.schema, closing, self.settings()]
        self.identity = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        self.prompt_version = hashlib.sha256(rules.encode()).hexdigest()[:8]

    def ask(self, audio: bytes, seconds: float, question: str, draw: int = 1) -> Ask:
        """Return a question about a FLAC file. Another draw asks the same again, and is paid again."""
        decides = [hashlib.sha256(audio).hexdigest(), self.identity, question, draw]
        key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        self._questions[key] = question
        return Ask(key, key[:16], None, None, seconds, audio)

    def introductions(self, request: Request) -> list[str]:
        """See `Questions`."""
        return [self._questions[ask.key] for ask in request.asks]

    def closing(self, request: Request) -> str:
        """See `Questions`."""
        return self._closing

    def output_tokens(self, clips: int) -> int:
        """See `Questions`."""
        return OUTPUT_TOKENS * clips + self.profile.thoughts

    def parse(self, raw: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return the answer as a dictionary, or the reason of its failure, by key. The field is never taken from text."""
        _, body = unseal(raw)
        answered = self.answered(body)
        if answered.text is None:
            return dict.fromkeys(keys, answered.reason or "empty")
        found = extract_json(answered.text, self._field)
        if found is None:
            return dict.fromkeys(keys, f"invalid: no JSON object with {self._field}")
        if not isinstance(found[self._field], bool):
            return dict.fromkeys(keys, f"invalid: {self._field} is {found[self._field]!r:.40}, neither true nor false")
        return dict.fromkeys(keys, found)
