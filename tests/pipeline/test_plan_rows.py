"""What is planned, and what becomes of a session in the corpus."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.schema import INDEX, RECORDINGS, SEGMENTS
from catalogs.thresholds import Thresholds
from pipeline.plan import plan_units
from pipeline.records import Quarantined, Recording, Reference, Segment, Session, Source, Word
from pipeline.rows import quarantine_rows, recording_rows, reference_rows, segment_rows


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

    def plan(items: list[Source]) -> list[object]:
        return list(plan_units(items, committed, "f" * 16, unit_s, lambda item: seconds[item.source_id]))

    units = plan_units(found, committed, "f" * 16, unit_s, lambda item: seconds[item.source_id])
    planned = [item for unit in units for session in unit.sessions for item in session.sources]
    assert sorted(item.source_id for item in planned) == sorted({s.source_id for s in found} - committed)
    names = [session.session_id for unit in units for session in unit.sessions]
    assert len(names) == len(set(names))
    assert len({unit.unit_id for unit in units}) == len(units)
    assert sum(unit.seconds < unit_s for unit in units) <= 1
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(shuffled) == list(units)


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
