"""Workers write a unit from the contents of its sessions; the driver gets no audio and links the record."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fakes.forked_engine import FINGERPRINT, clip, process, sources

from catalogs.corpus.commit import UnitContent, UnitPart, commit_unit, committed_units, create_corpus, link_unit
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import Thresholds
from pipeline.records import Recording, Session, TimedText
from pipeline.runs.output import CorpusOutput, SessionContent

UNIT = UnitContent("ab" * 8, FINGERPRINT, ["s000", "s001"], (), ())


def contents(root: Path) -> list[SessionContent]:
    output = CorpusOutput(root, Thresholds(require_text=False))
    found = []
    for name in UNIT.sessions:
        recordings = [
            Recording(replace(source, text="long " * 5000, spans=(TimedText(0.0, 4.0, "long " * 5000),)))
            for source in sources(4)
            if source.session_id == name
        ]
        spool = root / "tmp" / name
        spool.mkdir(parents=True)
        done, content = output.split(process(Session(name, FINGERPRINT, str(spool), recordings)))
        assert (done.counts.segments, done.counts.speech_s) == (4, 4.0)
        assert sum(done.counts.reasons.values()) >= 4 - done.counts.kept
        assert [recording.duration_s for recording in done.session.recordings] == [4.0, 4.0]
        assert clip()[:500] not in pickle.dumps(done) and len(pickle.dumps(done)) < 5000
        found.append(content)
    return found


def test_a_unit_of_several_sessions_is_the_same_from_parts_and_visible_with_its_record(tmp_path: Path) -> None:
    root, whole = tmp_path / "parts", tmp_path / "whole"
    create_corpus(root)
    create_corpus(whole)
    parts = contents(root)
    asleep = list(parts)

    def one_at_a_time() -> Iterator[SessionContent]:
        while asleep:
            yield asleep.pop(0)

    record = CorpusOutput(root, Thresholds()).write(UNIT, one_at_a_time())
    assert not committed_units(root) and not list((root / "tmp").iterdir()), "spools are removed"
    assert record["segments"] == 8 and record["seconds"] == 16.0
    linked = link_unit(root, record)
    assert committed_units(root) == {UNIT.unit_id} and fsck(root) == []

    rows = [row for content in parts for row in content.part.rows]
    recordings = [row for content in parts for row in content.part.recordings]
    same = commit_unit(whole, replace(UNIT, rows=rows, recordings=recordings))
    assert same["files"] == linked["files"], "content decides the names and the digests"
    assert Corpus(root).index.equals(Corpus(whole).index)


def test_the_first_record_wins_and_the_files_of_the_other_go(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    output = CorpusOutput(tmp_path, Thresholds())
    parts = contents(tmp_path)
    first = output.write(UNIT, iter(parts))
    fewer = [replace(content, part=UnitPart(content.part.rows[:3], content.part.recordings)) for content in parts]
    second = output.write(UNIT, iter(fewer))
    assert link_unit(tmp_path, first)["segments"] == 8
    assert link_unit(tmp_path, second)["segments"] == 8
    assert fsck(tmp_path) == [] and len(Corpus(tmp_path)) == 8
    assert output.write(UNIT, iter(fewer))["segments"] == 8, "a committed unit is not written again"
    assert fsck(tmp_path) == []
