"""Age of a voice: the bands of the corpus' own classifier, if a stage filled them. Without weights it gives none.

Pitch and formants do not tell the age of adults: benchmarks/quality/experts.py reports it. Of children they do: a voice that
never rests below 250 Hz with a short tract may be a child's or a shouting adult's: it gives no verdict on that either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from annotators.experts.base import Expert, Shares
from annotators.schema import Clip
from catalogs.vocabulary.voices import AGES


class Age(Expert):
    """Judge age by the columns `age` and `age_p` that a stage with weights has filled. None for a corpus without them."""

    name = "age"
    attribute = "age"
    columns: ClassVar[tuple[str, ...]] = ("age", "age_p")

    def judge(self, clips: Sequence[Clip]) -> list[Shares | None]:
        """Return the shares of each clip: its band has `age_p`, its neighbors half of the rest each, the others nothing."""
        return [_shares(clip.row.get("age"), clip.row.get("age_p")) for clip in clips]


def _shares(band: str | None, p: float | None) -> Shares | None:
    if band not in AGES or p is None:
        return None
    place = AGES.index(band)
    beside = [AGES[near] for near in (place - 1, place + 1) if 0 <= near < len(AGES)]
    shares = dict.fromkeys(AGES, 0.0)
    shares[band] = float(p)
    for near in beside:
        shares[near] = (1 - float(p)) / len(beside)
    return shares
