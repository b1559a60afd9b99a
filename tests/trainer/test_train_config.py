"""Settings: every recipe is valid, what contradicts itself is one line, the resolved form is complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from catalogs.settings import SettingsError, dump_settings
from trainer.config import TrainConfig, load_train_config, recipes


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_valid_and_survives_being_written(name: str, tmp_path: Path) -> None:
    config = load_train_config(name, ["corpus=c", "output=o"])
    path = tmp_path / "train.yaml"
    path.write_text(dump_settings(config), encoding="utf-8")
    assert load_train_config(path) == config
    assert config.corpora == ["c"] and config.total_steps > 0


def test_the_curriculum_s_stages_are_there() -> None:
    assert {"toy", "finetune_lora", "stage1", "stage2", "stage3"} <= set(recipes())
    longest = [max(p.max_seconds for p in load_train_config(f"stage{n}").phases.values()) for n in (1, 2, 3)]
    positions = [max(p.max_positions for p in load_train_config(f"stage{n}").phases.values()) for n in (1, 2, 3)]
    assert longest == [60, 180, 300] and positions == [4096, 8192, 8192]


def test_the_stages_leave_copies_out_bring_control_in_and_begin_gently() -> None:
    stages = [phase for n in (1, 2, 3) for phase in load_train_config(f"stage{n}").phases.values()]
    assert len(stages) == 3
    for number, phase in enumerate(stages, 1):
        assert "duplicate_of is null" in phase.where and phase.warmup > 0
        assert load_train_config(f"stage{number}").checkpoint.export_every
    first, joint, annealing = stages
    assert joint.layouts_from == first.layouts and joint.ramp < 1
    assert joint.decoupled > annealing.decoupled > first.decoupled == 0
    assert annealing.language_temperature < first.language_temperature
    weights = [stage.layouts.model_dump()["controllable"] for stage in (annealing, joint, first)]
    assert weights[0] > weights[1] > weights[2] == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("phases.toy.step=3", r"unknown setting phases\.toy\.step; did you mean steps"),
        ("phases.toy.layouts.desing=1", r"did you mean design"),
        ("phases.toy.lr=0", r"phases\.toy\.lr: .*greater than 0"),
        ("model.start=x\nmodel.codec=y", r"start brings its own"),
        ("model.lora={}", r"lora adapts a trained model: give model\.start"),
        ("phases.toy.ramp=0.7", r"give layouts_from"),
        ("phases.toy.language_weights={en: -1}", r"language_weights.*greater than or equal to 0"),
        ("phases.toy.max_repeats=0.5", r"max_repeats"),
        ("phases={}", r"setting phases: .*at least 1"),
        ("model.size=huge", r"setting model\.size"),
        ("save_evry=3", r"unknown setting save_evry; did you mean checkpoint\.every\?"),
        ("checkpoint.evry=3", r"unknown setting checkpoint\.evry; did you mean every\?"),
        ("save_every=0", r"setting checkpoint\.every: .*greater than 0"),
        ("compute=cpu", r"setting compute"),
    ],
)
def test_what_cannot_be_meant_is_one_line(setting: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        load_train_config("toy", setting.split("\n"))
    assert "\n" not in str(refused.value)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"recipes: finetune_lora, stage1, stage2, stage3, toy"):
        load_train_config("stage9")


def test_steps_shorten_a_run() -> None:
    values = yaml.safe_load("{corpus: c, output: o, phases: {a: {steps: 5}, b: {steps: 7}}}")
    assert TrainConfig.model_validate(values).total_steps == 12
    assert TrainConfig.model_validate(values | {"steps": 6}).total_steps == 6
    assert TrainConfig.model_validate(values | {"steps": 60}).total_steps == 12


def test_a_setting_of_a_phase_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"phases\.main\.steps=3: toy has phases: toy; ") as refused:
        load_train_config("toy", ["corpus=c", "phases.main.steps=3"])
    assert "\n" not in str(refused.value)
    assert load_train_config("toy", ["phases.toy.steps=3"]).phases["toy"].steps == 3
    more = load_train_config("toy", ["phases.more={steps: 3}", "phases.more.lr=0.5"])
    assert list(more.phases) == ["toy", "more"] and more.phases["more"].lr == 0.5


def test_a_file_without_phases_may_be_given_whole_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("corpus: c\noutput: o\n", encoding="utf-8")
    assert list(load_train_config(tmp_path / "mine.yaml", ["phases.one={steps: 3}"]).phases) == ["one"]
    with pytest.raises(SettingsError, match="has phases: none"):
        load_train_config(tmp_path / "mine.yaml", ["phases.one.steps=3"])


def test_latents_of_adapters_lie_in_the_output_and_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    voice = load_train_config("finetune_lora", ["output=~/my-voice", "model.start=~/base"])
    assert voice.latent_folder == "/home/me/my-voice/latents" and voice.model.start == "/home/me/base"
    assert load_train_config("finetune_lora").model.start == "openbmb/VoxCPM2"
    assert load_train_config("finetune_lora", ["latent_cache=~/lat"]).latent_folder == "/home/me/lat"
    assert load_train_config("finetune_lora", ["latent_cache=null"]).latent_folder is None
    assert load_train_config("stage1").latent_folder is None
    parts = load_train_config("toy", ["model.codec=~/codec", "model.tokenizer=~/tokenizer"]).model
    assert (parts.codec, parts.tokenizer) == ("/home/me/codec", "/home/me/tokenizer")


FLAT = {
    "launch": "ray", "workers": 3, "address": "auto", "parallel": "ddp", "device": "cpu", "dtype": "bfloat16", "threads": 2,
    "compile": "auto", "recompute": True, "history_noise": 0.5, "history_drop": 0.25, "save_every": 7, "keep": 3,
    "async_save": True, "export_every": 14, "max_bad_steps": 4,
}  # fmt: skip
GROUPED = {
    "launch": {"backend": "ray", "workers": 3, "address": "auto", "parallel": "ddp"},
    "compute": {"device": "cpu", "dtype": "bfloat16", "threads": 2, "compile": "auto", "recompute": True},
    "conditioning": {"history_noise": 0.5, "history_drop": 0.25},
    "checkpoint": {"every": 7, "keep": 3, "background": True, "export_every": 14},
    "guard": {"max_bad_steps": 4},
}


def test_settings_that_lay_loose_are_read_by_their_earlier_names(tmp_path: Path) -> None:
    """From a file, from --set and from Python; each is named in one line, and written by its name of today."""
    whole = {"corpus": "c", "output": "o", "phases": {"a": {"steps": 5}}}
    assert FLAT.keys() == TrainConfig.RENAMED.keys()
    expected = TrainConfig.model_validate(whole | GROUPED)
    (tmp_path / "flat.yaml").write_text(yaml.safe_dump(whole | FLAT), encoding="utf-8")
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    given = [f"{name}={'true' if value is True else value}" for name, value in FLAT.items()]
    for config in (
        load_train_config(tmp_path / "flat.yaml"),
        load_train_config(tmp_path / "bare.yaml", given),
        TrainConfig.model_validate(whole | FLAT),
    ):
        assert config.model_dump() == expected.model_dump()
        (line,) = config.renamed()
        assert all(f"{name} is now {TrainConfig.RENAMED[name]}" in line for name in FLAT)
    assert not expected.renamed()
    (tmp_path / "again.yaml").write_text(dump_settings(config), encoding="utf-8")
    assert load_train_config(tmp_path / "again.yaml") == expected


def test_set_wins_over_a_file_by_either_name(tmp_path: Path) -> None:
    whole = {"corpus": "c", "output": "o", "phases": {"a": {"steps": 5}}}
    for words in ({"save_every": 7, "guard": {"spike": None}}, {"checkpoint": {"every": 7, "keep": 3}}):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(whole | words), encoding="utf-8")
        for override in ("save_every=9", "checkpoint.every=9", "checkpoint={every: 9}"):
            config = load_train_config(tmp_path / "mine.yaml", [override, "max_bad_steps=2"])
            assert config.checkpoint.every == 9 and config.guard.max_bad_steps == 2
            assert (config.guard.spike is None) == ("guard" in words)
    both = whole | {"save_every": 7, "checkpoint": {"every": 8}}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(both), encoding="utf-8")
    with pytest.raises(
        SettingsError, match=r"^save_every and checkpoint\.every are the same setting: remove save_every$"
    ):
        load_train_config(tmp_path / "both.yaml")
    with pytest.raises(ValueError, match="remove save_every"):
        TrainConfig.model_validate(both)
