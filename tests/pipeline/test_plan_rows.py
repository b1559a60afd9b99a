"""What is planned, and what becomes of a session in the corpus."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fakes.recordings import noise, write
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.runs.plan as plan_module
from catalogs.corpus.schema import INDEX, RECORDINGS, SEGMENTS
from catalogs.corpus.thresholds import Thresholds
from pipeline.audio.open import probe_seconds
from pipeline.inputs.find import find_sources
from pipeline.records import Quarantined, Recording, Reference, Segment, Session, Source, Word
from pipeline.runs.plan import (
    PlannedSession,
    PlannedUnit,
    mixed,
    plan_units,
    promised_seconds,
    split_session,
    unit_seconds,
)
from pipeline.runs.sources import by_session
from pipeline.runs.to_rows import quarantine_rows, recording_rows, reference_rows, segment_rows
from pipeline.stages.decode import Decode, DecodeConfig


def planned(
    found: Iterable[Source],
    done: set[str],
    unit_s: float,
    seconds_of: Callable[[Source], float],
    session_s: float = math.inf,
    generations: dict[str, int] | None = None,
) -> list[PlannedUnit]:
    sessions = by_session(found)
    members = [(name, part, [seconds_of(item) for item in part]) for name, part in sessions]
    names = [name for name, _ in sessions]
    return list(plan_units(members, done, "f" * 16, unit_s, session_s, (generations or {}).get, names))


def source(name: str, session: str) -> Source:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Source(digest[:16], f"/in/{name}", name, session, 100, digest)


sources = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("abcde")), max_size=30, unique_by=lambda pair: pair[0]
).map(lambda pairs: [source(f"{session}/{number:02}.wav", session) for number, session in pairs])


@settings(max_examples=100, deadline=None)
@given(sources, st.sets(st.integers(0, 29)), st.floats(1, 200), st.randoms(use_true_random=False))
def test_every_open_source_is_planned_once_with_its_session_whole(
    found: list[Source], done: set[int], unit_s: float, random: object
) -> None:
    committed = {item.source_id for number, item in enumerate(found) if number in done}
    seconds = {item.source_id: 1.0 + int(item.content_sha256[:2], 16) for item in found}

    def plan(items: list[Source]) -> list[PlannedUnit]:
        return planned(items, committed, unit_s, lambda item: seconds[item.source_id])

    units = plan(found)
    listed = [item for unit in units for session in unit.sessions for item in session.sources]
    assert sorted(item.source_id for item in listed) == sorted({s.source_id for s in found} - committed)
    names = [session.session_id for unit in units for session in unit.sessions]
    assert len(names) == len(set(names))
    assert len({unit.unit_id for unit in units}) == len(units)
    assert sum(unit.seconds < unit_s for unit in units) <= 1
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(shuffled) == units


def in_order(found: list[Source], done: set[str], session_s: float) -> dict[str, list[PlannedSession]]:
    """The planned parts of each session by its name, in order of their numbers."""
    units = planned(found, done, 1.0, seconds_of, session_s)
    parts = sorted((part for unit in units for part in unit.sessions), key=lambda part: part_number(part.session_id))
    return {name: [p for p in parts if p.sources[0].session_id == name] for name in {s.session_id for s in found}}


def part_number(name: str) -> int:
    return int(name.rstrip("#").rpartition("#")[2]) if "#" in name else 1


def seconds_of(item: Source) -> float:
    return float(int(item.content_sha256[:2], 16))


@settings(max_examples=200, deadline=None)
@given(sources, st.floats(1, 600))
def test_a_long_session_is_planned_in_parts(found: list[Source], session_s: float) -> None:
    names = []
    for session_id, parts in in_order(found, set(), session_s).items():
        wanted = sorted((item for item in found if item.session_id == session_id), key=lambda item: item.relative_path)
        assert [item for part in parts for item in part.sources] == wanted
        for part in parts:
            assert part.seconds == sum(map(seconds_of, part.sources))
            assert part.seconds <= session_s or len(part.sources) == 1
        # No part is smaller than it need be: the next recording would not have fitted.
        for part, after in itertools.pairwise(parts):
            assert part.seconds + seconds_of(after.sources[0]) > session_s
        assert parts[0].session_id == session_id
        names += [part.session_id for part in parts]
    assert len(names) == len(set(names))


def test_a_part_may_be_as_long_as_the_limit() -> None:
    found = [source(f"a/{number}.wav", "a") for number in range(4)]
    assert split_session(found, lambda _: 5.0, 10.0) == [found[:2], found[2:]]


@settings(max_examples=100, deadline=None)
@given(sources, st.floats(1, 600), st.data())
def test_a_run_that_was_broken_off_goes_on_with_the_same_parts(
    found: list[Source], session_s: float, data: st.DataObject
) -> None:
    whole = [part for parts in in_order(found, set(), session_s).values() for part in parts]
    done = data.draw(st.sets(st.sampled_from(whole))) if whole else set()
    committed = {item.source_id for part in done for item in part.sources}
    left = [part for parts in in_order(found, committed, session_s).values() for part in parts]
    assert {part.session_id: part.sources for part in left} == {
        part.session_id: part.sources for part in whole if part not in done
    }


@settings(max_examples=50, deadline=None)
@given(sources)
def test_sessions_below_the_cap_are_planned_as_if_there_were_none(found: list[Source]) -> None:
    assert planned(found, set(), 100.0, seconds_of, 31 * 255.0) == planned(found, set(), 100.0, seconds_of, math.inf)


def test_a_unit_is_full_at_its_length() -> None:
    found = [source(f"{name}.wav", name) for name in "abcd"]
    units = planned(found, set(), 20.0, lambda item: 10.0)
    assert sorted(unit.seconds for unit in units) == [20.0, 20.0]
    assert {unit.generation for unit in units} == {PlannedUnit("0" * 16, ()).generation} == {0}


def test_a_source_that_is_processed_again_makes_another_unit() -> None:
    found = [source("a.wav", "s"), source("b.wav", "s")]
    once, again, thrice = (
        planned(found, set(), 1.0, seconds_of, generations=generations)
        for generations in (None, {found[0].source_id: 0}, {found[0].source_id: 4, found[1].source_id: 1})
    )
    assert [unit.generation for (unit,) in (once, again, thrice)] == [0, 1, 5]
    assert len({unit.unit_id for (unit,) in (once, again, thrice)}) == 3
    assert planned(found, set(), 1.0, seconds_of, generations={"another": 3}) == once


def test_a_file_s_own_header_promises_its_length(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", noise(4.0, 16_000, seed=0), 16_000)
    here = dataclasses.replace(source("x.wav", "s"), path=str(tmp_path / "x.wav"))
    assert promised_seconds(here) == pytest.approx(4.0)


def test_a_part_takes_no_name_that_another_session_has() -> None:
    found = [source(f"talks/{i}.wav", "talks") for i in range(3)] + [source("talks#2/x.wav", "talks#2")]
    units = planned(found, set(), 1.0, lambda item: 10.0, 10.0)
    names = sorted(part.session_id for unit in units for part in unit.sessions)
    assert names == ["talks", "talks#2", "talks#2#", "talks#3"]


def test_what_a_part_decodes_to_stays_below_the_cap(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path / "in" / "talks" / f"{i}.wav", noise(4.0, 16_000, seed=i), 16_000)
    found = find_sources([str(tmp_path / "in")]).sources
    units = planned(found, set(), 1.0, promised_seconds, 10.0)
    parts = [part.start("f" * 16, str(tmp_path / "spool")) for unit in units for part in unit.sessions]
    assert sorted(len(part.recordings) for part in parts) == [2, 2, 2]
    assert len({part.spool for part in parts}) == 3
    for part in parts:
        Decode(DecodeConfig())(part)
        assert sum(len(window.pcm) for window in part.windows) == 8 * 16_000


def test_a_compressed_file_that_is_still_to_be_fetched_is_taken_for_longer() -> None:
    far = dataclasses.replace(source("x.wav", "s"), path="s3://b/x.wav", bytes=3_200_000)
    assert promised_seconds(far) == 100.0
    assert promised_seconds(dataclasses.replace(far, relative_path="x.MP3")) == 400.0


def session() -> Session:
    recording = Recording(source("a/talk.wav", "a"), 10.0, 44_100, 2, "wav/pcm_16", silence_s=1.0)
    lost = Recording(source("a/lost.wav", "a"), 4.0, 8_000, 1, "wav/ulaw", status="quarantined")
    kept = Segment(
        recording.source.source_id,
        0,
        0.0,
        4.0,
        segment_id="k" * 16,
        language="en",
        language_p=0.99,
        text="good evening everyone",
        text_source="asr",
        words=[Word("good", 0.1, 0.3, 0.9)],
        asr_logprob=-0.2,
        no_speech_p=0.01,
        compression_ratio=1.0,
        dnsmos_sig=3.5,
        dnsmos_bak=4.0,
        dnsmos_ovr=3.3,
        snr_db=40.0,
        clipping=0.0,
        bandwidth_hz=12_000.0,
        loudness_lufs=-23.0,
        chars_per_s=14.0,
        speaker="a:spk0",
        speaker_purity=0.9,
        embedding=np.full(4, 0.5, dtype=np.float32),
        flac=b"fLaC",
        flac_rate=44_100,
    )
    short = Segment(kept.source_id, 1, 4.5, 4.7, ["too_short", "too_short"], segment_id="s" * 16)
    noisy = dataclasses.replace(kept, seq=2, start_s=5.0, end_s=9.0, segment_id="n" * 16, dnsmos_ovr=1.2)
    uncut = dataclasses.replace(kept, seq=3, start_s=9.0, end_s=9.8, segment_id="u" * 16, flac=None)
    made = Session("a", "f" * 16, "/nowhere", [recording, lost], segments=[kept, short, noisy, uncut])
    made.references = [Reference("k" * 16, "n" * 16, 0.9, -2)]
    made.quarantine = [Quarantined("/in/a/lost.wav", lost.source.source_id, "decode", "broken")]
    return made


def test_rows_say_why_a_segment_is_not_kept_and_only_hard_ones_lose_their_audio() -> None:
    rows = {row["segment_id"][0]: row for row in segment_rows(session(), Thresholds())}
    assert {key: (row["kept"], row["audio"] is not None) for key, row in rows.items()} == {
        "k": (True, True),
        "s": (False, False),
        "n": (False, True),
        "u": (False, False),
    }
    assert rows["k"]["reasons"] == [] and rows["s"]["reasons"] == ["too_short"] and rows["u"]["reasons"] == ["no_audio"]
    assert len(rows["n"]["reasons"]) >= 1
    assert rows["k"]["words"] == [{"word": "good", "start": 0.1, "end": 0.3, "p": 0.9}]
    assert all(row["reasons"] or row["kept"] for row in rows.values())


def test_rows_fit_the_schemas() -> None:
    made = session()
    for row in segment_rows(made, Thresholds()):
        assert set(SEGMENTS.names) <= set(row)
    assert set(INDEX.names) - set(SEGMENTS.names) <= {"shard", "row"}
    table = pa.Table.from_pylist(recording_rows(made), schema=RECORDINGS)
    assert table.column("silence_s").to_pylist() == [1.0, 4.0]
    assert reference_rows(made) == [{"segment_id": "k" * 16, "reference_id": "n" * 16, "cosine": 0.9, "gap": -2}]
    assert quarantine_rows(made)[0]["error"] == "broken"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60), st.integers(1, 20))
def test_units_start_in_order_of_ids_as_far_as_they_are_planned(ids: list[int], held: int) -> None:
    taken: list[int] = []

    def units() -> Iterator[PlannedUnit]:
        for number, name in enumerate(ids):
            taken.append(number)
            yield PlannedUnit(f"{name:07d}", ())

    got = []
    for unit in mixed(units(), held):
        got.append(int(unit.unit_id))
        assert len(taken) - len(got) <= held
    assert sorted(got) == sorted(ids) and (len(ids) > held or got == sorted(ids))


def test_units_of_a_large_run_are_longer() -> None:
    assert [unit_seconds("auto", hours * 3600.0) for hours in (1, 100_000, 10**7)] == [600.0, 18_000.0, 32_400.0]
    assert unit_seconds(30.0, 1e9) == 30.0


def test_the_length_of_all_files_follows_from_some_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.wav", noise(4.0, 16_000, seed=0), 16_000)
    size = (tmp_path / "x.wav").stat().st_size
    opened = []
    real = probe_seconds

    def probe(path: str) -> float:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(plan_module, "probe_seconds", probe)
    files = [(str(tmp_path / "x.wav"), size)] * 1000
    assert plan_module.estimated_seconds(files) == pytest.approx(4000.0, rel=0.01) and len(opened) <= 16
    far = [("s3://bucket/x.mp3", 8_000), (f"tar://x.wav::file://{tmp_path}/a.tar", 32_000)]
    assert plan_module.estimated_seconds(far) == 2.0 and plan_module.estimated_seconds([]) == 0.0
    (tmp_path / "broken.ogg").write_bytes(b"nothing")
    assert plan_module.estimated_seconds([(str(tmp_path / "broken.ogg"), 8_000), ("/gone.wav", -1)]) == 1.0
