"""Counts of the samples that were actually trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catalogs.candidates.captions import CAPTIONS
from catalogs.vocabulary.languages import is_chinese
from catalogs.vocabulary.voices import REGISTERS
from trainer.sample_kinds import LAYOUTS

if TYPE_CHECKING:
    from trainer.data.candidates import Choice


@dataclass
class SampleCounts:
    """Counts of the samples that were actually trained on: by layout, by language, content-decoupled ones, seconds of target
    audio."""

    layouts: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    decoupled: int = 0
    captions: dict[str, int] = field(default_factory=dict)
    """Samples by `caption_key`. They lack those of steps before there were captions."""

    @property
    def samples(self) -> int:
        """Number of all samples."""
        return sum(self.layouts.values())

    def count(self, choice: Choice) -> None:
        """Add one sample."""
        self.layouts[choice.layout] = self.layouts.get(choice.layout, 0) + 1
        language = choice.candidate.language
        self.languages[language] = self.languages.get(language, 0) + 1
        self.seconds += choice.candidate.seconds
        self.decoupled += choice.candidate.described_id is not None
        if choice.caption >= 0:
            key = caption_key(choice.layout, choice.caption, is_chinese(choice.candidate.language))
            self.captions[key] = self.captions.get(key, 0) + 1

    def add(self, other: SampleCounts) -> None:
        """Add the counts of another object."""
        pairs = (self.layouts, other.layouts), (self.languages, other.languages), (self.captions, other.captions)
        for mine, theirs in pairs:
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.seconds += other.seconds
        self.decoupled += other.decoupled

    def language_words(self) -> str:
        """Return one line with the samples of each language and their share."""
        total = max(1, self.samples)
        counts = sorted(self.languages.items())
        return ", ".join(f"{name or 'unknown'} {count:,} ({count / total:.1%})" for name, count in counts)

    def groups(self) -> dict[str, int]:
        """Return the number of samples by `layout_...` and `language_...`, sorted by these names."""
        named = [(f"layout_{name}", count) for name, count in self.layouts.items()]
        named += [(f"language_{name or 'unknown'}", count) for name, count in self.languages.items()]
        return dict(sorted(named))

    def metrics(self) -> dict[str, float]:
        """Return `data/share_layout_...` and `data/share_language_...`: shares of the samples, and `data/share_caption_...`: shares
        of each register and language in the descriptions."""
        total = max(1, self.samples)
        found = {f"data/share_{name}": count / total for name, count in self.groups().items()}
        described = sum(self.captions.values())
        for register, language in CAPTIONS:
            if count := sum(n for key, n in self.captions.items() if key.split("/")[1:3] == [register, language]):
                found[f"data/share_caption_{register}_{language}"] = count / described
        return found


def layout_words(layouts: Mapping[str, int], asked: Mapping[str, float], rounds: Mapping[str, float]) -> str:
    """Return a readable line: the samples of each layout, their share and the requested share, and how many times each segment
    that can serve it was taken."""
    total = max(1, sum(layouts.values()))
    return ", ".join(
        f"{name} {count:,} ({count / total:.1%}, asked {asked.get(name, 0.0):.1%}, {rounds.get(name, 0.0):,.1f} rounds)"
        for name in LAYOUTS
        if (count := layouts.get(name, 0)) or asked.get(name)
    )


def caption_key(layout: str, caption: int, chinese: bool) -> str:
    """Return the name under which a caption is counted: layout/register/language/speech. chinese: whether the speech is Chinese."""
    register, language = CAPTIONS[caption]
    return f"{layout}/{register}/{language}/{'chinese' if chinese else 'other'}"


def caption_words(
    captions: Mapping[str, int], asked: Mapping[str, Mapping[str, float]], asked_chinese: Mapping[str, float]
) -> str:
    """Return a readable line: the registers of each layout's descriptions and the share of Chinese ones, with the requested shares.

    captions: counts by `caption_key`. asked: shares of registers by layout. asked_chinese: shares by speech (`chinese`, `other`).
    """
    registers: dict[str, Counter[str]] = defaultdict(Counter)
    languages: dict[str, Counter[str]] = defaultdict(Counter)
    for key, count in captions.items():
        layout, register, language, speech = key.split("/")
        registers[layout][register] += count
        languages[speech][language] += count
    words = []
    for layout, shares in asked.items():
        found, total = registers[layout], max(1, registers[layout].total())
        told = [
            f"{name} {found[name]:,} ({found[name] / total:.1%}, asked {shares.get(name, 0.0):.1%})"
            for name in REGISTERS
            if found[name] or shares.get(name)
        ]
        words.append(f"{layout}: {', '.join(told)}")
    for speech, share in asked_chinese.items():
        if total := languages[speech].total():
            named, chinese = {"chinese": "Chinese"}.get(speech, speech), languages[speech]["zh"]
            words.append(f"in Chinese for {named} speech: {chinese:,} ({chinese / total:.1%}, asked {share:.1%})")
    return "; ".join(words)
