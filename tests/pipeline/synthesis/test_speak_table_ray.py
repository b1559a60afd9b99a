"""`speak --table` over Ray: the same table and files as in one process."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.synthesis.table.folder import TABLE_FILE
from pipeline.synthesis.table.settings import load_speak_settings
from pipeline.synthesis.table.speak_table import speak_table


def test_workers_speak_what_one_process_speaks(ray_node: None, golden: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("text,id\nHi,a\nHo,b\n ,c\nHa,d\nHe,e\n", encoding="utf-8")
    found = {}
    for executor in ("ray", "inline"):
        words = ["generate.steps=1", "generate.device=cpu", "retry=1", "unit=2", "engine.actors={generate_speech: 1}"]
        settings = load_speak_settings(None, [*words, f"engine.executor={executor}"])
        summary = speak_table(table, golden / "checkpoint", tmp_path / executor, settings=settings)
        assert (summary.spoken, summary.failed) == (4, {"empty_text": 1})
        rows = pq.read_table(tmp_path / executor / TABLE_FILE).to_pylist()
        found[executor] = (
            rows,
            {row["id"]: (tmp_path / executor / row["audio"]).read_bytes() for row in rows if row["audio"]},
        )
        assert {path.name for path in (tmp_path / executor).iterdir()} == {".lock", "audio", "speak.json", TABLE_FILE}
    assert found["ray"] == found["inline"]
