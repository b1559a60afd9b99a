"""A pass holds one unit of a corpus, however many units there are; quantiles of all of it are exact all the same."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpus_builders import make_unit
from hypothesis import given, settings
from hypothesis import strategies as st

import catalogs.corpus.reader
from annotators.providers.acoustic import Acoustic
from annotators.runner import describe_corpus
from annotators.schema import Answer, Clip, KeptRows
from annotators.words.quantiles import group_quantiles
from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.reader import Corpus


def corpus_of(root: Path, units: int, segments: int) -> Path:
    """A corpus of many segments that are all kept; none has audio that can be decoded."""
    create_corpus(root, name="long")
    for number in range(units):
        unit = make_unit(f"u{number}", 1)
        rows = [
            unit.rows[0] | {"segment_id": f"{number:08x}{row:08x}", "audio": b"fLaC", "pitch_hz": 90.0 + row}
            for row in range(segments)
        ]
        commit_unit(root, dataclasses.replace(unit, rows=rows))
    return root


def test_units_are_read_when_it_is_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = corpus_of(tmp_path / "c", 6, 2)
    monkeypatch.setattr(catalogs.corpus.reader, "_PART_ROWS", 1)
    read: list[Path] = []
    read_rows = catalogs.corpus.reader.read_rows

    def counted(path: Path, schema: pa.Schema) -> pa.Table:
        read.append(path)
        return read_rows(path, schema)

    monkeypatch.setattr(catalogs.corpus.reader, "read_rows", counted)

    class Reader(Acoustic):
        seen: tuple[int, ...] = ()

        def prepare(self, kept: KeptRows) -> None:
            pass

        def describe(self, clips: Sequence[Clip]) -> list[Answer]:
            self.seen += (len(read),)
            return super().describe(clips)

    describer = Reader()
    assert describe_corpus(root, describer).described == 12
    assert describer.seen == (1, 2, 3, 4, 5, 6)


def test_the_rows_of_a_corpus_are_never_in_memory_together(tmp_path: Path) -> None:
    describe_corpus(corpus_of(tmp_path / "first", 1, 1))  # what is loaded once does not count
    root = corpus_of(tmp_path / "c", 12, 25)

    def peak(work: Any) -> int:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    everything = peak(lambda: Corpus(root).kept().to_pylist())
    assert peak(lambda: describe_corpus(root)) < everything / 2
    assert describe_corpus(root).already == 300


def test_small_units_are_read_together_and_described_apart(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", 3, 2)
    parts = list(Corpus(root).kept_parts())
    assert [part.num_rows for part in parts] == [6] and parts[0].equals(Corpus(root).kept())
    narrow = list(Corpus(root).kept_parts(["pitch_hz", "segment_id"]))
    assert narrow[0].equals(parts[0].select(["pitch_hz", "segment_id"]))
    describe_corpus(root)
    assert len(list((root / "annotations" / "acoustic").rglob("*.parquet"))) == 3


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.one_of(numbers, st.sampled_from([0.0, -0.0, 1.0, 100.0])))))
def test_quantiles_are_those_of_all_values_together(pairs: list[tuple[str, float]]) -> None:
    def pieces() -> Iterator[tuple[str, np.ndarray]]:
        for group, value in pairs:
            yield group, np.array([value], dtype=np.float32)
            yield group, np.zeros(0, dtype=np.float32)

    levels = (0.0, 0.25, 0.5, 0.9, 1.0)
    found = group_quantiles(pieces, levels, fewest=3)
    for group in "ab":
        values = [value for name, value in pairs if name == group]
        assert (group in found) == (len(values) >= 3)
        if group in found:
            assert found[group] == np.quantile(values, levels).tolist()


def test_quantiles_of_many_values_in_large_pieces() -> None:
    """As pitch and level lie: most values share their upper bits with others."""
    rng = np.random.default_rng(5)
    pitch, level = rng.uniform(80, 300, 50_000).astype(np.float32), rng.normal(-23, 4, 50_000).astype(np.float32)

    def pieces() -> Iterator[tuple[str, np.ndarray]]:
        for start in range(0, 50_000, 7_000):
            yield "pitch", pitch[start : start + 7_000]
            yield "level", level[start : start + 7_000]

    found = group_quantiles(pieces, (0.25, 0.75), fewest=8)
    for name, values in (("pitch", pitch), ("level", level)):
        assert found[name] == np.quantile(values.astype(np.float64), (0.25, 0.75)).tolist()


def test_every_clip_counts_once_for_what_is_ordinary() -> None:
    """Seven clips are too few to say what is loud among them: -12 LUFS is loud by what is ordinary, -30 is soft."""
    levels = [-30.0, -29.0, -28.5, -20.0, -19.0, -18.5, -12.0]
    rows = [{"segment_id": f"{n}", "loudness_lufs": level} for n, level in enumerate(levels)]
    describer = Acoustic()
    schema = pa.schema([("loudness_lufs", pa.float32())])
    others = {
        name: pa.nulls(7, pa.float32()) for name in ("pitch_hz", "rate_sps", "pitch_range_st", "gender_p", "effort_db")
    }
    table = pa.table({**others, **dict.fromkeys(("gender", "language"), pa.nulls(7, pa.string()))})
    table = table.append_column("loudness_lufs", pa.Table.from_pylist(rows, schema=schema).column(0))
    describer.prepare(lambda columns: iter([table.select(list(columns))]))
    said = [answer.description for answer in describer.describe([Clip(row) for row in rows])]
    energy = [description.attributes.energy for description in said if description is not None]
    assert energy == ["soft", "soft", "soft", "normal", "normal", "normal", "loud"]
