"""Whatever happened to the files and to the runs: a last run ends where a fresh one on the final files does."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes.chaos_run import CheapConfig
from fakes.engine_stages import TroubleConfig
from fakes.recordings import noise, write
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st

from catalogs.corpus.fsck import fsck
from catalogs.corpus.thresholds import Thresholds, change_thresholds, thresholds_path
from catalogs.query.views import connect
from pipeline.engine.api import Event, SessionDone
from pipeline.engine.progress import Progress
from pipeline.prepare import prepare
from pipeline.retry import retry
from pipeline.runs import journal

FILES = ("one/a.wav", "one/b.wav", "c.wav")
HOW = ("content", "data", "machine", "bug", "link")
RUNS = ("run", "redo", "retry", "killed run")
Step = tuple[Any, ...]

STEPS = st.one_of(
    # Faults that a run meets and that are mended afterwards would be rare among steps that are drawn one by one.
    st.tuples(st.just("episode"), st.sampled_from(FILES), st.sampled_from(HOW), st.sampled_from(RUNS), st.booleans()),
    st.tuples(st.just("break"), st.sampled_from(FILES), st.sampled_from(HOW)),
    st.tuples(st.just("mend"), st.sampled_from(FILES)),
    st.tuples(st.just("add"), st.sampled_from(FILES)),
    st.sampled_from([("run",), ("redo",), ("retry",), ("killed run",)]),
    st.tuples(st.just("threshold"), st.sampled_from([1.0, 300.0])),
)


class Killed:
    """A `watch` that ends the run when some sessions are done."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, event: Event, progress: Progress) -> None:
        if not isinstance(event, SessionDone):
            return
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1


class World:
    """Recordings, what they meet, and a corpus of them."""

    def __init__(self, folder: Path) -> None:
        self.sources, self.fates, self.corpus = folder / "sources", folder / "fates", folder / "corpus"
        self.fresh = folder / "fresh"
        self.fates.mkdir()
        self.longest = 300.0
        self.code = 0
        self.takes = dict.fromkeys(FILES, 0)
        for name in FILES[:2]:
            self.write(name)

    def config(self, **more: Any) -> Any:
        trouble = TroubleConfig(fates=str(self.fates))
        engine = {"executor": "inline", "attempts": 100}
        return CheapConfig(unit_s=2.5, engine=engine, describe="none", trouble=trouble, **more)

    def write(self, name: str) -> None:
        """Put the recording's present take in its place."""
        path = self.sources / name
        if path.is_symlink():
            path.unlink()
        seed = 10 * FILES.index(name) + self.takes[name]
        write(path, noise(3.0, 16_000, seed=seed), 16_000)

    def do(self, what: str, *how: Any) -> None:
        getattr(self, "_" + what.replace(" ", "_"))(*how)

    def is_there(self, name: str) -> bool:
        return (self.sources / name).exists() or (self.sources / name).is_symlink()

    def _add(self, name: str) -> None:
        if not self.is_there(name):
            self.write(name)

    def _mend(self, name: str) -> None:
        fate = self.fates / Path(name).name
        if fate.is_file():
            met = fate.read_text()
            self.code += met == "bug"
            # A recording that is at fault itself is mended by another take.
            self.takes[name] += met == "data"
            fate.unlink()
        if self.is_there(name):
            self.write(name)

    def _break(self, name: str, how: str) -> None:
        path, fate = self.sources / name, self.fates / Path(name).name
        if not self.is_there(name) or fate.is_file():
            return
        if how == "content":
            self.write(name)
            path.write_bytes(b"RIFF no audio at all")
        elif how == "link":
            path.unlink()
            path.symlink_to("nowhere.wav")
        else:
            # A new take: what was committed already is not looked at again.
            self.takes[name] += 1
            self.write(name)
            fate.write_text(how)

    def _episode(self, name: str, how: str, what: str, mended: bool) -> None:
        """A fault that a run meets, mended or not."""
        self._break(name, how)
        self.do(what)
        if mended:
            self._mend(name)

    def _run(self) -> None:
        prepare([str(self.sources)], self.corpus, self.config())

    def _redo(self) -> None:
        prepare([str(self.sources)], self.corpus, self.config(), redo=True)

    def _retry(self) -> None:
        if (self.corpus / "sources.json").is_file():
            retry(self.corpus, self.config(), causes=("data", "machine", "bug"))

    def _killed_run(self) -> None:
        with suppress(KeyboardInterrupt):
            prepare([str(self.sources)], self.corpus, self.config(), watch=Killed(1))

    def _threshold(self, longest: float) -> None:
        self.longest = longest
        if self.corpus.is_dir():
            change_thresholds(self.corpus, ["require_text=false", f"max_duration_s={longest}"])

    def finish(self) -> None:
        """The last run, and the fresh one with the same thresholds: saved by `voxmill catalog` there, given as settings here.

        Saved before the run, which then builds the catalog with them; saved after it, the catalog would be built a second time.
        """
        self._threshold(self.longest)
        self._run()
        if not thresholds_path(self.corpus).is_file():  # No earlier step has made a corpus.
            self._threshold(self.longest)
        thresholds = Thresholds(require_text=False, max_duration_s=self.longest)
        prepare([str(self.sources)], self.fresh, self.config(thresholds=thresholds))

    def states(self) -> list[dict[str, list[tuple[Any, ...]]]]:
        """What the corpus and a fresh one say of the files that are there now, every row, so that what is there twice shows."""
        with connect(self.fresh) as fresh, connect(self.corpus) as aged:
            present = [source for (source,) in fresh.execute("select source_id from recordings").fetchall()]
            ids = "(" + ", ".join(f"'{source}'" for source in [*present, ""]) + ")"
            sqls = {
                "segments": f"select segment_id, kept from segments where source_id in {ids} order by 1",
                "recordings": f"select source_id, status from recordings where source_id in {ids} order by 1",
                "quarantine": "select path, stage, cause from quarantine order by 1, 2, 3",
            }
            return [{name: c.execute(sql).fetchall() for name, sql in sqls.items()} for c in (aged, fresh)]


A, B, C = FILES


@example([("episode", A, "machine", "run", True), ("threshold", 1.0)])
@example([("episode", A, "bug", "run", True), ("add", C)])
@example([("episode", A, "link", "run", True), ("episode", B, "link", "run", False)])
@example([("episode", A, "content", "run", True), ("run",), ("episode", A, "content", "run", False)])
@example([("episode", B, "content", "run", True), ("retry",)])
@example([("episode", A, "data", "run", True), ("episode", A, "machine", "redo", True)])
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(steps=st.lists(STEPS, min_size=2, max_size=6))
def test_a_last_run_ends_where_a_fresh_one_does(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(Path(folder))
        patch.setattr(journal, "code_version", lambda: str(world.code))
        for step in steps:
            world.do(*step)
        world.finish()
        note(f"steps: {steps}")
        aged, fresh = world.states()
        assert aged == fresh
        assert [problem for problem in fsck(world.corpus, hashes=False) if problem.severity == "error"] == []
