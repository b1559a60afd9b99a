"""The Python snippets of docs/corpus.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from corpus_builders import make_unit

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.reader import Corpus
from catalogs.query.views import build_catalog

PAGE = Path(__file__).parents[2] / "docs" / "corpus.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs_as_pasted(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "datasets" in snippet:
        pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf" / "datasets"))
    monkeypatch.chdir(tmp_path)
    create_corpus("corpus")
    unit = make_unit("a", 6)
    for number, row in enumerate(unit.rows):
        row["snr_db"] = 5.0 if number == 0 else 40.0
    commit_unit("corpus", unit)
    build_catalog("corpus")
    found: dict[str, Any] = {}
    exec(snippet, found)
    if "clips" in found:
        kept = Corpus("corpus").kept()["segment_id"].to_pylist()
        clips = found["clips"]
        assert sorted(clips["segment_id"]) == sorted(kept) and len(kept) == 4 and clips[0]["audio"]["bytes"]
    elif "rows" in found:
        assert sorted(found["rows"]["segment_id"]) == sorted(row["segment_id"] for row in unit.rows)
    else:
        assert found["rate"] > 0 and len(found["samples"])
