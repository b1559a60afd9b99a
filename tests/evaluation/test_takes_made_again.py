"""A row of a metric is of one take: of a take that is made again, or whose item has changed, it is computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from toy_runs import RATE, DoublePeak, Hum, Peak, run_folder, toy_items, toy_settings

from evaluation.items import Item
from evaluation.metrics.base import Metric, Plain, Take, Value, read_clip
from evaluation.results.figures import read_figures
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.runs.rows import MADE_OF
from evaluation.runs.score import rows_of, score, table_of
from evaluation.systems.base import Ask, Speech


class Server(Hum):
    """Does not repeat itself: the level of its speech can be set, and it can fail."""

    seeded = False
    level = 0.1
    broken = ""

    def _answer(self, ask: Ask) -> Speech | Exception:
        if self.broken and self.broken in ask.item.text:
            return RuntimeError("a hiccup")
        return Speech(np.full(RATE // 2, self.level, np.float32), RATE, wall_s=0.1)


class Spoken(Plain):
    """1 for a take that did not fail, otherwise 0: a metric with rows of failed takes. Groups of items are scored in one call."""

    name = "spoken"
    version = 1
    schema = pa.schema([("spoken", pa.float64()), ("of", pa.float64())])
    values = (Value("spoken", "spoken", "", "higher"), Value("of", "of", "", "higher"))
    needs = frozenset()

    def group(self, take: Take) -> str | None:
        return take.item.groups.get("pair")

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        spoken = [float(take.path is not None) for take in takes]
        return [{"spoken": one, "of": sum(spoken)} for one in spoken]


class HumanPeak(Plain):
    """The peak of the recording of a person."""

    name = "human_peak"
    version = 1
    schema = pa.schema([("peak", pa.float64())])
    values = (Value("peak", "peak", "", "higher"),)
    needs = frozenset({"human"})

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"peak": float(abs(read_clip(take.item.human, RATE)).max())} for take in takes if take.item.human]


def made(folder: Path, system: Server, items: Sequence[Item]) -> Run:
    run = create_run(run_folder(folder), {**toy_settings(system), "seeded": False}, items, (0,))
    generate(run, system, again=("error",))
    return run


def figures(run: Run, metric: Metric, column: str) -> list[float]:
    """Return the figures of a column, by the names of the items."""
    series = read_figures(run, [metric, Peak()]).series.get(f"{metric.name}.{column}")
    found = {} if series is None else series.figures
    return [found[item.id, 0] for item in sorted(run.items, key=lambda item: item.name) if (item.id, 0) in found]


@pytest.mark.parametrize("pair", ["", "p"])
def test_a_retry_that_succeeds_replaces_the_figures_of_the_failure(tmp_path: Path, pair: str) -> None:
    items = [replace(item, groups={"pair": pair} if pair else {}) for item in toy_items(3)]
    system = Server()
    system.broken = "number 1"
    run = made(tmp_path, system, items)
    assert score(run, [Spoken()]).rows == {"spoken": 3}
    assert figures(run, Spoken(), "spoken") == [1.0, 0.0, 1.0]
    system.broken = ""
    run = made(tmp_path, system, items)
    # Before it is scored, the row of the failure is not shown either.
    assert figures(run, Spoken(), "spoken") == ([] if pair else [1.0, 1.0])
    assert score(run, [Spoken()]).rows == {"spoken": 3 if pair else 1}
    assert figures(run, Spoken(), "spoken") == [1.0, 1.0, 1.0]
    if pair:
        assert figures(run, Spoken(), "of") == [3.0, 3.0, 3.0]
    assert score(run, [Spoken()]).rows == {"spoken": 0}


def test_audio_that_is_made_again_is_measured_again(tmp_path: Path) -> None:
    system, items = Server(), toy_items(2)
    metrics: list[Metric] = [Peak(), DoublePeak()]
    run = made(tmp_path, system, items)
    score(run, metrics)
    (run.root / run.audio_name(items[0].id, 0)).unlink()
    system.level = 0.4
    run = made(tmp_path, system, items)
    assert score(run, metrics).rows == {"peak": 1, "double": 1}
    assert figures(run, Peak(), "peak") == pytest.approx([0.4, 0.1], abs=1e-6)
    assert figures(run, DoublePeak(), "double") == pytest.approx([0.8, 0.2], abs=1e-6)


def test_a_take_that_fails_now_has_no_figure_of_its_former_audio(tmp_path: Path) -> None:
    system, items = Server(), toy_items(2)
    run = made(tmp_path, system, items)
    score(run, [Peak(), DoublePeak()])
    (run.root / run.audio_name(items[0].id, 0)).unlink()
    system.broken = "number 0"
    run = made(tmp_path, system, items)
    assert figures(run, DoublePeak(), "double") == pytest.approx([0.2])


def test_damaged_audio_is_measured_once_it_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    system, items = Server(), toy_items(2)
    run = made(tmp_path, system, items)
    audio = run.root / run.audio_name(items[0].id, 0)
    audio.write_bytes(b"xx")
    assert score(run, [Peak(), DoublePeak()]).rows == {"peak": 1, "double": 1}
    assert f"{audio} is missing or damaged; delete it" in caplog.text
    audio.unlink()
    run = made(tmp_path, system, items)
    assert score(run, [Peak(), DoublePeak()]).rows == {"peak": 1, "double": 1}
    assert figures(run, DoublePeak(), "double") == pytest.approx([0.2, 0.2])


def test_another_recording_of_a_person_is_measured_again(tmp_path: Path) -> None:
    for name, level in (("one", 0.2), ("two", 0.7)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(800, level, np.float32), RATE)
    item = Item("a text", "en", human=tmp_path / "one.wav")
    metrics: list[Metric] = [HumanPeak(), Peak()]
    score(made(tmp_path, Server(), [item]), metrics)
    run = made(tmp_path, Server(), [replace(item, human=tmp_path / "two.wav")])
    assert score(run, metrics).rows == {"human_peak": 1, "peak": 0}
    assert figures(run, HumanPeak(), "peak") == pytest.approx([0.7], abs=1e-3)


def test_other_groups_are_scored_again_if_takes_are_scored_together(tmp_path: Path) -> None:
    items = [replace(item, groups={"pair": item.name}) for item in toy_items(2)]
    score(made(tmp_path, Server(), items), [Spoken(), Peak()])
    run = made(tmp_path, Server(), [replace(item, groups={"pair": "both"}) for item in items])
    assert score(run, [Spoken(), Peak()]).rows == {"spoken": 2, "peak": 0}
    assert figures(run, Spoken(), "of") == [2.0, 2.0]


def test_rows_of_an_older_version_count_until_a_take_is_made_again(tmp_path: Path) -> None:
    system, items = Server(), toy_items(2)
    run = made(tmp_path, system, items)
    table = table_of(run, Peak(), {})
    table.add([{"item_id": item.id, "seed": 0, "peak": 0.5} for item in items])
    assert score(run, [Peak()]).rows == {"peak": 0}
    assert figures(run, Peak(), "peak") == [0.5, 0.5]
    (run.root / run.audio_name(items[1].id, 0)).unlink()
    run = made(tmp_path, system, items)
    assert score(run, [Peak()]).rows == {"peak": 1}
    assert figures(run, Peak(), "peak") == pytest.approx([0.5, 0.1])
    found = rows_of(run, Peak(), {})
    assert [found[item.id, 0][MADE_OF] is None for item in items] == [True, False]
