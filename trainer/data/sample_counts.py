"""Counts of the samples that were actually trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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

    def add(self, other: SampleCounts) -> None:
        """Add the counts of another object."""
        for mine, theirs in ((self.layouts, other.layouts), (self.languages, other.languages)):
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
        """Return `data/share_layout_...` and `data/share_language_...`: shares of the samples."""
        total = max(1, self.samples)
        return {f"data/share_{name}": count / total for name, count in self.groups().items()}


def layout_words(layouts: Mapping[str, int], asked: Mapping[str, float], rounds: Mapping[str, float]) -> str:
    """Return a readable line: the samples of each layout, their share and the requested share, and how many times each segment
    that can serve it was taken."""
    total = max(1, sum(layouts.values()))
    return ", ".join(
        f"{name} {count:,} ({count / total:.1%}, asked {asked.get(name, 0.0):.1%}, {rounds.get(name, 0.0):,.1f} rounds)"
        for name in LAYOUTS
        if (count := layouts.get(name, 0)) or asked.get(name)
    )
