"""The prompt of the describers: a Markdown file with front matter. Its hash is part of the identity of every answer."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from annotators.questions.wire import NAMES, OWN
from catalogs.settings import load_yaml
from catalogs.vocabulary.languages import language as known_language
from catalogs.vocabulary.voices import (
    ACCENTS,
    CAPTION_LANGUAGES,
    CLOSED,
    DELIVERIES,
    EVENTS,
    REGISTERS,
    TEXTURES,
    UNSURE,
)

DESCRIBE = Path(__file__).parent / "prompts" / "describe.md"
_PARTS = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)
_SECTION = re.compile(r"^<!-- (own|recipes|clip|ask) -->\n", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """A prompt as loaded. Texts are filled in by its methods."""

    version: str
    registers: tuple[str, ...]
    languages: tuple[str, ...]
    max_output_tokens: int
    """Tokens of a request without its clips."""
    max_output_tokens_per_clip: int
    """Tokens of each clip, thoughts included, with captions in two languages."""
    hash: str
    """sha256 of the file."""
    body: str
    own: str
    """Paragraph that is added if captions in the clip's own language are asked for."""
    recipes: tuple[str, ...]
    """Ways to phrase captions; the segment's id chooses one, so that captions do not open alike."""
    clip: str
    ask: str

    def text(self, languages: tuple[str, ...]) -> str:
        """Return the fixed part, which stands before all clips."""
        body = self.body + (f"\n{self.own}\n" if OWN in languages else "")
        named = [_name(language) for language in languages if language != OWN]
        closed = (f'   "{NAMES[name]}": {", ".join((*values, UNSURE))}.' for name, values in CLOSED.items())
        accents = "; ".join(f"{language}: {', '.join(names)}" for language, names in ACCENTS.items())
        filled = {
            "closed": "\n".join(closed),
            "texture": ", ".join(TEXTURES),
            "delivery": ", ".join(DELIVERIES),
            "events": ", ".join(EVENTS),
            "accents": accents,
            "languages": " and ".join(named),
            "keys": ", ".join(f'"{language}"' for language in languages),
        }
        for name, value in filled.items():
            body = body.replace(f"{{{{{name}}}}}", value)
        return body.strip() + "\n"

    def introduce(self, label: str, segment_id: str, language: str | None) -> str:
        """Return the line before a clip's audio: its label, its spoken language if known, and a way to phrase its captions."""
        digest = hashlib.sha256(f"phrasing {segment_id}".encode()).digest()
        spoken = _name(language)
        recipe = self.recipes[digest[0] % len(self.recipes)]
        return self.clip.format(label=label, language=spoken, recipe=recipe)

    def closing(self, labels: str) -> str:
        """Return the line after all clips."""
        return self.ask.format(labels=", ".join(labels))

    def output_tokens(self, clips: int, languages: tuple[str, ...]) -> int:
        """Return the most tokens that an answer about some clips may have, thoughts included."""
        # Two languages are in the figure of the file.
        each = self.max_output_tokens_per_clip + 150 * max(0, len(languages) - 2)
        return self.max_output_tokens + each * clips


@cache
def load_prompt(path: Path = DESCRIBE) -> Prompt:
    """Read a prompt file. Raises ValueError for a file of another form."""
    content = path.read_bytes()
    found = _PARTS.match(content.decode())
    if found is None:
        raise ValueError(f"{path} does not begin with front matter between two lines of ---")
    front: dict[str, Any] = load_yaml(found[1])
    wanted = {"version", "registers", "languages", "max_output_tokens", "max_output_tokens_per_clip"}
    if front.keys() != wanted:
        raise ValueError(f"the front matter of {path} has other keys than {', '.join(sorted(wanted))}")
    if tuple(front["registers"]) != REGISTERS or not set(front["languages"]) >= set(CAPTION_LANGUAGES):
        raise ValueError(
            f"{path} does not ask for the registers {', '.join(REGISTERS)} in {', '.join(CAPTION_LANGUAGES)}"
        )
    body, *rest = _SECTION.split(found[2])
    sections = dict(zip(rest[::2], (text.strip() for text in rest[1::2]), strict=True))
    return Prompt(
        version=str(front["version"]),
        registers=tuple(front["registers"]),
        languages=tuple(front["languages"]),
        max_output_tokens=int(front["max_output_tokens"]),
        max_output_tokens_per_clip=int(front["max_output_tokens_per_clip"]),
        hash=hashlib.sha256(content).hexdigest(),
        body=body,
        own=sections["own"],
        recipes=tuple(line.removeprefix("- ") for line in sections["recipes"].splitlines()),
        clip=sections["clip"],
        ask=sections["ask"],
    )


def _name(code: str | None) -> str:
    """Return the English name of a language. A code that is not known is not sent: it may be any text."""
    known = known_language(code)
    return "not known" if known is None else known.name
