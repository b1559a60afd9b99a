"""Stages and annotators of other packages: named in the settings they work as ours do, and what is wrong is one line."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotators.providers import provider
from catalogs.corpus.commit import create_corpus
from catalogs.extensions import ExtensionError
from catalogs.settings import SettingsError, dump_settings
from catalogs.weights import registry
from pipeline.config import load_config
from pipeline.retry import settings_of
from pipeline.runs.fingerprint import fingerprint
from pipeline.stages.chain import make_chain

STAGE = """
from pathlib import Path
from pydantic import Field
from pipeline.stage import Stage, StageConfig

class PausesConfig(StageConfig):
    longest_s: float = Field(0.5, gt=0)

class Pauses(Stage[PausesConfig]):
    name = "pauses"
    version = "1"
    config_type = PausesConfig
    inputs = ("segments", "segment.words")

    def __call__(self, session):
        return session

class Weighted(Pauses):
    name = "weighted"
    weights_table = Path(__file__).parent / "models.toml"

    def weights(self):
        return ("weighted-net",)

class Named(Pauses):
    name = "transcribe"

class Setting(Pauses):
    name = "engine"

class Spaced(Pauses):
    name = "two words"

class Versionless(Stage[PausesConfig]):
    name = "versionless"
    config_type = PausesConfig
    def __call__(self, session):
        return session

class Idle(Stage[PausesConfig]):
    name = "idle"

class Settingless(Pauses):
    name = "settingless"
    config_type = dict

class Moody(Pauses):
    inputs = ("segment.mood",)

A_NUMBER = 7
"""
ANNOTATOR = """
from annotators.providers.base import Provider

class Poet(Provider):
    name, model, prompt_version, listens = "poet", "poet-1", "1", False
    def describe(self, clips):
        return []

class Path(Poet):
    name = "../poet"

class Taken(Poet):
    name = "acoustic"

class Modelless(Provider):
    name, prompt_version, listens = "modelless", "1", False
    def describe(self, clips):
        return []

class Asking(Poet):
    def __init__(self, key):
        pass
"""
WEIGHTS = """
[weighted-net]
role = "pauses"
library = "torch"
license = "MIT"
package = "elsewhere"
install = "pip install elsewhere"
files = [{path = "net.bin", sha256 = "%s"}]
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages: `elsewhere`, with entry points, and one whose module cannot be imported."""
    folder = tmp_path / "site"
    package = folder / "elsewhere"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "stages.py").write_text(STAGE, encoding="utf-8")
    (package / "annotators.py").write_text(ANNOTATOR, encoding="utf-8")
    (package / "models.toml").write_text(WEIGHTS % ("0" * 64), encoding="utf-8")
    (package / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    about = folder / "elsewhere-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n", encoding="utf-8")
    points = (
        "[voxmill.stages]\npauses = elsewhere.stages:Pauses\nbroken = elsewhere.broken:Stage\n"
        "[voxmill.annotators]\npoet = elsewhere.annotators:Poet\n"
    )
    (about / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    make_chain.cache_clear()
    yield folder
    registry.registry().pop("weighted-net", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


def added(stage: str, after: str = "transcribe") -> str:
    return f"stages=[{{stage: '{stage}', after: {after}}}]"


def test_a_stage_of_another_package_runs_where_it_is_put_with_its_settings(elsewhere: Path, tmp_path: Path) -> None:
    plain, config = load_config(), load_config(None, [added("pauses"), "pauses.longest_s=2"])
    assert config.chain.groups[2] == ("transcribe", "pauses")
    assert [name for name in config.chain.names if name != "pauses"] == list(plain.chain.names)
    (spec,) = (spec for group in config.groups() for spec in group.stages if spec.name.startswith("elsewhere"))
    assert spec.build().config.longest_s == 2 and spec.build().name == "pauses"
    with pytest.raises(SettingsError, match=r"unknown setting pauses.longest; did you mean longest_s\?"):
        load_config(None, [added("pauses"), "pauses.longest=2"])
    # What a run writes down is what the next one reads.
    (tmp_path / "prepare.yaml").write_text(dump_settings(config), encoding="utf-8")
    assert fingerprint(load_config(tmp_path / "prepare.yaml")) == fingerprint(config)
    # And what another process is sent.
    again = pickle.loads(pickle.dumps(config))
    assert again.model_dump() == config.model_dump() and fingerprint(again) == fingerprint(config)


def test_it_is_in_the_fingerprint_if_it_is_used(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = fingerprint(load_config())
    by_name = fingerprint(load_config(None, [added("pauses")]))
    assert by_name == fingerprint(load_config(None, [added("elsewhere.stages:Pauses")])) != without
    others = [[added("pauses", "refine_cuts")], [added("pauses"), "pauses.longest_s=2"]]
    assert len({by_name, *(fingerprint(load_config(None, settings)) for settings in others)}) == 3
    monkeypatch.setattr("elsewhere.stages.Pauses.version", "2")
    assert fingerprint(load_config(None, [added("pauses")])) != by_name
    assert fingerprint(load_config()) == without


def test_stages_after_the_same_stage_run_in_the_order_listed(elsewhere: Path) -> None:
    names = ("elsewhere.stages:Pauses", "elsewhere.stages:Weighted")
    both = ", ".join(f"{{stage: '{name}', after: transcribe}}" for name in names)
    assert load_config(None, [f"stages=[{both}]"]).chain.groups[2] == ("transcribe", "pauses", "weighted")


def test_its_weights_come_with_its_package(elsewhere: Path) -> None:
    config = load_config(None, [added("elsewhere.stages:Weighted")])
    try:
        assert "weighted-net" in config.weights() and registry.pull_command(["weighted-net"]) == "pip install elsewhere"
        first = fingerprint(config)
        with pytest.raises(ExtensionError, match="weights weighted-net are known already, with other files"):
            (elsewhere / "elsewhere" / "models.toml").write_text(WEIGHTS % ("1" * 64), encoding="utf-8")
            fingerprint(config)
    finally:
        registry.registry().pop("weighted-net")
    assert fingerprint(config) != first


def test_an_entry_point_that_nobody_names_is_not_loaded(elsewhere: Path) -> None:
    load_config()
    assert not [name for name in sys.modules if name.startswith("elsewhere")]
    with pytest.raises(
        SettingsError, match=r"stage elsewhere.broken:Stage cannot be imported \(ZeroDivisionError: .*install"
    ):
        load_config(None, [added("broken")])


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            added("nobody"),
            "no stage 'nobody'; stages: decode, .*, broken, pauses; one of another package is named by its",
        ),
        (added("nowhere.stages:Pauses"), r"stage nowhere.stages:Pauses cannot be imported \(ModuleNotFoundError"),
        (added("elsewhere.stages:Gone"), r"stage elsewhere.stages:Gone cannot be imported \(AttributeError"),
        (added("../evil.py:Stage"), "'../evil.py:Stage' is not written as module:Class"),
        (added("elsewhere.stages:A_NUMBER"), "A_NUMBER is not a subclass of pipeline.stage.Stage"),
        (added("elsewhere.stages:PausesConfig"), "PausesConfig is not a subclass of"),
        (added("elsewhere.stages:Idle"), "Idle does not define __call__"),
        (added("elsewhere.stages:Versionless"), "Versionless has no version: give it to the class"),
        (added("elsewhere.stages:Settingless"), "a config_type that is not a subclass of pipeline.stage.StageConfig"),
        (added("elsewhere.stages:Named"), "has the name transcribe, which is taken"),
        (added("elsewhere.stages:Setting"), "engine is the name of a setting"),
        (added("elsewhere.stages:Spaced"), "has the name 'two words': use letters, digits and _"),
        (added("pauses", "transcripe"), "pauses follows 'transcripe', which is not a stage; stages: decode, "),
        (
            added("pauses", "segment"),
            "stage pauses reads segment.words, which no stage before it writes; place it after transcribe",
        ),
        (added("elsewhere.stages:Moody"), "stage pauses reads segment.mood, .* no stage writes it"),
        ("stages=[{stage: pauses}]", "setting stages.0.after: field required"),
        ("stages=pauses", "setting stages: .* write a list in brackets"),
        ("describe=nobody", "no annotator 'nobody'; annotators: acoustic, poet"),
        ("describe='elsewhere.annotators:Path'", "has the name '../poet': use small letters"),
        ("describe='elsewhere.annotators:Taken'", "has the name acoustic, which is taken"),
        ("describe='elsewhere.annotators:Modelless'", "has no model"),
        ("describe='elsewhere.annotators:Asking'", "cannot be made without arguments"),
        ("describe='elsewhere.stages:Pauses'", "is not a subclass of annotators.providers.base.Provider"),
    ],
)
def test_what_cannot_be_used_is_one_line(setting: str, line: str, elsewhere: Path) -> None:
    with pytest.raises(SettingsError, match=line) as caught:
        load_config(None, [setting])
    assert "\n" not in str(caught.value)


def test_two_packages_with_one_name_are_told_apart_by_their_classes(elsewhere: Path) -> None:
    about = elsewhere / "other-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[voxmill.stages]\npauses = other.stages:Pauses\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="stage 'pauses' is an entry point of two packages"):
        load_config(None, [added("pauses")])
    assert "pauses" in load_config(None, [added("elsewhere.stages:Pauses")]).chain.names


def test_an_annotator_of_another_package_is_found_by_its_entry_point(elsewhere: Path) -> None:
    assert provider("poet").name == provider("elsewhere.annotators:Poet").name == "poet"
    assert load_config(None, ["describe=poet"]).describe == "poet"
    assert load_config(None, ["describe=none"]).describe == "none"


@pytest.mark.parametrize("setting", [added("elsewhere.stages:Pauses"), "describe='elsewhere.annotators:Poet'"])
def test_code_that_comes_with_a_corpus_is_not_run(setting: str, elsewhere: Path) -> None:
    """`voxmill retry` reads the corpus' own settings, whoever wrote them."""
    root = elsewhere.parent / "corpus"
    create_corpus(root)
    (root / "prepare.yaml").write_text(dump_settings(load_config(None, [setting])), encoding="utf-8")
    assert settings_of(root)
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]
    shutil.copy(root / "corpus.json", elsewhere)
    elsewhere.joinpath("prepare.yaml").write_text((root / "prepare.yaml").read_text(), encoding="utf-8")
    with pytest.raises(ExtensionError, match="is not imported: its package elsewhere is a file of"):
        settings_of(elsewhere)
    assert not [name for name in sys.modules if name.startswith("elsewhere")]
