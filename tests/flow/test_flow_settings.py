"""FLOW.yaml: every fault is one line that names the step and what to write instead."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from flow_helpers import flow

from catalogs.settings import SettingsError
from voxmill.flow.build import chosen_steps, open_flow
from voxmill.flow.run import run_flow
from voxmill.flow.settings import FlowError, FlowSettings, as_overrides, load_flow, recipes, save_flow
from voxmill.flow.steps import KINDS, step_kind

MAKE, MODEL, AMEND = "fakes.flow_steps:Make", "fakes.flow_steps:Model", "fakes.flow_steps:Amend"
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"a": {"kind": "prepar"}}, "step a: no kind of step 'prepar'"),
    ({"a": {"kind": "prepar"}}, "did you mean prepare?"),
    ({"a": {"kind": 3}}, "step a: kind must be a name, not 3"),
    ({"a": {"kind": "no.such:Step"}}, "no.such:Step cannot be imported"),
    ({"a": {"kind": "pathlib:Path"}}, "is not a subclass of voxmill.flow.steps.base.Step"),
    ({"prepare": {"recordngs": "a"}}, "step prepare: unknown setting recordngs; did you mean recordings?"),
    ({"prepare": {}}, "step prepare: the flow has no sources"),
    ({"describe": {}}, "step describe: corpus names no earlier step that gives a corpus"),
    ({"a": {"kind": MAKE}, "describe": {}}, "e.g. corpus: a"),
    ({"a": {"kind": MAKE, "value": "x"}, "b": {"kind": AMEND, "corpus": "c"}}, "corpus names c, which is not a step"),
    ({"apple": {"kind": MAKE}, "b": {"kind": AMEND, "corpus": "aple"}}, "did you mean apple?"),
    ({"b": {"kind": AMEND, "corpus": "a"}, "a": {"kind": MAKE}}, "does not come before it: move b after it"),
    ({"b": {"kind": AMEND, "corpus": "b"}}, "does not come before it"),
    ({"m": {"kind": MODEL}, "b": {"kind": AMEND, "corpus": "m"}}, "corpus takes a corpus, but m gives a model"),
    ({"a": {"kind": MAKE}, "c": {"kind": MAKE}, "b": {"kind": AMEND, "corpus": ["a", "c"]}}, "takes one step, not 2"),
]


@pytest.mark.parametrize(("steps", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_a_fault_is_one_line(steps: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        open_flow(flow(tmp_path, steps))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nstepps: {}\nsteps: {a: {}}", "unknown setting stepps; did you mean steps?"),
        ("name: x", "setting steps"),
        ("name: x\nsteps: {}", "setting steps"),
        ("steps: {state: {}}", "the step name state is reserved"),
        ("steps: {'../a': {}}", "is not lowercase letters, digits"),
        ("steps: [a]", "setting steps"),
        ("steps: {a: [1]}", "setting steps.a"),
        ("name: a/b\nsteps: {a: {}}", "setting name"),
    ],
)
def test_a_fault_of_the_file_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "flow.yml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        load_flow(path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_flow_names_the_nearest_recipe() -> None:
    with pytest.raises(SettingsError, match=r"did you mean flow-voice\? recipes: flow-cluster"):
        load_flow("flow-voise")


def test_set_reaches_the_settings_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "flow.yml"
    path.write_text("steps: {a: {kind: x, set: {phases: {all: {steps: 3}}}}, verify: }")
    loaded = load_flow(path, ["steps.a.set.phases.all.steps=100", "name=other"])
    assert loaded.steps == {"a": {"kind": "x", "set": {"phases": {"all": {"steps": 100}}}}, "verify": {}}
    assert loaded.name == "other"


def test_sources_are_absolute_and_the_folder_remembers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flow.yml"
    path.write_text("steps: {prepare: {}}")
    monkeypatch.chdir(tmp_path)
    loaded = load_flow(path, sources=["talks", "s3://bucket/more"], folder=tmp_path / "f")
    assert loaded.sources == (str(tmp_path / "talks"), "s3://bucket/more")
    (tmp_path / "f").mkdir()
    save_flow(tmp_path / "f", loaded)
    again = load_flow(tmp_path / "f")
    assert again == loaded


def test_nested_settings_become_overrides() -> None:
    assert as_overrides({"a": {"b": 1, "c": {"d": "x y"}}, "e": [1, 2], "f": {}}) == [
        "a.b=1", 'a.c.d="x y"', "e=[1, 2]", "f={}",
    ]  # fmt: skip


def test_systems_have_names_that_are_not_those_of_models(tmp_path: Path) -> None:
    steps = {"m": {"kind": MODEL}, "evaluate": {"models": "m", "systems": {"m": "human"}}}
    with pytest.raises(SettingsError, match="the system 'm' must have a name"):
        run_flow(flow(tmp_path, steps))
    assert list(tmp_path.iterdir()) == [], "checked before anything runs"


@pytest.mark.parametrize("given", [{}, {"codec": "m", "checkpoint": "openbmb/VoxCPM2"}])
def test_latents_are_of_one_codec(given: dict[str, str], tmp_path: Path) -> None:
    steps = {"c": {"kind": MAKE}, "m": {"kind": MODEL}, "encode": {"corpus": "c", **given}}
    with pytest.raises(SettingsError, match=r"step encode: give one of codec \(a step\) and checkpoint"):
        run_flow(flow(tmp_path, steps))


def test_from_and_until() -> None:
    names = ["a", "b", "c"]
    assert chosen_steps(names) == names
    assert chosen_steps(names, "b") == ["b", "c"] and chosen_steps(names, None, "b") == ["a", "b"]
    for first, last, words in (
        ("c", "a", "exchange them"),
        ("d", None, "steps: a, b, c"),
        (None, "bb", "no such step"),
    ):
        with pytest.raises(FlowError, match=words):
            chosen_steps(names, first, last)


@pytest.mark.parametrize("name", recipes())
def test_recipes_load(name: str, tmp_path: Path) -> None:
    loaded = load_flow(name, sources=[str(tmp_path)], folder=tmp_path / "flow")
    assert isinstance(loaded, FlowSettings) and loaded.name == name
    _, steps = open_flow(loaded)
    for step in steps.values():
        step.effective()


def test_the_page_names_every_kind_with_its_inputs_and_every_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "flow.md").read_text()
    for name in recipes():
        assert f"| `{name}` |" in page
    for name in KINDS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |") and line.count("|") == 5][:1]
        kind = step_kind(name, name)
        assert [f"`{setting}`" for setting in kind.takes if f"`{setting}`" not in row] == []


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_names_its_own_command(name: str) -> None:
    text = (files("voxmill.flow") / "recipes" / f"{name}.yaml").read_text()
    assert f"voxmill run {name}" in text.split("name:")[0]
