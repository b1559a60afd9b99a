"""A failure is not done: what is tried again, what is final, when a run stops, and what leaves the quarantine."""

from __future__ import annotations

import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes.chaos_run import CheapConfig
from fakes.engine_stages import TroubleConfig
from fakes.http_files import Fate, HttpFiles
from fakes.recordings import noise, write

from catalogs.corpus.attempts import CAUSES
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import Thresholds
from catalogs.query.views import query
from pipeline.prepare import prepare
from pipeline.records import Recording, Segment, Session, Source
from pipeline.retry import failures, retry
from pipeline.runs import journal
from pipeline.runs.errors import PrepareError
from pipeline.runs.summary import Summary, quarantine_lines
from pipeline.runs.to_rows import segment_rows
from pipeline.runtime.failures import Breaker, BrokenStageError, Tally, cause_of, missing_library, trace_of
from pipeline.stage import StageError, StoreError
from voxmill.cli import main


class Site:
    """A folder of recordings, what each of them meets, and the corpus made of them."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.sources, self.fates, self.corpus = folder / "sources", folder / "fates", folder / "corpus"
        self.fates.mkdir()
        for number in range(count):
            self.add(f"{number:02d}.wav", number)

    def add(self, name: str, seed: int) -> None:
        write(self.sources / name, noise(3.0, 16_000, seed=seed), 16_000)

    def fail(self, fate: str, *names: str) -> None:
        for name in names:
            (self.fates / name).write_text(fate)

    def mend(self) -> None:
        for note in self.fates.iterdir():
            note.unlink()

    def run(self, redo: bool = False, unit_s: float = 1.0, **engine: Any) -> Summary:
        settings: dict[str, Any] = {"executor": "inline"} | engine
        trouble = TroubleConfig(fates=str(self.fates))
        config = CheapConfig(unit_s=unit_s, engine=settings, describe="none", trouble=trouble)
        return prepare([str(self.sources)], self.corpus, config, redo)

    def quarantine(self) -> list[tuple[Any, ...]]:
        sql = "select split_part(path, '/', -1), cause, runs from quarantine order by path"
        return query(self.corpus, sql)[1]

    def check(self, recordings: int) -> None:
        """Nothing twice, everything there."""
        ids = Corpus(self.corpus).index.column("segment_id").to_pylist()
        assert len(ids) == len(set(ids)) == query(self.corpus, "select count(*) from segments")[1][0][0]
        assert query(self.corpus, "select count(*), count(distinct path) from recordings")[1] == [(recordings,) * 2]
        assert fsck(self.corpus, hashes=False) == []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("fate", ["machine", "memory", "limit"])
def test_what_the_machine_did_is_tried_again_and_leaves_the_quarantine(site: Site, fate: str) -> None:
    site.fail(fate, "01.wav")
    first = site.run(unit_s=100.0)
    assert first.units == 1 and site.quarantine() == [("01.wav", "machine", 1)]
    site.mend()
    second = site.run(unit_s=100.0)
    assert (second.already_there, second.tried_again, second.sessions) == (2, 1, 1)
    assert site.quarantine() == [] and second.quarantined == []
    site.check(3)
    assert site.run().sessions == 0


def test_a_worker_that_the_kernel_kills_costs_one_recording_which_the_next_run_takes(
    ray_node: None, tmp_path: Path
) -> None:
    site = Site(tmp_path, 3)
    site.fail("kill", "01.wav")
    first = site.run(unit_s=100.0, executor="ray")
    assert site.quarantine() == [("01.wav", "machine", 1)] and first.quarantined[0]["stage"] == "trouble"
    site.mend()
    second = site.run(unit_s=100.0, executor="ray")
    assert (second.already_there, second.tried_again) == (2, 1) and site.quarantine() == []
    site.check(3)


def test_a_server_that_fails_on_the_first_run_costs_nothing_after_the_second(site: Site, tmp_path: Path) -> None:
    for number in range(3, 5):
        site.add(f"{number:02d}.wav", number)
    trouble = TroubleConfig(fates=str(site.fates))
    stores = {"store_timeout_s": 0.5, "store_tries": 1}
    config = CheapConfig(unit_s=1000.0, engine={"executor": "inline"}, describe="none", trouble=trouble, decode=stores)
    fates: dict[str, Fate] = {"00.wav": "500", "01.wav": "hang", "03.wav": "half"}
    with HttpFiles(site.sources) as server:
        for name, fate in fates.items():
            server.fail(name, fate, methods=("GET",))
        first = prepare([server.url + "/"], site.corpus, config)
        assert {Path(row["path"]).name for row in first.quarantined} == set(fates)
        assert [row[:2] for row in site.quarantine()] == [(name, "machine") for name in sorted(fates)]
        server.mend()
        server.forget()
        second = prepare([server.url + "/"], site.corpus, config)
        asked = {
            request.path for request in server.requests if request.method == "GET" and request.path.endswith("wav")
        }
    assert (second.tried_again, second.already_there) == (3, 2) and asked == set(fates)
    assert site.quarantine() == [] and second.quarantined == []
    site.check(5)


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


def test_a_segment_that_a_stage_failed_on_keeps_its_audio() -> None:
    source = Source("x", "/x.wav", "x.wav", "s", 1, "0" * 64)
    one = Session("s", "fp", "", [Recording(source, 2.0, 16_000)])
    one.segments = [Segment("x", 0, 0.0, 1.0, failures=["failed_transcribe"], flac=b"fLaC", flac_rate=16_000)]
    (row,) = segment_rows(one, Thresholds(require_text=False))
    assert (row["reasons"], row["kept"]) == (["failed_transcribe"], False) and row["audio"]["bytes"] == b"fLaC"
    assert list(one.alive()) == []


def test_what_the_machine_did_is_tried_so_often_and_then_left(site: Site) -> None:
    site.fail("machine", "01.wav")
    tried = [site.run(attempts=3).tried_again for _ in range(4)]
    assert tried == [0, 1, 1, 0] and site.quarantine() == [("01.wav", "machine", 3)]
    site.mend()
    assert site.run(attempts=4).tried_again == 1 and site.quarantine() == []
    site.check(3)


def test_a_bad_recording_is_final(site: Site) -> None:
    site.fail("data", "01.wav")
    site.run()
    site.mend()
    assert site.run().tried_again == 0 and site.quarantine() == [("01.wav", "data", 1)]


def test_a_bug_keeps_its_traceback_and_is_tried_again_by_other_code(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fail("bug", "01.wav")
    site.run()
    ((log,),) = query(site.corpus, "select log from quarantine")[1]
    text = (site.corpus / log).read_text()
    assert "AttributeError: no such thing" in text and "meet_fate" in text and "01.wav" in text
    site.mend()
    assert site.run().tried_again == 0
    monkeypatch.setattr(journal, "code_version", lambda: "9.9.9")
    assert site.run().tried_again == 1 and site.quarantine() == []
    site.check(3)


@pytest.mark.parametrize("unit_s", [1.0, 1000.0])
def test_a_stage_that_fails_on_everything_stops_the_run_and_after_the_mend_all_is_done(
    tmp_path: Path, unit_s: float
) -> None:
    site = Site(tmp_path, 24)
    names = [f"{number:02d}.wav" for number in range(24)]
    site.fail("bug", *names)
    with pytest.raises(
        PrepareError, match=r"trouble failed on 20 items in a row with AttributeError: no such thing"
    ) as stop:
        site.run(unit_s=unit_s)
    assert len(str(stop.value).splitlines()) == 1
    assert query(site.corpus, "select count(*) from recordings")[1] == [(0,)], "nothing of these is done"
    assert any("AttributeError" in log.read_text() for log in (site.corpus / "logs").iterdir())
    site.mend()
    assert site.run(unit_s=unit_s).sessions == 24 and site.quarantine() == []
    site.check(24)


def test_the_command_ends_with_status_one_and_one_line_where_a_stage_fails_on_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, 20)
    site.fail("bug", *(f"{number:02d}.wav" for number in range(20)))
    trouble = TroubleConfig(fates=str(site.fates))
    config = CheapConfig(engine={"executor": "inline"}, describe="none", trouble=trouble)
    monkeypatch.setattr("pipeline.config.load_config", lambda *settings: config)
    monkeypatch.setattr("sys.argv", ["voxmill", "prepare", str(site.sources), "--out", str(site.corpus)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("voxmill: ") or "Traceback" in line]
    assert stop.value.code == 1 and len(said) == 1
    assert "trouble failed on 20 items in a row with AttributeError" in said[0]


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


def test_broken_files_in_a_row_do_not_stop_a_run(tmp_path: Path) -> None:
    site = Site(tmp_path, 21)
    site.fail("data", *(f"{number:02d}.wav" for number in range(21)))
    assert len(site.run().quarantined) == 21


def test_failures_that_a_success_follows_are_committed_in_the_same_run(site: Site) -> None:
    site.fail("bug", "00.wav", "01.wav")
    assert site.run().units == 3 and len(site.quarantine()) == 2


def test_a_missing_library_stops_the_run_with_the_extra_that_brings_it(site: Site) -> None:
    site.fail("library", "00.wav", "01.wav", "02.wav")
    with pytest.raises(PrepareError, match=r"demucs .*pip install 'voxmill\[separate\]'"):
        site.run()
    assert site.quarantine() == []


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


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (StageError("bad"), "data"),
        (StoreError("503"), "machine"),
        (TimeoutError(), "machine"),
        (ConnectionResetError(), "machine"),
        (OSError("cannot be fetched"), "machine"),
        (MemoryError(), "machine"),
        (RuntimeError("CUDA out of memory"), "machine"),
        (RuntimeError("shapes differ"), "bug"),
        (KeyError("x"), "bug"),
    ],
)
def test_causes_of_exceptions(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


def test_a_missing_library_is_found_in_the_words_of_fsspec() -> None:
    assert "voxmill[s3]" in str(missing_library(ImportError("Install s3fs to access S3")))


def test_a_traceback_has_no_secrets() -> None:
    try:
        raise ValueError("https://me:word@host/a.wav?X-Signature=abc123 failed")
    except ValueError as error:
        text = trace_of(error)
    line = next(line for line in text.splitlines() if line.startswith("ValueError"))
    assert "word" not in line and "abc123" not in line and "host/a.wav" in line


def test_failures_are_counted_over_workers_and_ended_by_a_success() -> None:
    breaker = Breaker()
    for _ in range(2):
        breaker.add({"trouble": Tally([("KeyError", 9)])})
    assert breaker.doubts([("trouble", "KeyError")]) and not breaker.doubts([("trouble", "ValueError")])
    breaker.add({"trouble": Tally([("", 1), ("KeyError", 3)])})
    with pytest.raises(BrokenStageError, match="trouble failed on 20 items"):
        for _ in range(17):
            breaker.lost("trouble", "KeyError", "KeyError: x")
    breaker = Breaker()
    for kind in ("KeyError", "", "ValueError", ""):
        breaker.add({"trouble": Tally([(kind, 19)])})
    assert not breaker.doubts([("trouble", "KeyError"), ("trouble", "ValueError")])
