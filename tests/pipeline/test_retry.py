"""`retry` processes what earlier runs gave up, and nothing else."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.chaos_run import CheapConfig
from fakes.engine_stages import TroubleConfig
from fakes.failing_site import Site
from fakes.recordings import noise, write

from catalogs.corpus.attempts import CAUSES
from pipeline.prepare import prepare
from pipeline.retry import failures, retry
from pipeline.runs.errors import PrepareError
from voxmill.cli import main


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_retry_takes_what_was_given_up_and_nothing_else(site: Site) -> None:
    site.fail("bug", "00.wav")
    site.fail("data", "01.wav")
    site.run()
    assert len(failures(site.corpus)) == 1 and len(failures(site.corpus, causes=CAUSES)) == 2
    assert failures(site.corpus, "trouble", ["machine"]) == {}
    with pytest.raises(PrepareError, match="nothing failed in a stage decode; failures are in: trouble"):
        failures(site.corpus, "decode")
    with pytest.raises(PrepareError, match="no cause magic"):
        failures(site.corpus, causes=["magic"])
    site.mend()
    config = CheapConfig(engine={"executor": "inline"}, trouble=TroubleConfig(fates=str(site.fates)))
    assert retry(site.corpus, config).tried_again == 1
    assert site.quarantine() == [("01.wav", "data", 1)]
    assert retry(site.corpus, config, causes=CAUSES).tried_again == 1 and site.quarantine() == []
    site.check(3)


def test_retry_takes_the_sources_of_every_run_and_says_what_is_gone(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    site.fail("bug", "00.wav", "09.wav")
    site.run()
    more = tmp_path / "more"
    write(more / "09.wav", noise(3.0, 16_000, seed=9), 16_000)
    config = CheapConfig(engine={"executor": "inline"}, trouble=TroubleConfig(fates=str(site.fates)))
    prepare([str(more)], site.corpus, config)
    site.mend()
    (site.sources / "00.wav").unlink()
    assert retry(site.corpus, config).tried_again == 1
    assert "1 failed recording is not found any more: " in caplog.text
    assert [row[0] for row in site.quarantine()] == ["00.wav"]


def test_retry_takes_files_that_were_refused_where_they_are_asked_for(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A link that led nowhere and a tar that could not be opened: both of stage `sources`, both the recording's fault."""
    link, packed = site.sources / "link.wav", site.sources / "pack.tar"
    link.symlink_to(site.sources.parent / "later.wav")
    packed.write_bytes(b"not a tar")
    site.run()
    refused = [str(link), str(packed)]
    assert failures(site.corpus) == {} and sorted(failures(site.corpus, "sources", ["data"])) == refused
    with pytest.raises(PrepareError, match="nothing failed in a stage trouble; failures are in: sources"):
        failures(site.corpus, "trouble")
    command = ["voxmill", "retry", str(site.corpus), "--stage", "sources", "--cause", "data", "--dry-run"]
    monkeypatch.setattr("sys.argv", command)
    capfd.readouterr()
    with suppress(SystemExit):
        main()
    said = capfd.readouterr()
    lines = (said.out + said.err).splitlines()
    assert lines[0] == "2 files that were refused before any stage (data): processed now if they can be read"
    assert {line.split(" (sources: ")[0].strip() for line in lines[1:]} == set(refused)
    write(site.sources.parent / "later.wav", noise(3.0, 16_000, seed=8), 16_000)
    write(site.sources.parent / "packed.wav", noise(3.0, 16_000, seed=9), 16_000)
    with tarfile.open(packed, "w") as tar:
        tar.add(site.sources.parent / "packed.wav", "packed.wav")
    config = CheapConfig(engine={"executor": "inline"}, trouble=TroubleConfig(fates=str(site.fates)))
    assert retry(site.corpus, config).sessions == 0 and len(site.quarantine()) == 2, "not asked for, not lost"
    assert retry(site.corpus, config, "sources", ["data"]).sessions == 2 and site.quarantine() == []
    site.check(5)


def test_retry_processes_what_lies_in_the_place_of_a_broken_file(site: Site) -> None:
    (site.sources / "00.wav").write_bytes(b"RIFF plain words")
    site.run()
    write(site.sources / "00.wav", noise(3.0, 16_000, seed=9), 16_000)
    config = CheapConfig(engine={"executor": "inline"}, trouble=TroubleConfig(fates=str(site.fates)))
    assert retry(site.corpus, config).sessions == 0 and len(site.quarantine()) == 1
    assert retry(site.corpus, config, causes=CAUSES).sessions == 1 and site.quarantine() == []
    assert site.run().sessions == 0
