"""What is done again, and what is left alone: with steps that take no time."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from flow_helpers import CHECK, MAKE, MODEL, STORE, changed, flow, loop, run_here

from voxmill.flow.build import open_flow
from voxmill.flow.fingerprints import digests_of, plan
from voxmill.flow.forecast import forecast_flow, priced
from voxmill.flow.settings import FlowError, Prices
from voxmill.flow.state import begin, read_state
from voxmill.flow.steps.base import Cost

ALL = list(loop())
#: (step, setting, value, exactly these steps are done again). The stand-ins of models depend on the notes of describers, but make
#: the same without them: so what only reads these models is left alone, as after `quiet_value`.
CHANGES: list[tuple[str, str, str, list[str]]] = [
    ("prepare", "value", "q", ALL),
    ("prepare", "quiet_value", "changes nothing that is made", ["prepare"]),
    ("prepare", "pause_s", "0.001", []),
    ("describe", "value", "dd", ["describe", "verify", "stage1", "decouple", "stage2", "export"]),
    ("verify", "value", "vv", ["verify", "stage1", "decouple", "stage2", "export"]),
    ("stage1", "value", "11", ["stage1", "decouple", "stage2", "evaluate"]),
    ("stage1", "quiet_value", "q", ["stage1"]),
    ("decouple", "value", "cc", ["decouple", "stage2", "evaluate"]),
    ("stage2", "value", "22", ["stage2", "evaluate"]),
    ("evaluate", "value", "ee", ["evaluate"]),
    ("export", "value", "xx", ["export"]),
]


@pytest.mark.parametrize(("step", "setting", "value", "again"), CHANGES, ids=[f"{c[0]}-{c[1]}" for c in CHANGES])
def test_a_change_does_again_what_depends_on_it(
    step: str, setting: str, value: str, again: list[str], tmp_path: Path
) -> None:
    assert run_here(flow(tmp_path, loop())).done == ALL
    settings = flow(tmp_path, changed(loop(), step, **{setting: value}))
    folder, steps = open_flow(settings)
    planned = [name for name, verdict in plan(steps, digests_of(folder), steps).items() if verdict.action != "done"]
    done = run_here(settings)
    assert done.done == again and done.up_to_date == [name for name in ALL if name not in again]
    assert set(again) <= set(planned), "what runs was announced"
    assert run_here(settings).done == []


def test_a_new_step_leaves_the_others_alone(tmp_path: Path) -> None:
    run_here(flow(tmp_path, loop()))
    steps = {**loop(), "more": {"kind": MAKE, "model": "stage2"}}
    assert run_here(flow(tmp_path, steps)).done == ["more"]


def test_marks_and_lost_or_changed_outputs_are_noticed(tmp_path: Path) -> None:
    settings = flow(tmp_path, loop())
    run_here(settings)
    # As a person who marks: the corpus itself is as it was.
    (tmp_path / "prepare" / "note-human").write_text("drop")
    assert run_here(settings).done == ["stage1", "decouple", "stage2", "export"]
    (tmp_path / "stage2" / "made").unlink()
    done = run_here(settings)
    assert done.done == ["stage2"] and Path(done.moved["stage2"]).is_dir()
    (tmp_path / "stage2" / "made").write_text("broken")
    assert run_here(settings).done == ["stage2"]


def test_what_is_replaced_is_moved_aside_and_never_deleted(tmp_path: Path) -> None:
    run_here(flow(tmp_path, loop()))
    for number in (1, 2):
        done = run_here(flow(tmp_path, changed(loop(), "stage2", value=f"new{number}")))
        assert Path(done.moved["stage2"]) == tmp_path / "superseded" / f"stage2-{number}"
    assert (tmp_path / "superseded" / "stage2-1" / "made").read_text().startswith("2(")
    assert (tmp_path / "superseded" / "stage2-2" / "made").read_text().startswith("new1(")
    assert "prepare" not in {path.name.split("-")[0] for path in (tmp_path / "superseded").iterdir()}


def test_a_corpus_continues_in_place(tmp_path: Path) -> None:
    run_here(flow(tmp_path, {"p": {"kind": STORE, "value": "a"}}))
    done = run_here(flow(tmp_path, {"p": {"kind": STORE, "value": "b"}}))
    assert done.done == ["p"] and not done.moved and (tmp_path / "p" / "made").read_text() == "b"


def test_another_kind_under_the_same_name_starts_from_nothing(tmp_path: Path) -> None:
    run_here(flow(tmp_path, {"p": {"kind": MODEL, "value": "a"}}))
    done = run_here(flow(tmp_path, {"p": {"kind": STORE, "value": "a"}}))
    assert done.done == ["p"] and Path(done.moved["p"]).name == "p-1"


def test_credentials_of_sources_are_on_no_page(tmp_path: Path) -> None:
    url = "https://ann:secret@example.org/a.wav?X-Amz-Signature=abc"
    run_here(flow(tmp_path, {"p": {"kind": MODEL}}, sources=(url,)))
    assert "secret" not in (tmp_path / "index.html").read_text() and "abc" not in (tmp_path / "index.html").read_text()
    assert (tmp_path / "flow.yaml").stat().st_mode & 0o077 == 0


def test_a_step_that_fails_ends_the_flow_and_is_tried_again(tmp_path: Path) -> None:
    steps = changed(loop(), "stage1", fails="the disk is full: remove something")
    with pytest.raises(FlowError, match=r"^step stage1: the disk is full: remove something \(log: "):
        run_here(flow(tmp_path, steps))
    state = read_state(tmp_path, "stage1")
    assert state is not None and state.status == "failed" and read_state(tmp_path, "decouple") is None
    assert "failed" in (tmp_path / "index.html").read_text()
    done = run_here(flow(tmp_path, loop()))
    assert done.done == ALL[3:] and done.up_to_date == ALL[:3]


def test_from_and_until(tmp_path: Path) -> None:
    settings = flow(tmp_path, loop())
    with pytest.raises(FlowError, match="the earlier step prepare is not done"):
        run_here(settings, first="stage1")
    assert run_here(settings, last="verify").done == ALL[:3]
    assert run_here(settings, first="stage1", last="stage1").done == ["stage1"]
    # An earlier step that is not up to date stays as it is.
    other = flow(tmp_path, changed(loop(), "describe", value="other"))
    assert run_here(other, first="decouple").done == ALL[4:]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    settings = flow(tmp_path, loop())
    for name in (".lock", ".lock-step"):
        with (tmp_path / name).open("w") as lock:
            lock.write("77")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(FlowError, match=r"another run of this flow is at work in .* \(process 77\)"):
                run_here(settings)
    assert run_here(settings).done == ALL


def test_state_files_that_are_damaged_only_cost_a_run(tmp_path: Path) -> None:
    settings = flow(tmp_path, loop())
    run_here(settings)
    (tmp_path / "state" / "stage2.json").write_text("{")
    (tmp_path / "state" / "digests.json.cache").write_text("no JSON")
    assert run_here(settings).done == ["stage2"]


def test_an_interrupted_step_continues_with_its_parts(tmp_path: Path) -> None:
    steps = {"a": {"kind": MAKE, "value": "x", "parts": 3}}
    settings = flow(tmp_path, steps)
    folder, built = open_flow(settings)
    verdict = plan(built, digests_of(folder), ["a"])["a"]
    begin(folder, "a", MAKE, verdict.fingerprint, verdict.parts)
    (folder / "a").mkdir()
    (folder / "a" / "part-0").write_text("as it was")
    assert plan(built, digests_of(folder), ["a"])["a"].reason == "continues: it was killed"
    done = run_here(settings)
    assert done.done == ["a"] and not done.moved and (folder / "a" / "part-0").read_text() == "as it was"
    state = read_state(folder, "a")
    assert state is not None and state.attempts == 2


def test_a_dry_run_writes_nothing_and_says_what_is_not_known(tmp_path: Path) -> None:
    settings = flow(tmp_path / "new", loop())
    found = forecast_flow(settings)
    assert not (tmp_path / "new").exists()
    assert [verdict.action for verdict in found.verdicts.values()] == ["run"] * 8
    assert found.total.usd == 3.0 and found.unknown("hours") == ["describe", "verify"]
    run_here(settings)
    after = forecast_flow(flow(tmp_path / "new", changed(loop(), "stage1", value="z")))
    actions = {name: verdict.action for name, verdict in after.verdicts.items()}
    assert actions == {
        "prepare": "done", "describe": "done", "verify": "done", "stage1": "run", "decouple": "waits",
        "stage2": "waits", "evaluate": "waits", "export": "done",
    }  # fmt: skip


def test_prices_of_machines(tmp_path: Path) -> None:
    steps = {"a": {"kind": MODEL, "parts": 2, "pause_s": 3600.0}}
    free = forecast_flow(flow(tmp_path, steps))
    priced = forecast_flow(flow(tmp_path, steps, prices={"cpu_usd_per_hour": 0.25}))
    assert (free.total.hours, free.total.usd, priced.total.usd) == (2.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("cost", "prices", "usd"),
    [
        (Cost(2.0, 16.0, 0.0), {"gpu_usd_per_hour": 2.5}, 40.0),
        (Cost(2.0, 16.0, 1.0), {"gpu_usd_per_hour": 2.5, "cpu_usd_per_hour": 9.0}, 41.0),
        (Cost(2.0, 16.0, 0.0), {}, None),
        (Cost(2.0, None, 3.0), {"gpu_usd_per_hour": 2.5}, None),
        (Cost(2.0, 0.0, 3.0), {"cpu_usd_per_hour": 0.5}, 4.0),
        (Cost(2.0, 0.0, 3.0), {}, 3.0),
        (Cost(None, 0.0, 3.0), {"cpu_usd_per_hour": 0.5}, None),
        (Cost(1.0, 1.0, None), {"gpu_usd_per_hour": 2.5}, None),
    ],
)
def test_money_is_known_or_a_question_mark(cost: Cost, prices: dict[str, float], usd: float | None) -> None:
    assert priced(cost, Prices(**prices)).usd == usd


def test_states_are_json_that_names_what_the_fingerprint_is_of(tmp_path: Path) -> None:
    run_here(flow(tmp_path, loop()))
    state: dict[str, Any] = json.loads((tmp_path / "state" / "verify.json").read_text())
    assert state["status"] == "done" and state["kind"] == CHECK
    assert set(state["parts"]) == {"code", "settings", "corpus prepare", "step describe"}
