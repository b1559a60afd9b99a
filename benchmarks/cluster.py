"""How many times real time one driver sustains: `prepare`'s loop over a simulated cluster on this machine.

    python benchmarks/cluster.py [--speeds 100,400,1600,6400] [--sessions 400] [--session-s 600] [--unit-s 600]
        [--clip-bytes 2000] [--segment-s 6] [--folder /dev/shm] [--profile]

64 fake GPU actors (8 processes with 8 threads each) sleep for the stages' recorded times, write heartbeats, and return content
that is real in shape: 100 segments per ten minutes with measures, words and voiceprints. Driver, Ray, rows, shards and commits are
the real ones. `--speeds`: how many times real time one GPU actor processes; the stages of the CPU keep the proportion that
docs/benchmarks.md records (transcribe 293, score_quality 100, ..., cut_clips 2). Clips are smaller than real ones
(`--clip-bytes`; a real one has about 250,000 bytes at 48 kHz): all actors share the memory bandwidth of this machine, while on a
cluster each node has its own. The cost of real clips is measured with few sessions and `--clip-bytes 250000`. With `--segment-s
60` the actors of this machine have less to do, so that it is the driver that is measured. With sessions of an hour
(`--session-s 3600 --unit-s 3600 --segment-s 120 --speeds 1600 --sessions 1500`) two cores sustain 50,000 times real time.

Printed per speed: the times real time offered and reached, the driver's CPU per session (its Python thread, and all its threads
with Ray's), and the times real time at which its Python thread is busy all the time.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import ray  # noqa: E402
from inference import machine  # noqa: E402

from catalogs.corpus.commit import bind_fingerprint, create_corpus  # noqa: E402
from catalogs.corpus.history import History  # noqa: E402
from catalogs.corpus.ids import unit_id  # noqa: E402
from catalogs.corpus.reader import Corpus  # noqa: E402
from pipeline import prepare  # noqa: E402
from pipeline.config import PrepareConfig, load_config  # noqa: E402
from pipeline.engine.api import Outcome, Output, SessionDone  # noqa: E402
from pipeline.engine.heartbeat import mark_path, write_mark  # noqa: E402
from pipeline.engine.in_flight import PooledActor  # noqa: E402
from pipeline.engine.ray_engine import RayEngine  # noqa: E402
from pipeline.engine.ray_node import start_ray  # noqa: E402
from pipeline.engine.worker import StageGroup  # noqa: E402
from pipeline.inputs.find import FoundSources  # noqa: E402
from pipeline.records import Segment, Session, Source, Word  # noqa: E402
from pipeline.runs.output import CorpusOutput  # noqa: E402
from pipeline.runs.plan import PlannedSession, PlannedUnit  # noqa: E402
from pipeline.runs.sources import Given  # noqa: E402
from pipeline.runs.summary import Summary  # noqa: E402
from pipeline.runs.work import Work  # noqa: E402

CHAIN = {
    ("decode", "detect_speech", "segment"): (13.0, 4),
    ("transcribe", "score_quality", "embed_speaker"): (406.0, 64),
    ("fingerprint_audio", "cut_clips"): (4.0, 8),
}
"""Groups of stages: recorded CPU seconds of the same 31 minutes of audio (docs/benchmarks.md), and simulated actors."""
GPU_SHARE = 406.0
THREADS = 8
WORDS = 14
FINGERPRINT = "c1a5" * 4


class FakeActor:
    """An actor that sleeps instead of computing; several of its threads stand for an actor each."""

    def __init__(
        self, name: str, sleep: float, marks: str, clip_bytes: int, segment_s: float, output: Output | None
    ) -> None:
        """`sleep`: seconds per second of audio."""
        self.name, self.sleep, self.marks, self.output = name, sleep, Path(marks), output
        self.segment_s = segment_s
        self.marks.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        self.clip = random.bytes(clip_bytes)
        self.voice = random.standard_normal(256).astype(np.float32)

    def where(self) -> str:
        """Return the node."""
        return str(ray.get_runtime_context().get_node_id())

    def load(self) -> None:
        """Load nothing."""

    def run(self, session: Session, one_by_one: bool) -> tuple[Any, tuple[Outcome, SessionDone | None]]:
        """Sleep, and make the segments in the last group."""
        audio_s = float(session.recordings[0].source.bytes)
        session.recordings[0].duration_s = audio_s
        mark = mark_path(self.marks, session.session_id)
        for stage in self.name.split("+"):
            write_mark(mark, stage, session.recordings[0].source.source_id)
        time.sleep(self.sleep * audio_s)
        outcome = Outcome(session.session_id, {self.name: self.sleep * audio_s}, audio_s=audio_s)
        if self.output is None:
            return session, (outcome, None)
        session.segments = [self._segment(session, number) for number in range(int(audio_s / self.segment_s))]
        done, content = self.output.split(session)
        return content, (outcome, done)

    def write(self, unit: Any, contents: Sequence[Any]) -> dict[str, Any]:
        """As the real actor does."""
        assert self.output is not None
        return self.output.write(unit, (ray.get(content) for content in contents))

    def _segment(self, session: Session, number: int) -> Segment:
        start = number * self.segment_s
        return Segment(
            session.recordings[0].source.source_id,
            number,
            start,
            start + self.segment_s - 0.5,
            segment_id=f"{session.session_id}-{number:04d}",
            text="a sentence of about as many words as people say in six seconds of speech",
            words=[Word("word", 0.4 * index, 0.4 * index + 0.3, 0.9) for index in range(WORDS)],
            embedding=self.voice,
            audio_print=np.arange(170, dtype=np.uint16),
            flac=self.clip + number.to_bytes(4, "big"),  # no two are the same, or pickle would keep one
            flac_rate=48_000,
        )


class SimulatedEngine(RayEngine):
    """The Ray engine with fake actors: each process stands for `THREADS` of them."""

    speed = 1.0
    clip_bytes = 0
    segment_s = 6.0

    def _spawn(self, index: int) -> None:
        there = [member for member in self._members if member.group == index]
        if len(there) % THREADS:
            actor = there[-1].actor
        else:
            name, sleep = self._groups[index].name, self._seconds(index)
            output = self._output if index == len(self._groups) - 1 else None
            kind = ray.remote(FakeActor).options(num_cpus=0.01, max_concurrency=THREADS)
            actor = kind.remote(name, sleep, str(self._marks), self.clip_bytes, self.segment_s, output)
        member = PooledActor(index, actor)
        self._members.append(member)
        self._starting[actor.where.remote()] = member

    def _seconds(self, index: int) -> float:
        recorded, _ = list(CHAIN.values())[index]
        return recorded / GPU_SHARE / self.speed


ray.method(num_returns=2)(FakeActor.run)


class PlannedWork(Work):
    """The work of a run whose units are planned already: no header is read."""

    def __init__(self, units: Sequence[PlannedUnit], config: PrepareConfig, summary: Summary) -> None:
        names = [session.session_id for unit in units for session in unit.sessions]
        given = Given((), names, FoundSources(), sum(unit.seconds for unit in units))
        super().__init__(given, (), History(), config, summary)
        self._planned = self._counted(iter(units))


def planned(sessions: int, session_s: float, unit_s: float) -> list[PlannedUnit]:
    """Return units of sessions of one recording each."""
    each = max(1, round(unit_s / session_s))
    units = []
    for first in range(0, sessions, each):
        members = []
        for number in range(first, min(first + each, sessions)):
            source = Source(
                f"{number:016x}", f"/data/{number}.wav", f"{number}.wav", f"s{number:08d}", int(session_s), "0" * 64
            )
            members.append(PlannedSession(source.session_id, (source,), session_s))
        sources = [(s.source_id, s.bytes, s.content_sha256) for member in members for s in member.sources]
        units.append(PlannedUnit(unit_id(sources, FINGERPRINT), tuple(members)))
    return units


def simulate(arguments: argparse.Namespace, speed: float, sessions: int, root: Path) -> dict[str, float]:
    """Run the sessions into a new corpus and return what was measured."""
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    config = load_config()
    groups = [
        StageGroup(tuple(config.stage(name) for name in names), actors=actors, cpus=0.01)
        for names, (_, actors) in CHAIN.items()
    ]
    SimulatedEngine.speed, SimulatedEngine.clip_bytes = speed, arguments.clip_bytes
    SimulatedEngine.segment_s = arguments.segment_s
    output = CorpusOutput(root, config.thresholds)
    loaded: list[tuple[float, ...]] = []
    waited = 0.0
    honest_wait = ray.wait

    def wait(*parts: Any, **options: Any) -> Any:
        nonlocal waited
        began, worked = time.perf_counter(), time.thread_time()
        found = honest_wait(*parts, **options)
        waited += time.perf_counter() - began - (time.thread_time() - worked)
        return found

    def clocks() -> tuple[float, ...]:
        return time.perf_counter(), time.thread_time(), time.process_time(), waited

    def engine(*_: Any) -> SimulatedEngine:
        return SimulatedEngine(groups, root / "tmp" / "marks", root / "strikes", None, arguments.in_flight, output)

    events = 0

    def watch(*_: Any) -> None:
        nonlocal events
        events += 1
        if not loaded:
            loaded.append(clocks())

    prepare.__dict__["make_engine"] = engine
    ray.wait = wait
    summary = Summary(str(root), sessions, fingerprint=FINGERPRINT)
    scratch = root / "tmp" / "scratch"
    scratch.mkdir()
    profile = cProfile.Profile() if arguments.profile else None
    if profile:
        profile.enable()
    work = PlannedWork(planned(sessions, arguments.session_s, arguments.unit_s), config, summary)
    work.start()
    prepare._run(root, scratch, work, config, summary, History(), watch)
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    ray.wait = honest_wait
    wall, thread, process, idle = (after - before for after, before in zip(clocks(), loaded[0], strict=True))
    assert summary.sessions == sessions and len(Corpus(root)) == summary.segments, "the corpus lacks sessions"
    return {
        "wall": wall,
        "idle": idle,
        "thread": thread / sessions,
        "process": process / sessions,
        "events": events / sessions,
    }


def main() -> None:
    """Measure each speed and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speeds", default="100,400,1600,6400")
    parser.add_argument("--sessions", type=int, default=400)
    parser.add_argument("--session-s", type=float, default=600.0)
    parser.add_argument("--unit-s", type=float, default=600.0)
    parser.add_argument("--clip-bytes", type=int, default=2000)
    parser.add_argument("--segment-s", type=float, default=6.0)
    parser.add_argument("--in-flight", type=int, default=160)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    print(machine())
    print(
        "| one GPU actor | offered | reached | driver waits | driver CPU per session | with Ray's threads | driver full at |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    start_ray(address="local", num_cpus=16, object_store_memory=2 << 30)
    for speed in (float(text) for text in arguments.speeds.split(",")):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            got = simulate(arguments, speed, arguments.sessions, Path(name) / "corpus")
        audio_s = arguments.sessions * arguments.session_s
        gpus = CHAIN["transcribe", "score_quality", "embed_speaker"][1]
        print(
            f"| {speed:,.0f}x | {gpus * speed:,.0f}x | {audio_s / got['wall']:,.0f}x "
            f"| {got['idle'] / got['wall']:.0%} | {1000 * got['thread']:.2f} ms | {1000 * got['process']:.2f} ms "
            f"| {arguments.session_s / got['thread']:,.0f}x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
