"""Which of several descriptions of a segment counts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_builders import FINGERPRINT

from catalogs.corpus.commit import bind_fingerprint, create_corpus
from catalogs.corpus.reader import annotation_files
from catalogs.corpus.schema import DESCRIPTIONS


def test_the_offline_annotator_comes_first_and_numbers_count_by_value(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    bind_fingerprint(tmp_path, FINGERPRINT)
    names = ["aardvark", "gemini@10", "gemini@2", "acoustic", "gemini@2-vote2", "chat@1"]
    for name in names:
        file = tmp_path / "annotations" / name / "aa" / "aa00.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([], schema=DESCRIPTIONS), file)
    found = annotation_files(tmp_path, "descriptions")["descriptions"]
    order = ["acoustic", "aardvark", "chat@1", "gemini@2", "gemini@2-vote2", "gemini@10"]
    assert [path.parent.parent.name for path in found] == order
