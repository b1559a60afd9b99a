"""Several runs at once into one corpus, each on its share of the sessions."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.chaos_run import CheapConfig
from fakes.recordings import noise, write
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus.commit import create_corpus
from catalogs.corpus.fsck import fsck
from catalogs.corpus.locks import CorpusBusyError, Share, last_share, only_run, run_at_work
from catalogs.corpus.reader import Corpus
from pipeline.prepare import prepare
from pipeline.runs.errors import PrepareError

RUN = """
import logging, sys
from fakes.chaos_run import CheapConfig
from catalogs.corpus.locks import Share
from pipeline.prepare import prepare

logging.basicConfig(level="INFO", format="%(message)s")
config = CheapConfig(unit_s=4.0, engine={"executor": "inline"}, describe="none")
prepare([sys.argv[1]], sys.argv[2], config, share=Share.parse(sys.argv[3]))
"""


def start(sources: Path, corpus: Path, share: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(sources), str(corpus), share],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def ids(corpus: Path) -> tuple[set[str], list[str]]:
    """The segments, and the sources of all records."""
    opened = Corpus(corpus)
    segments = opened.index.column("segment_id").to_pylist()
    assert len(segments) == len(set(segments))
    return set(segments), sorted(source for record in opened.records for source in record["source_ids"])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(), unique=True), st.integers(1, 7))
def test_each_session_is_in_one_share(sessions: list[str], of: int) -> None:
    shares = [Share.parse(f"{number}/{of}") for number in range(1, of + 1)]
    for session in sessions:
        assert sum(share.holds(session) for share in shares) == 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "-1/2", "1/2/3", ""])
def test_what_is_no_share_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="a share is written as 2/4"):
        Share.parse(text)


def test_runs_that_would_do_the_same_work_refuse_each_other(tmp_path: Path) -> None:
    root = tmp_path / "c"
    create_corpus(root)
    with only_run(root, Share(1, 3)), only_run(root, Share(3, 3)):
        assert run_at_work(root)
        for share, message in (
            (Share(1, 3), "another run is at work on share 1/3"),
            (None, "shares .* are at work .1/3, 3/3."),
            (Share(2, 4), "must divide it by the same number"),
        ):
            with pytest.raises(CorpusBusyError, match=message), only_run(root, share):
                pass
        with pytest.raises(CorpusBusyError, match="wait for them"):
            fsck(root, repair=True)
        with only_run(root, Share(2, 3)), last_share(root) as last:
            assert not last
    with only_run(root), pytest.raises(CorpusBusyError, match="without --share"), only_run(root, Share(1, 3)):
        pass
    assert not run_at_work(root)
    with last_share(root) as last:
        assert last and run_at_work(root)
        with pytest.raises(CorpusBusyError, match="finish"), only_run(root):
            pass
        with only_run(root, Share(1, 2)):
            pass


def test_two_runs_at_once_give_the_ids_of_one(tmp_path: Path) -> None:
    sources = tmp_path / "in"
    for number in range(10):
        write(sources / f"{number}" / "talk.wav", noise(2.6, 16_000, seed=number), 16_000)
    (sources / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    config = CheapConfig(unit_s=4.0, engine={"executor": "inline"}, describe="none")
    prepare([str(sources)], tmp_path / "one", config)
    wanted = ids(tmp_path / "one")
    corpus = tmp_path / "two"
    runs = [start(sources, corpus, "1/2"), start(sources, corpus, "2/2"), start(sources, corpus, "2/2")]
    said = [run.communicate()[0] for run in runs]
    refused = [text for run, text in zip(runs, said, strict=True) if run.returncode]
    # The second run on share 2 was refused, unless the first was done by then.
    assert all("another run is at work on share 2/2" in text for text in refused) and len(refused) <= 1, said
    assert ids(corpus) == wanted
    assert sum("no other run is at work: duplicates, descriptions and the catalog follow" in text for text in said) >= 1
    assert (corpus / "catalog.duckdb").is_file() and not (corpus / "run.json").exists()
    done = [json.loads((corpus / f"run-{number}-of-2.json").read_text()) for number in (1, 2)]
    assert sum(run["sources"] for run in done) >= 10
    assert not fsck(corpus)
    # A run without a share finds everything done, and one with another number of shares as well.
    assert prepare([str(sources)], corpus, config).sessions == 0
    assert prepare([str(sources)], corpus, config, share=Share(2, 3)).sessions == 0


def test_a_killed_share_goes_on_and_more_sources_keep_their_shares(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    sources, corpus = tmp_path / "in", tmp_path / "corpus"
    for number in range(8):
        write(sources / f"{number}" / "talk.wav", noise(2.6, 16_000, seed=number), 16_000)
    run = start(sources, corpus, "1/2")
    while not list(corpus.glob("units/*/*.json")) and run.poll() is None:
        pass
    run.kill()
    run.wait()
    run.stdout.close()  # type: ignore[union-attr]
    for number in range(8, 12):
        write(sources / f"{number}" / "talk.wav", noise(2.6, 16_000, seed=number), 16_000)
    config = CheapConfig(unit_s=4.0, engine={"executor": "inline"}, describe="none")
    for share in (Share(1, 2), Share(2, 2)):
        prepare([str(sources)], corpus, config, share=share)
    prepare([str(sources)], tmp_path / "one", config)
    assert ids(corpus) == ids(tmp_path / "one")
    with pytest.raises(PrepareError, match="without --share"):
        prepare([str(sources)], corpus, config, redo=True, share=Share(1, 2))
    assert "share 2/2 is done, and no other run is at work" in caplog.text
