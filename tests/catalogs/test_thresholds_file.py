"""`voxmill catalog --thresholds FILE`: limits from a YAML file, and one line for whatever is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpus_builders import make_unit
from typer.testing import CliRunner

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.thresholds import (
    Thresholds,
    apply_saved,
    change_thresholds,
    load_thresholds,
    save_thresholds,
    saved_wins,
    thresholds_path,
)
from catalogs.query.views import build_catalog, query
from catalogs.settings import SettingsError, dump_settings
from pipeline.runs.summary import nothing_to_do
from voxmill.cli import app


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six segments of 20, 25 ... 45 dB. Not to be changed."""
    root = tmp_path_factory.mktemp("whole") / "corpus"
    create_corpus(root)
    unit = make_unit("a", 6)
    for number, row in enumerate(unit.rows):
        row["snr_db"] = 20.0 + 5 * number
    commit_unit(root, unit)
    return root


@pytest.fixture
def corpus(whole: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "corpus"))


def kept(corpus: Path) -> int:
    return query(corpus, "select count(*) from segments where kept")[1][0][0]


def test_the_file_changes_what_it_names_and_overrides_come_after_it(corpus: Path, tmp_path: Path) -> None:
    save_thresholds(corpus, Thresholds(max_clipping=0.5))
    file = tmp_path / "strict.yaml"
    file.write_text("min_snr_db: 28\nmax_tail_silence_s: null\n", encoding="utf-8")
    assert kept(corpus) == 5
    before = json.loads(json.dumps(query(corpus, "select segment_id, snr_db from segments order by seq")[1]))
    changed = change_thresholds(corpus, ["min_dnsmos_ovr=3.0"], file)
    assert changed == Thresholds(max_clipping=0.5, min_snr_db=28, max_tail_silence_s=None, min_dnsmos_ovr=3.0)
    assert load_thresholds(corpus) == changed
    build_catalog(corpus)
    rows = query(corpus, "select segment_id, snr_db, kept, reasons from segments order by seq")[1]
    assert [row[:2] for row in rows] == [tuple(row) for row in before]
    assert [row[3] for row in rows] == [["noisy"], ["noisy"], [], [], [], ["too_short"]]
    assert change_thresholds(corpus, ["min_snr_db=22"], file).min_snr_db == 22


def test_a_prepare_config_serves_as_it_is(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "prepare.yaml"
    file.write_text("thresholds:\n  min_snr_db: 33\n", encoding="utf-8")
    assert change_thresholds(corpus, file=file).min_snr_db == 33


def say(*arguments: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_differs_from_the_defaults_is_listed_with_what_it_costs(corpus: Path) -> None:
    found = say("catalog", corpus, "--set", "min_snr_db=28", "--set", "min_dnsmos_ovr=3.0")
    assert (found["kept_before"], found["kept"]) == (5, 3)
    assert [row["threshold"] for row in found["thresholds"]] == ["min_dnsmos_ovr", "min_snr_db"]
    assert found["thresholds"][1] == {
        **{"threshold": "min_snr_db", "default": "15", "now": "28", "set by": "catalog", "kept at the default": 5}
    }
    assert say("catalog", corpus)["thresholds"] == found["thresholds"]


def test_reset_goes_back_whole_or_by_name(corpus: Path) -> None:
    (corpus / "prepare.yaml").write_text("thresholds: {min_snr_db: 22}\n", encoding="utf-8")
    assert kept(corpus) == 4
    say("catalog", corpus, "--set", "min_snr_db=33", "--set", "max_clipping=0.5")
    found = say("catalog", corpus, "--set", "min_snr_db=default")
    assert found["kept"] == 4 and load_thresholds(corpus) == Thresholds(min_snr_db=22, max_clipping=0.5)
    assert {row["threshold"]: row["set by"] for row in found["thresholds"]} == {
        "min_snr_db": "prepare",
        "max_clipping": "catalog",
    }
    assert say("catalog", corpus, "--reset", "--set", "min_snr_db=28")["kept"] == 3
    assert say("catalog", corpus, "--reset")["kept"] == 4 and not thresholds_path(corpus).exists()


def test_what_was_saved_wins_over_a_later_prepare_name_by_name_and_is_said(corpus: Path) -> None:
    change_thresholds(corpus, ["min_snr_db=40"])
    asked = Thresholds(min_snr_db=5, max_clipping=0.5)
    line = saved_wins(corpus, asked)
    assert line is not None and "min_snr_db 40 (not 5)" in line and "--reset" in line and "max_clipping" not in line
    assert apply_saved(corpus, asked) == Thresholds(min_snr_db=40, max_clipping=0.5)
    assert saved_wins(corpus, Thresholds(min_snr_db=40)) is None


def test_a_file_that_holds_all_of_them_is_still_read(corpus: Path) -> None:
    thresholds_path(corpus).write_text(dump_settings(Thresholds(min_snr_db=33)), encoding="utf-8")
    assert load_thresholds(corpus) == Thresholds(min_snr_db=33)
    assert say("catalog", corpus, "--reset")["kept"] == 5


def test_a_list_may_be_one_word_and_a_wrong_one_says_how_to_write_it(corpus: Path) -> None:
    assert change_thresholds(corpus, ["drop_flags=upsampled"]).drop_flags == ("upsampled",)
    with pytest.raises(SettingsError, match=r"no flag clipped; flags: .*drop_flags=\[looping_text,stock_phrase\]"):
        change_thresholds(corpus, ["drop_flags=clipped"])
    with pytest.raises(SettingsError, match=r"in brackets: drop_flags=\[3\]"):
        change_thresholds(corpus, ["drop_flags=3"])


def test_an_empty_file_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n", encoding="utf-8")
    assert change_thresholds(corpus, file=file) == Thresholds()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min_snr: 3", "unknown setting min_snr; did you mean min_snr_db?"),
        ("thresholds:\n  min_snr: 3", "unknown setting min_snr; did you mean min_snr_db?"),
        ("min_dnsmos_ovr: 9", "setting min_dnsmos_ovr: input should be less than or equal to 5"),
        ("min_snr_db: loud", "setting min_snr_db"),
        ("drop_flags: [loud]", "setting drop_flags: no flag loud"),
        ("- min_snr_db", "must hold key: value pairs"),
        ("thresholds: 3", "must hold name: value pairs"),
        ("min_snr_db: [", "is not valid YAML"),
        (None, "cannot read the config"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file_and_changes_nothing(
    corpus: Path, tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "limits.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        change_thresholds(corpus, ["min_snr_db=1"], file)
    message = str(caught.value)
    assert words in message and "limits.yaml" in message and "\n" not in message
    assert not thresholds_path(corpus).exists()


def test_the_command_says_how_many_are_kept(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "strict.yaml"
    file.write_text("min_snr_db: 38\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["catalog", str(corpus), "--thresholds", str(file), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["kept"] == 1 and kept(corpus) == 1


def test_a_run_without_anything_to_do_says_what_the_corpus_has(tmp_path: Path) -> None:
    create_corpus(tmp_path / "my corpus")
    commit_unit(tmp_path / "my corpus", make_unit("a", 6))
    line = nothing_to_do(tmp_path / "my corpus")
    assert line.startswith(f"nothing to do; '{tmp_path}/my corpus' has 1 recording, 7.5 s kept")


def test_a_name_that_is_unknown_is_refused_also_with_default(corpus: Path) -> None:
    with pytest.raises(SettingsError, match="no_such"):
        change_thresholds(corpus, ["no_such=default"])


def test_a_file_without_a_threshold_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    change_thresholds(corpus, ["min_snr_db=30"])
    file = tmp_path / "empty.yaml"
    file.write_text("thresholds:\n", encoding="utf-8")
    assert change_thresholds(corpus, file=file) == load_thresholds(corpus)
    assert load_thresholds(corpus).min_snr_db == 30
