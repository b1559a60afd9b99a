"""The summary of a run: what counts, what is left out and shown, and in which unit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_runs import Floor, Likeness, Rates, fake_metrics, items, planned_run, rate_plan

from catalogs.vocabulary.languages import languages
from evaluation.items import Item
from evaluation.results.figures import FAILED, read_figures
from evaluation.results.groups import family, length_of
from evaluation.results.summary import FILE, Cell, Summary, summary
from evaluation.results.units import paper_unit
from evaluation.runs.folder import create_run, open_run
from evaluation.tables import markdown

EXCESS = (("fake_words.wer", "fake_floor.floor_wer"),)


def cell(found: Summary, name: str, list_name: str = "fake", language: str = "en") -> Cell:
    one = found.cell(list_name, language, name)
    assert one is not None
    return one


def value(one: Cell) -> float:
    assert one.estimate is not None
    return one.estimate.value


def test_a_failed_take_counts_as_the_value_says_or_is_left_out_and_shown(tmp_path: Path) -> None:
    clip = tmp_path / "voice.wav"
    soundfile.write(clip, np.full(800, 0.1, np.float32), 8000)
    wanted = items(20, reference=clip)
    good = rate_plan({item.name: 0.1 for item in wanted}, cosine=0.8)
    run = planned_run(
        tmp_path, "a", wanted, lambda item, seed: "crashed" if item.name == "fake-en-3" else good(item, seed)
    )
    found = summary(run, fake_metrics())
    rate, likeness = cell(found, "fake_words.wer"), cell(found, "fake_voice.cosine")
    assert value(rate) == pytest.approx((19 * 10 + 100) / 20)
    assert (rate.items, rate.failed, rate.left_out, rate.not_measured) == (20, {"error": 1}, 0, 0)
    # The failed take has as many words as the others have on average, and all of them are wrong.
    assert rate.corpus is not None and rate.corpus.value == pytest.approx((19 * 10 + 100) / 20)
    assert value(likeness) == pytest.approx(0.8)
    assert (likeness.failed, likeness.left_out, likeness.unit) == ({"error": 1}, 1, "cosine")
    assert value(cell(found, FAILED)) == pytest.approx(5.0)
    assert found.failed == {"error": 1}


def test_a_system_that_always_fails_has_all_words_wrong(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "a", items(12), lambda item, seed: "crashed")
    found = summary(run, fake_metrics())
    assert value(cell(found, "fake_words.wer")) == 100
    assert value(cell(found, FAILED)) == 100
    assert "fake_voice" in found.not_measured


def test_the_mean_over_seeds_is_the_unit(tmp_path: Path) -> None:
    wanted = items(10)
    run = planned_run(
        tmp_path,
        "a",
        wanted,
        lambda item, seed: {"wer": 0.2 * seed, "word_errors": 2 * seed, "words": 10},
        seeds=(0, 1, 2),
    )
    found = cell(summary(run, fake_metrics()), "fake_words.wer")
    assert found.estimate is not None and found.corpus is not None
    assert (found.items, found.takes, found.estimate.items) == (10, 30, 10)
    assert found.estimate.value == pytest.approx(20)
    assert found.variance is not None and found.variance["seed"] == pytest.approx(1.0)


def test_mean_corpus_ratio_median_and_shares(tmp_path: Path) -> None:
    wanted = items(8)
    rates = dict(zip((item.name for item in wanted), (0, 0, 0, 0.1, 0.1, 0.2, 0.6, 1.0), strict=True))

    def plan(item: Item, seed: int) -> dict[str, float]:
        words = 20 if rates[item.name] > 0.5 else 5
        return {"wer": rates[item.name], "word_errors": rates[item.name] * words, "words": words}

    found = cell(summary(planned_run(tmp_path, "a", wanted, plan), fake_metrics()), "fake_words.wer")
    assert value(found) == pytest.approx(25)
    assert found.corpus is not None and found.corpus.value == pytest.approx(100 * (0.4 * 5 + 1.6 * 20) / 70)
    assert found.median == pytest.approx(10)
    assert found.bad is not None and found.bad.value == pytest.approx(25)
    assert found.exact is not None and found.exact.value == pytest.approx(37.5)


def test_takes_without_a_figure_are_counted_as_not_measured(tmp_path: Path) -> None:
    good = rate_plan({item.name: 0.1 for item in items(10)})
    run = planned_run(
        tmp_path, "a", items(10), lambda item, seed: None if item.name == "fake-en-0" else good(item, seed)
    )
    found = cell(summary(run, fake_metrics()), "fake_words.wer")
    assert (found.items, found.not_measured, found.left_out) == (10, 1, 0)
    assert found.estimate is not None and found.estimate.items == 9


def test_a_metric_without_rows_is_named_with_the_reason(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "a", items(3), rate_plan({item.name: 0.1 for item in items(3)}), scored=False)
    assert "voxmill evaluate score" in read_figures(run, [Rates()]).not_measured["fake_words"]
    run = planned_run(tmp_path, "b", items(3), rate_plan({item.name: 0.1 for item in items(3)}))
    changed = Rates()
    changed.version = 2
    assert "another version" in read_figures(run, [changed]).not_measured["fake_words"]
    assert "reference" in read_figures(run, [Likeness()]).not_measured["fake_voice"]


def test_items_that_were_not_spoken_are_counted(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "a", items(3), rate_plan({item.name: 0.1 for item in items(9)}))
    with (run.root / "items.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "later", "language_id": "en", "list": "fake"}) + "\n")
    assert summary(open_run(run.root), [Rates()]).unmade == 1


def test_languages_have_their_unit_and_a_mean_says_how_many_have_which(tmp_path: Path) -> None:
    wanted = [*items(10, "en", "many-en"), *items(10, "de", "many-de"), *items(10, "ja", "many-ja")]
    rates = {item.name: {"en": 0.1, "de": 0.2, "ja": 0.6}[item.language] for item in wanted}
    found = summary(planned_run(tmp_path, "a", wanted, rate_plan(rates)), fake_metrics())
    japanese = cell(found, "fake_words.cer", "many-ja", "ja")
    assert (japanese.unit, japanese.headline) == ("% CER", True) and value(japanese) == pytest.approx(30)
    assert not cell(found, "fake_words.wer", "many-ja", "ja").headline
    assert cell(found, "fake_words.wer", "many-en", "en").headline
    (macro,) = [one for one in found.macros if one.name == "fake_words.error"]
    assert (macro.family, macro.languages, macro.wer, macro.cer) == ("many", 3, 2, 1)
    assert macro.estimate.value == pytest.approx((10 + 20 + 30) / 3)


def test_the_paper_counts_eleven_languages_by_characters() -> None:
    by_characters = {code for code in languages() if paper_unit(code) == "CER"}
    assert by_characters == {"ar", "he", "hi", "ja", "km", "ko", "lo", "my", "sw", "th", "zh"}
    assert paper_unit("zh-CN") == "CER" and paper_unit("en_us") == "WER"
    assert {paper_unit(code) for code in ("cmn", "nan", "wuu", "jpn", "kor", "zh_CN")} == {"CER"}
    assert paper_unit("yue") == "CER" and paper_unit("pt-BR") == paper_unit("ca") == "WER"


def test_the_error_above_the_recordings_is_a_value(tmp_path: Path) -> None:
    wanted = items(10)
    run = planned_run(tmp_path, "a", wanted, rate_plan({item.name: 0.15 for item in wanted}, floor_wer=0.05))
    found = summary(run, [Rates(), Floor()], EXCESS)
    excess = cell(found, "fake_words.wer_excess")
    assert value(excess) == pytest.approx(10) and excess.unit == "% WER"
    assert "above the recordings" in excess.title and excess.better == "lower"


def test_groups_have_rows_and_voices_that_are_few_are_named(tmp_path: Path) -> None:
    wanted = items(12, voices=2)
    rates = {
        item.name: 0.3 if item.groups["speaker"] == "s1" else 0.05 + number / 1000 for number, item in enumerate(wanted)
    }
    found = summary(planned_run(tmp_path, "a", wanted, rate_plan(rates)), [Rates()])
    by_speaker = {one.level: one for one in found.cells if one.group == "speaker" and one.name == "fake_words.wer"}
    assert by_speaker.keys() == {"s0", "s1"} and value(by_speaker["s1"]) == pytest.approx(30)
    assert by_speaker["s1"].estimate is not None
    assert by_speaker["s1"].estimate.reason == "all 6 items have the same value"
    whole = cell(found, "fake_words.wer")
    assert whole.estimate is not None and whole.estimate.scope == "these two voices"


def test_lengths_and_families() -> None:
    assert length_of(Item("short", "en")) == "short" and length_of(Item("a" * 151, "en")) == "long"
    assert length_of(Item("字" * 20, "zh")) == "medium"
    assert family("minimax-de", "de") == "minimax" and family("seed-hard", "zh") == "seed-hard"


def test_the_file_is_json_and_is_rebuilt(tmp_path: Path) -> None:
    wanted = items(6)
    run = planned_run(tmp_path, "a", wanted, rate_plan({item.name: 0.1 for item in wanted}))
    first = summary(run, [Rates()]).as_json()
    assert json.loads((run.root / FILE).read_text("utf-8")) == json.loads(json.dumps(first))
    (run.root / FILE).unlink()
    assert summary(run, [Rates()]).as_json() == first


def test_items_without_a_list_have_the_name_of_the_file(tmp_path: Path) -> None:
    wanted = [replace(item, list_name="") for item in items(5)]
    found = summary(planned_run(tmp_path, "a", wanted, rate_plan({item.name: 0.1 for item in items(5)})), [Rates()])
    assert {one.list for one in found.cells} == {"items"}


def test_a_figure_that_is_not_finite_is_not_measured(tmp_path: Path) -> None:
    figures = {"fake-en-0": float("nan"), "fake-en-1": float("inf")}
    run = planned_run(tmp_path, "a", items(10), lambda item, seed: {"wer": figures.get(item.name, 0.1)})
    found = cell(summary(run, [Rates()]), "fake_words.wer")
    assert found.not_measured == 2 and value(found) == pytest.approx(10)


def test_clips_of_one_name_in_two_folders_are_two_speakers(tmp_path: Path) -> None:
    wanted = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        clip = tmp_path / folder / "voice.wav"
        soundfile.write(clip, np.full(800, 0.1 if folder == "a" else 0.2, np.float32), 8000)
        wanted += items(5, list_name="fake", reference=clip)
    found = summary(planned_run(tmp_path, "run", wanted, rate_plan({item.name: 0.1 for item in wanted})), [Rates()])
    assert {one.level for one in found.cells if one.group == "speaker"} == {"a/voice", "b/voice"}
    assert {one.items for one in found.cells if one.group == "speaker"} == {5}


def test_a_run_without_takes_has_no_cells(tmp_path: Path) -> None:
    run = create_run(tmp_path / "a", {"name": "a", "system": {}}, items(3), [0])
    found = summary(run, fake_metrics())
    assert (found.cells, found.unmade, found.takes) == ([], 3, 0)
    assert "3 takes have not been spoken" in markdown([run], fake_metrics())
