"""A run over a corpus that exists: what leaves the quarantine, what is counted as gone, what `redo` does again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.chaos_run import CheapConfig
from fakes.engine_stages import TroubleConfig
from fakes.failing_site import Site
from fakes.recordings import noise, write

from catalogs.corpus.reader import Corpus
from catalogs.query.views import query
from pipeline.prepare import prepare
from pipeline.runs.errors import PrepareError
from pipeline.runs.summary import quarantine_lines


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_refused_file_that_was_mended_leaves_the_quarantine(site: Site) -> None:
    link = site.sources / "link.wav"
    link.symlink_to(site.sources.parent / "later.wav")
    assert [row["stage"] for row in site.run().quarantined] == ["sources"]
    assert [row[0] for row in site.quarantine()] == ["link.wav"]
    write(site.sources.parent / "later.wav", noise(3.0, 16_000, seed=9), 16_000)
    site.run()
    assert site.quarantine() == []
    site.check(4)


def test_a_refused_file_that_is_gone_leaves_the_quarantine_of_a_run_that_looked(site: Site, tmp_path: Path) -> None:
    link = site.sources / "link.wav"
    link.symlink_to(site.sources.parent / "never.wav")
    site.run()
    link.unlink()
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Site(tmp_path / "elsewhere", 1)
    elsewhere.corpus = site.corpus
    elsewhere.run()
    assert len(site.quarantine()) == 1, "that run has not looked there"
    site.run()
    assert site.quarantine() == []


def test_a_broken_file_that_was_replaced_leaves_the_quarantine(site: Site) -> None:
    good = (site.sources / "00.wav").read_bytes()
    (site.sources / "00.wav").write_bytes(b"RIFF plain words")
    site.run()
    assert [row[:2] for row in site.quarantine()] == [("00.wav", "data")]
    (site.sources / "00.wav").write_bytes(good)
    site.run()
    assert site.quarantine() == []
    (site.sources / "00.wav").write_bytes(b"RIFF plain words")
    site.run()
    assert [row[:2] for row in site.quarantine()] == [("00.wav", "data")]


def test_the_last_lines_tell_of_the_quarantine_once_for_each_stage_and_cause(site: Site) -> None:
    site.fail("data", "00.wav", "01.wav")
    site.fail("bug", "02.wav")
    lines = quarantine_lines(site.run())
    assert len(lines) == 4 and "trouble (data): 2 items, e.g. " in "\n".join(lines)
    assert lines[-1].startswith("3 quarantined; list them with: voxmill query ")
    rows = query(site.corpus, lines[-1].partition('"')[2].rstrip('"'))[1]
    assert len(rows) == 3


def test_recordings_that_are_gone_are_counted_where_the_same_sources_are_given(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    site.run()
    site.run()
    assert "any more" not in caplog.text
    (site.sources / "00.wav").unlink()
    site.run()
    assert "1 recording of the corpus is not among the sources any more; it stays" in caplog.messages
    (site.sources / "01.wav").unlink()
    site.run()
    assert "2 recordings of the corpus are not among the sources any more; they stay" in caplog.messages
    more = tmp_path / "more"
    write(more / "09.wav", noise(3.0, 16_000, seed=9), 16_000)
    config = CheapConfig(
        unit_s=1.0, engine={"executor": "inline"}, describe="none", trouble=TroubleConfig(fates=str(site.fates))
    )
    caplog.clear()
    prepare([str(more)], site.corpus, config)
    site.run()
    assert "any more" not in caplog.text, "the sources of the other run were not given"
    prepare([str(more), str(site.sources)], site.corpus, config)
    assert "2 recordings of the corpus are not" in caplog.text
    site.check(4)


def test_redo_with_the_same_settings_does_everything_again(site: Site) -> None:
    site.run()
    before = set(Corpus(site.corpus).index.column("segment_id").to_pylist())
    again = site.run(redo=True)
    assert again.sessions == 3 and again.tried_again == 3
    assert set(Corpus(site.corpus).index.column("segment_id").to_pylist()) == before
    site.check(3)
    assert site.run().sessions == 0 and site.run(redo=True).sessions == 3


def test_a_killed_redo_goes_on_where_it_stopped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    site.fail("library", "02.wav")
    with pytest.raises(PrepareError):
        site.run(redo=True)
    site.mend()
    done = json.loads((site.corpus / "run.json").read_text())["sessions"]
    assert done == 3, "of the first run: the killed one did not get to its end"
    left = site.run(redo=True)
    assert 1 <= left.sessions <= 3
    site.check(3)
    assert site.run(redo=True).sessions == 3
