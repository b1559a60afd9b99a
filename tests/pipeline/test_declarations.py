"""What the stages declare is what they do: each reads and writes what it says, and the chain is checked when a run starts."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
from fakes.recordings import write
from sessions import make_stage, session_of

from catalogs.settings import SettingsError
from pipeline.config import load_config
from pipeline.records import Segment, Session
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.stages import STAGE_NAMES, stage_class
from pipeline.stages.chain import chain_fault

BASICS = {"source_id", "seq", "start_s", "end_s", "segment_id", "hard_reasons", "failures"}
"""What every segment has: the declared name `segments` covers it."""
LISTS = ("windows", "speech", "segments", "references")
#: Settings under which every stage does all that it can, on a voice that pauses.
SETTINGS: dict[str, dict[str, Any]] = {
    "separate": {"mode": "off"},
    "find_turns": {"threshold": 1.0},
    "segment": {"min_s": 0.3, "target_s": 1.0},
    "transcribe": {"second_pass_on": "all", "beam_size": 1, "language_windows": 1},
    "refine_cuts": {"lengths": {60.0: 1.0}, "join_logprob": -9.0, "cut_off": 1.0},
    "embed_speaker": {"cluster_threshold": -1.0},
    "mine_references": {
        "threshold": -1.0,
        "min_s": 0.1,
        "min_dnsmos_ovr": None,
        "min_snr_db": None,
        "min_speaker_purity": -1.0,
    },
}
#: What a stage declares and these recordings do not show: joining reads unseen, and a file's end may be no word's end.
NOT_SEEN = {"refine_cuts": {"segment.words", "segment.flags"}}


class Reads:
    """Which attributes of the session and of its segments are read while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: set[str] | None = None
        self._follow(monkeypatch, Segment, {field.name for field in dataclasses.fields(Segment)} - BASICS, "segment.")
        self._follow(monkeypatch, Session, set(LISTS), "")
        # The base class asks whether there are segments, to tell the time; joining copies all that is known of the parts.
        monkeypatch.setattr("pipeline.stage._audio_share", lambda session, items: 0.0)
        joined = stage_class("refine_cuts").__call__.__globals__["joined"]
        monkeypatch.setattr("pipeline.stages.refine_cuts.joined", lambda parts: self._unseen(joined, parts))

    def _follow(self, monkeypatch: pytest.MonkeyPatch, kind: type, names: set[str], prefix: str) -> None:
        def get(thing: Any, name: str) -> Any:
            if self.names is not None and name in names:
                self.names.add(prefix + name)
            return object.__getattribute__(thing, name)

        monkeypatch.setattr(kind, "__getattribute__", get)

    def _unseen(self, work: Callable[[Any], Any], argument: Any) -> Any:
        noted, self.names = self.names, None
        try:
            return work(argument)
        finally:
            self.names = noted

    @contextmanager
    def on(self) -> Iterator[set[str]]:
        self.names = set()
        try:
            yield self.names
        finally:
            self.names = None


def state(session: Session) -> dict[str, Any]:
    """Everything that a stage can write, so that two states can be compared."""
    return {
        "windows": [(w.source_id, w.start_s, hashlib.sha256(w.pcm.tobytes()).digest()) for w in session.windows],
        "speech": [dataclasses.astuple(span) for span in session.speech],
        "references": [dataclasses.astuple(pair) for pair in session.references],
        "segments": {
            (segment.source_id, segment.start_s, segment.end_s): {
                field.name: repr(getattr(segment, field.name))
                for field in dataclasses.fields(segment)
                if field.name not in BASICS
            }
            for segment in session.segments
        },
    }


def written(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Names, as stages declare them, of what differs. A segment that is new among others is one write, of `segments`."""
    names = {name for name in ("windows", "speech", "references") if before[name] != after[name]}
    old, new = before["segments"], after["segments"]
    if old.keys() != new.keys():
        names.add("segments")
    if not old:
        blank = state(Session("s", "", "", [], segments=[Segment("", 0, 0.0, 0.0)]))["segments"].popitem()[1]
        old = dict.fromkeys(new, blank)
    names |= {f"segment.{n}" for key in old.keys() & new.keys() for n in old[key] if old[key][n] != new[key][n]}
    return names


@pytest.fixture(scope="module")
def done(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[set[str], set[str]]]:
    """{stage: (what it read, what it wrote)} of the whole chain on two recordings, one of them with a transcript."""
    folder = tmp_path_factory.mktemp("in")
    paths = []
    for name, seconds in (("2412-153948-0000.flac", 5.0), ("jfk.flac", 4.5)):
        samples, rate = soundfile.read(corpora / "read" / name, dtype="float32")
        paths.append(write(folder / name, samples[: round(seconds * rate)], rate))
    session = session_of(*paths)
    session.spool = str(folder / "spool")
    for number, recording in enumerate(session.recordings):
        # Which neighbors are joined is drawn by it.
        recording.source = dataclasses.replace(recording.source, source_id=f"{number}" * 16)
    spoken = session.recordings[1]
    spoken.source = dataclasses.replace(
        spoken.source, text="And so, my fellow Americans, is what he said.", language="en"
    )
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        reads = Reads(monkeypatch)
        for name in STAGE_NAMES:
            stage = make_stage(name, **SETTINGS.get(name, {}))
            before = state(session)
            with reads.on() as read:
                session = stage(session)
            found[name] = (read, written(before, state(session)))
            if name == "separate":
                # As if a part of it had been separated, which takes weights that not every machine has.
                spoken.separation.kept = [(0.0, 2.0)]
    assert not session.quarantine, session.quarantine
    return found


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_a_stage_reads_and_writes_what_it_declares(name: str, done: dict[str, tuple[set[str], set[str]]]) -> None:
    kind = stage_class(name)
    inputs, outputs = set(kind.inputs), set(kind.outputs)
    read, wrote = done[name]
    assert read <= inputs | outputs, "read and not declared"
    assert wrote <= outputs, "written and not declared"
    if name != "separate":  # It is off here: tests/pipeline/test_separate.py.
        assert inputs - read <= NOT_SEEN.get(name, set()), "declared and not read"
        assert outputs - wrote <= NOT_SEEN.get(name, set()), "declared and not written"


def test_the_chain_holds_and_every_stage_fits_into_the_smallest_machine() -> None:
    """`voxmill doctor` asks for 7 GiB; a Ray run has one actor or more for each group of stages."""
    assert chain_fault([stage_class(name) for name in STAGE_NAMES], 7 * 2**30) is None
    assert all(stage_class(name).name == name for name in STAGE_NAMES)


class Reader(Stage[StageConfig]):
    """Reads what cut_clips writes."""

    name = "reader"
    version = "1"
    config_type = StageConfig
    inputs = ("segments", "segment.flac")

    def __call__(self, session: Session) -> Session:
        return session


@pytest.mark.parametrize(
    ("name", "next_step"), [("segment.flac", "place it after cut_clips"), ("segment.mood", "no stage writes it")]
)
def test_a_missing_input_is_one_line_that_names_stage_and_input(
    name: str, next_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, "inputs", (name,))
    chain = [stage_class(name) for name in STAGE_NAMES]
    fault = chain_fault([*chain[:-1], Reader, chain[-1]], math.inf)
    assert fault == f"stage reader reads {name}, which no stage before it writes; {next_step}"
    assert (chain_fault([*chain, Reader], math.inf) is None) == ("cut_clips" in next_step)


def test_a_run_does_not_start_on_a_machine_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_class("transcribe"), "resources", Resources(memory_bytes=2**60))
    with pytest.raises(SettingsError, match=r"stage transcribe needs \d+ MB of memory, this machine has"):
        load_config()
    # What drives a cluster may be small.
    assert load_config(None, ["engine.address=auto"])
