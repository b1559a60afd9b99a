"""A failure is not done: what is tried again, what is final, and when a run stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.chaos_run import CheapConfig
from fakes.engine_stages import TroubleConfig
from fakes.failing_site import Site
from fakes.http_files import Fate, HttpFiles

from catalogs.corpus.thresholds import Thresholds
from catalogs.query.views import query
from pipeline.prepare import prepare
from pipeline.records import Recording, Segment, Session, Source
from pipeline.runs import journal
from pipeline.runs.errors import PrepareError
from pipeline.runs.to_rows import segment_rows
from pipeline.runtime.failures import Breaker, BrokenStageError, Tally, cause_of, missing_library, trace_of
from pipeline.stage import StageError, StoreError
from voxmill.cli import main


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_the_machine_did_is_tried_again_and_leaves_the_quarantine(tmp_path: Path) -> None:
    site = Site(tmp_path, 5)
    fates = {"01.wav": "machine", "02.wav": "memory", "03.wav": "limit"}
    for name, fate in fates.items():
        site.fail(fate, name)
    first = site.run(unit_s=100.0)
    assert first.units == 1 and site.quarantine() == [(name, "machine", 1) for name in fates]
    site.mend()
    second = site.run(unit_s=100.0)
    assert (second.already_there, second.tried_again, second.sessions) == (2, 3, 3)
    assert site.quarantine() == [] and second.quarantined == []
    site.check(5)
    assert site.run().sessions == 0


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
