"""What `fsck` found in a corpus, for the report and for the repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.unit_checks import Problem
from catalogs.corpus.unnamed import Unnamed


@dataclass
class Findings:
    """What an examination found, and what a repair needs to know of it."""

    problems: list[Problem] = field(default_factory=list)
    """Errors and notices that no repair mends."""
    records: list[dict[str, Any]] = field(default_factory=list)
    damaged: dict[str, list[Problem]] = field(default_factory=dict)
    """Of each unit with files at fault: what is wrong with them; `path` is the file's."""
    broken_records: dict[Path, Problem] = field(default_factory=dict)
    companions: list[Problem] = field(default_factory=list)
    """Annotations and latents that cannot be read: a later pass makes them again."""
    unnamed: Unnamed = field(default_factory=Unnamed)
