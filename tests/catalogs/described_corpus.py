"""A small corpus of four kept clips in two voices, with hand-made descriptions and checks of two annotators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from corpus_builders import make_unit

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.schema import CHECKS, DESCRIPTIONS
from catalogs.corpus.shards import to_table


def captions(english: str, chinese: str) -> list[dict[str, str]]:
    """A full caption in each language."""
    return [
        {"register": "full", "language": "en", "text": english},
        {"register": "full", "language": "zh", "text": chinese},
    ]


def described_corpus(root: Path) -> list[str]:
    """Make the corpus and return the ids of its kept clips: two of voice a, two of voice b (who speaks Chinese).

    llm@1 answered about three of them: it agrees, was repaired (male -> female), was dropped (leak), and was blocked.
    """
    create_corpus(root, name="described")
    unit = make_unit("a", 5)
    for number, row in enumerate(unit.rows):
        row |= {"speaker": "ab"[number // 2 % 2], "language": "zh" if number in (2, 3) else "en"}
        row["expressive_p"] = 0.1 + 0.2 * number
    commit_unit(root, unit)
    one, two, three, four = (row["segment_id"] for row in unit.rows if row["kept"])
    said = {"annotator": "llm@1", "model": "llm", "model_version": "llm-001", "prompt_version": "1", "status": "ok"}
    paid = {"tokens_in": 100, "tokens_out": 50, "cost_usd": 0.5, "disagreements": []}
    female = {"gender": "female", "age": "young", "pitch": "high", "rate": "unsure", "texture": ["warm", "clear"]}
    answered = {
        "attributes": {**female, "gender": "male"},
        "captions": captions("A young man speaks.", "一位年轻男性在说话。"),
    }
    rows: list[dict[str, Any]] = [
        {
            "segment_id": one,
            "verdict": "agree",
            "labels": female,
            "captions": captions("A young woman speaks.", "一位年轻女性在说话。"),
        },
        {
            "segment_id": two,
            "verdict": "repaired",
            "labels": female | {"texture": ["warm"]},
            "captions": captions("A young woman speaks.", "一位年轻女性，说话很快。"),
            "disagreements": ["gender"],
            "answered": json.dumps(answered),
        },
        {
            "segment_id": three,
            "verdict": "dropped",
            "labels": female | {"age": "unsure"},
            "captions": [],
            "disagreements": ["leak"],
            "answered": json.dumps({"attributes": female, "captions": captions("She says zebra.", "她说斑马。")}),
        },
        {"segment_id": four, "status": "blocked:SAFETY", "model_version": None},
    ]
    write(root, "llm@1", [{**said, **paid, **row} for row in rows], DESCRIPTIONS)
    claim = {"annotator": "llm@1", "action": "none", "where": "json", "state": "agree"}
    gender = {"attribute": "gender", "found": "female", "source": "gender", "p": 0.98}
    checks: list[dict[str, Any]] = [
        {"segment_id": one, **gender, "claimed": "female"},
        {"segment_id": two, **gender, "claimed": "male", "state": "contradict", "action": "value"},
        {"segment_id": three, **gender, "claimed": "female"},
        {"segment_id": one, "attribute": "age", "claimed": "young", "state": "unchecked"},
        {"segment_id": one, "where": "prose", **gender, "claimed": "female", "register": "full", "language": "en"},
        {
            "segment_id": two, "where": "prose", **gender, "claimed": "male", "state": "contradict", "action": "phrase",
            "register": "full", "language": "en",
        },
        {
            "segment_id": three, "where": "prose", "attribute": "leak", "claimed": "1 words", "state": "contradict",
            "source": "transcript", "action": "dropped", "register": "full", "language": "en",
        },
    ]  # fmt: skip
    write(root, "llm@1/checks", [claim | row for row in checks], CHECKS)
    # An older annotator without `labels` and `captions`.
    old = [
        {
            "segment_id": segment,
            "annotator": "old",
            "language": "en",
            "full": "A calm voice.",
            "brief": "calm",
            "status": "ok",
        }
        for segment in (one, two, three, four)
    ]
    write(root, "old", old, DESCRIPTIONS)
    return [one, two, three, four]


def write(root: Path, folder: str, rows: list[dict[str, Any]], schema: Any, name: str = "part") -> Path:
    """Write rows as a pass does."""
    path = root / "annotations" / folder / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(rows, schema), path)
    return path
