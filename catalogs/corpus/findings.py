"""The findings of `fsck`, for its report and for the repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.unit_checks import Problem
from catalogs.corpus.unnamed import Unnamed


@dataclass
class Findings:
    """What an examination of a corpus found, and what a repair needs."""

    problems: list[Problem] = field(default_factory=list)
    """Errors and notices that a repair cannot fix."""
    records: list[dict[str, Any]] = field(default_factory=list)
    damaged: dict[str, list[Problem]] = field(default_factory=dict)
    """Faulty files by unit; `path` of a problem is the file's."""
    broken_records: dict[Path, Problem] = field(default_factory=dict)
    companions: list[Problem] = field(default_factory=list)
    """Annotations and latents that cannot be read: a later pass makes them again."""
    unnamed: Unnamed = field(default_factory=Unnamed)
