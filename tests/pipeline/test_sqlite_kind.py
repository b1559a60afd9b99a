"""Recordings in a SQLite table are found and copied as those in an archive are."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fakes.recordings import noise, write

from pipeline.inputs.find import find_sources
from pipeline.inputs.spool import Spool


def test_a_table_of_recordings_is_a_source(tmp_path: Path) -> None:
    wavs = [write(tmp_path / "wavs" / f"{n}.wav", noise(0.5, 16_000, seed=n), 16_000) for n in range(3)]
    folder = tmp_path / "in"
    folder.mkdir()
    with sqlite3.connect(folder / "all.sqlite") as database:
        database.execute("CREATE TABLE recordings (name TEXT, audio BLOB)")
        rows = [(f"talks/{wav.name}", wav.read_bytes()) for wav in wavs]
        database.executemany("INSERT INTO recordings VALUES (?, ?)", rows)
    database.close()
    sources = find_sources([str(folder)]).sources
    assert [source.relative_path for source in sources] == [f"all.sqlite/talks/{n}.wav" for n in range(3)]
    spool = Spool(tmp_path / "spool", sources)
    assert [spool.fetch(source).read_bytes() for source in sources] == [wav.read_bytes() for wav in wavs]
