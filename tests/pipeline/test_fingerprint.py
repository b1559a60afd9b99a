"""The fingerprint: of settings and not of the machine, with the sources' rules; corpora of older versions still work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.recordings import noise, write

import pipeline.runs.fingerprint
from catalogs.corpus.commit import CorpusError, bind_fingerprint, corpus_info, create_corpus
from catalogs.corpus.thresholds import Thresholds, save_thresholds
from catalogs.settings import dump_settings
from pipeline.config import PrepareConfig, load_config
from pipeline.inputs.manifests import SourceError
from pipeline.prepare import prepare
from pipeline.runs.fingerprint import fingerprint, made_with, settle
from voxmill.forecast import show_forecast
from voxmill.terminal import Terminal

#: (overrides, weights of the separator on the machine) -> fingerprint that commit fae81e6 bound a corpus to.
OLD = [
    ((), False, "fdddf178936b1133"),
    ((), True, "dc6ac3b9c3154961"),
    (("profile=studio",), False, "c5d70d31d0dec4cc"),
    (("profile=studio",), True, "c33c9877ca861790"),
    (("separate.mode=always",), True, "d95997128e960868"),
    (("separate.mode=off",), False, "1b5c6deb9158f28d"),
]


def weights_here(monkeypatch: pytest.MonkeyPatch, here: bool) -> None:
    monkeypatch.setattr("catalogs.weights.registry.available", lambda name: here)
    monkeypatch.setattr("pipeline.stages.separate.available", lambda name: here)


def mode(config: PrepareConfig) -> str:
    return str(config.model_dump()["separate"]["mode"])


def test_it_does_not_depend_on_which_weights_lie_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {}
    for here in (False, True):
        weights_here(monkeypatch, here)
        found[here] = [fingerprint(load_config()), fingerprint(load_config(None, ["separate.mode=off"]))]
        assert mode(settle(load_config(), tmp_path / "new").config) == ("always" if here else "off")
    assert found[False] == found[True]


@pytest.mark.parametrize("override", ["sources.session=file", "sources.session_s=600", "sources.language=no"])
def test_the_rules_of_the_sources_are_part_of_it(override: str, tmp_path: Path) -> None:
    settled = settle(load_config(), tmp_path)
    assert settle(load_config(None, [override]), tmp_path).fingerprint != settled.fingerprint


@pytest.mark.parametrize("override", ["unit_s=600.0", "unit_s=auto", "unit_s=30"])
def test_the_size_of_units_is_not_part_of_it(override: str) -> None:
    assert fingerprint(load_config(None, [override])) == fingerprint(load_config())


@pytest.mark.parametrize("made_with", [False, True])
def test_a_corpus_goes_on_as_it_was_made_whatever_weights_come_or_go(
    made_with: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights_here(monkeypatch, made_with)
    root = tmp_path / "my corpus"
    create_corpus(root)
    first = settle(load_config(), root)
    bind_fingerprint(root, first.fingerprint)
    weights_here(monkeypatch, not made_with)
    again = settle(load_config(), root)
    assert again.fingerprint == first.fingerprint and mode(again.config) == mode(first.config)
    if not made_with:
        assert again.notice is not None and "without source separation" in again.notice
        assert f"'{root}'" in again.notice and "--redo" in again.notice
        assert mode(settle(load_config(), root, redo=True).config) == "always"
    else:
        # The run then stops for the missing weights, on this machine and on every node: mode `always`.
        assert mode(again.config) == "always" and again.notice is None


@pytest.mark.parametrize(("overrides", "made_with", "bound"), OLD)
@pytest.mark.parametrize("here", [False, True])
def test_a_corpus_that_an_older_version_bound_goes_on_with_the_same_command(
    overrides: tuple[str, ...], made_with: bool, bound: str, here: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights_here(monkeypatch, here)
    config = load_config(None, overrides)
    create_corpus(tmp_path)
    (tmp_path / "prepare.yaml").write_text(dump_settings(config), encoding="utf-8")
    bind_fingerprint(tmp_path, bound)
    settled = settle(config, tmp_path)
    assert settled.fingerprint == bound
    assert mode(settled.config) == ("always" if made_with else "off")
    bind_fingerprint(tmp_path, settled.fingerprint)
    other = settle(load_config(None, [*overrides, "sources.session=file"]), tmp_path)
    with pytest.raises(CorpusError, match="other settings"):
        bind_fingerprint(tmp_path, other.fingerprint)


def test_a_corpus_of_a_version_that_the_stage_continues_goes_on_and_of_another_does_not(tmp_path: Path) -> None:
    config = load_config(None, ["separate.mode=off"])
    earlier = fingerprint(config, {"classify_emotion": "2"})
    assert earlier != fingerprint(config)
    for name, version, goes_on in (("second", "2", True), ("first", "1", False)):
        root = tmp_path / name
        create_corpus(root)
        bound = fingerprint(config, {"classify_emotion": version})
        bind_fingerprint(root, bound)
        assert (settle(config, root).fingerprint == bound) == goes_on
        assert settle(config, root, redo=True).fingerprint == fingerprint(config)


def test_prepare_says_what_was_decided_and_binds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    weights_here(monkeypatch, False)
    monkeypatch.setattr("pipeline.prepare.check_weights", lambda names: None)
    processed: list[str] = []
    monkeypatch.setattr(
        "pipeline.prepare._run", lambda root, scratch, work, config, *rest: processed.append(mode(config))
    )
    audio = write(tmp_path / "a.wav", noise(1, 16_000), 16_000)
    for here, words in ((False, "voxmill models pull htdemucs"), (True, "so it stays off")):
        weights_here(monkeypatch, here)
        caplog.clear()
        prepare([str(audio)], tmp_path / "corpus", load_config())
        assert words in caplog.text
    assert processed == ["off", "off"]
    info = corpus_info(tmp_path / "corpus")
    assert info["fingerprint"] == fingerprint(load_config(None, ["separate.mode=off"]))
    assert json.loads((tmp_path / "corpus" / "run.json").read_text())["fingerprint"] == info["fingerprint"]
    assert "mode: 'off'" in (tmp_path / "corpus" / "prepare.yaml").read_text()


@pytest.mark.parametrize(("redo", "expected"), [(False, "off"), (True, "always")])
def test_a_dry_run_decides_as_the_run_would(
    redo: bool, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the corpus, not by this machine: separation as it was decided, thresholds as they were saved."""
    weights_here(monkeypatch, False)
    root = tmp_path / "corpus"
    create_corpus(root)
    bind_fingerprint(root, settle(load_config(), root).fingerprint)
    save_thresholds(root, Thresholds(min_snr_db=30.0))
    weights_here(monkeypatch, True)
    seen: list[tuple[str, float | None]] = []

    def stop(found: Any, root: Path, config: Any, *rest: Any, **more: Any) -> None:
        seen.append((mode(config), config.thresholds.min_snr_db))
        assert more["redo"] is redo
        raise ValueError("enough")

    monkeypatch.setattr("pipeline.runs.weights.check_weights", lambda names: None)
    monkeypatch.setattr("pipeline.forecast.forecast.forecast", stop)
    audio = write(tmp_path / "a.wav", noise(1, 16_000), 16_000)
    with pytest.raises(ValueError, match="enough"):
        show_forecast([str(audio)], root, load_config(), None, Terminal(), redo)
    assert seen == [(expected, 30.0)]
    said = capsys.readouterr().out
    assert "min_snr_db 30" in said and ("so it stays off" in said) is not redo


def test_keys_that_change_speed_only_are_left_out() -> None:
    assert "threads" in pipeline.runs.fingerprint.RUNTIME_KEYS
    assert fingerprint(load_config(None, ["embed_speaker.batch_size=3"])) == fingerprint(load_config())


def test_a_setting_that_is_gone_is_accepted_and_told_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files of before name it: a corpus' own prepare.yaml, a settings file, `--set`."""
    file = tmp_path / "prepare.yaml"
    file.write_text(dump_settings(load_config()).replace("transcribe:\n", "transcribe:\n  batch_size: 8\n"))
    given = ["transcribe.batch_size=3"]
    for config in (load_config(None, given), load_config(file), load_config(file, given)):
        assert fingerprint(config) == fingerprint(load_config())
        assert "batch_size" not in config.model_dump()["transcribe"]
    monkeypatch.setattr("pipeline.prepare.check_weights", lambda names: None)
    with caplog.at_level("INFO", "pipeline"), pytest.raises(SourceError, match="no such file"):
        prepare([str(tmp_path / "nowhere")], tmp_path / "corpus", config)
    said = [line for line in caplog.messages if "batch_size" in line]
    assert said == [
        "setting transcribe.batch_size is ignored: segments are recognized one by one, because batches were not faster; "
        "remove it"
    ]
    monkeypatch.setattr("pipeline.runs.weights.check_weights", lambda names: None)
    with pytest.raises(SourceError, match="no such file"):
        show_forecast([str(tmp_path / "nowhere")], tmp_path / "corpus", config, None, Terminal())
    assert capsys.readouterr().out.count("setting transcribe.batch_size is ignored") == 1
    assert load_config().ignored == []


def test_the_stages_of_a_corpus_are_known_if_they_are_those_of_this_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made_with(tmp_path) is None
    create_corpus(tmp_path)
    config = load_config(None, ["separate.mode=off"])
    (tmp_path / "prepare.yaml").write_text(dump_settings(config), encoding="utf-8")
    bind_fingerprint(tmp_path, fingerprint(config))
    found = made_with(tmp_path)
    assert found is not None and [stage for stage, _, _ in found] == list(config.chain.names)
    models = {name: digest for _, _, used in found for name, digest in used.items()}
    assert "whisper-base" in models and all(len(digest) >= 16 for digest in models.values())
    monkeypatch.setattr("pipeline.stages.transcribe.Transcribe.version", "of another version")
    monkeypatch.setattr("pipeline.stages.transcribe.Transcribe.continues", ())
    assert made_with(tmp_path) is None
    (tmp_path / "prepare.yaml").write_text("nonsense: 1\n", encoding="utf-8")
    assert made_with(tmp_path) is None
