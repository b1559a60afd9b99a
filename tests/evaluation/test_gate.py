"""The gate: it fails on proof only, passes on proof only, and says when there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from fake_runs import Noted, Rates, fake_metrics, items, planned_run, rate_plan

from evaluation.errors import EvaluationError
from evaluation.gate import RULES, GateResult, Outcome, gate
from evaluation.items import Item
from evaluation.metrics.base import Metric, Value
from evaluation.results.rules import Rule, read_rules, resolve
from evaluation.runs.folder import Run
from evaluation.runs.score import score

WER = Rule("fake_words.wer")


def rates_of(wanted: list[Item], seed: int = 1) -> dict[str, float]:
    random = np.random.default_rng(seed)
    return {item.name: float(random.integers(0, 4)) / 10 for item in wanted}


def noisy(rates: dict[str, float], seed: int, spread: float, more: float = 0.0) -> dict[str, float]:
    """Return rates that differ from others by chance, and by `more`."""
    random = np.random.default_rng(seed)
    return {name: rate + more + spread * float(random.normal()) for name, rate in rates.items()}


def two(folder: Path, before: dict[str, float], after: dict[str, float], wanted: list[Item]) -> tuple[Run, Run]:
    return planned_run(folder, "new", wanted, rate_plan(after)), planned_run(folder, "old", wanted, rate_plan(before))


def outcome(result: GateResult, value: str = "fake_words.wer") -> Outcome:
    (one,) = [one for one in result.outcomes if one.value == value]
    return one


@pytest.mark.parametrize(
    ("spread", "more", "kind", "code"),
    [
        (0.005, 0.0, "pass", 0),
        (0.005, 0.02, "fail", 1),
        (0.2, 0.0, "not enough items", 3),
        (0.2, 0.02, "not enough items", 3),
        (0.005, -0.1, "pass", 0),
    ],
)
def test_only_an_interval_within_or_beyond_the_margin_decides(
    tmp_path: Path, spread: float, more: float, kind: str, code: int
) -> None:
    wanted = items(60)
    rates = rates_of(wanted)
    result = gate(*two(tmp_path, rates, noisy(rates, 2, spread, more), wanted), [WER], fake_metrics())
    found = outcome(result)
    assert (found.kind, result.exit_code, found.limit) == (kind, code, 0.5)
    assert outcome(result, "takes.failed").kind == "pass"
    assert (found.needed is not None) == (kind == "not enough items")
    if found.needed:
        # 60 items with a spread of 20 points: (2.8 * 20 / 0.5) ** 2.
        assert found.needed == pytest.approx((2.8 * 20 / 0.5) ** 2, rel=0.4)
        assert str(found.needed) in result.text()
    assert json.loads(json.dumps(result.as_json()))["exit_code"] == code


class Repeats(Noted):
    """Fifty repeats of a measurement, in one run."""

    name = "repeats"
    version = 1
    values = tuple(Value(f"r{number}", "repeat", "%", "lower", 1.0, None, 100.0, smallest=0.5) for number in range(50))
    schema = pa.schema([(value.column, pa.float64()) for value in values])


def repeats(texts: dict[str, float], noise: dict[str, np.ndarray], item: Item, seed: int) -> dict[str, float]:
    return {f"r{number}": texts[item.name] + float(one) for number, one in enumerate(noise[item.name])}


def test_noise_does_not_fail_in_fifty_repeats_and_a_loss_does_in_each(tmp_path: Path) -> None:
    wanted = items(60)
    random = np.random.default_rng(3)
    texts = rates_of(wanted)
    run: dict[str, Run] = {}
    for name, more in (("old", 0.0), ("new", 0.0), ("worse", 0.02)):
        # Each repeat has the texts' own difficulty, and noise of 2 points.
        noise = {item.name: 0.02 * random.normal(size=50) + more for item in wanted}
        run[name] = planned_run(tmp_path, name, wanted, partial(repeats, texts, noise), scored=False)
        score(run[name], [Repeats()])
    rules = [Rule(f"repeats.r{number}") for number in range(50)]
    kinds = [one.kind for one in gate(run["new"], run["old"], rules, [Repeats()]).outcomes]
    assert len(kinds) == 51 and "fail" not in kinds
    kinds = [one.kind for one in gate(run["worse"], run["old"], rules, [Repeats()]).outcomes]
    assert kinds.count("fail") >= 45


@pytest.mark.parametrize(("more", "kind"), [(-0.03, "fail"), (0.0, "pass"), (0.03, "pass")])
def test_where_higher_is_better_only_a_lower_figure_is_a_loss(tmp_path: Path, more: float, kind: str) -> None:
    clip = tmp_path / "voice.wav"
    soundfile.write(clip, np.full(800, 0.1, np.float32), 8000)
    wanted = items(40, reference=clip, voices=10)
    plain = rates_of(wanted)

    def run_of(name: str, seed: int, level: float) -> Run:
        random = np.random.default_rng(seed)
        likeness = {item.name: level + 0.01 * float(random.normal()) for item in wanted}
        return planned_run(
            tmp_path, name, wanted, lambda item, seed: {"wer": plain[item.name], "cosine": likeness[item.name]}
        )

    result = gate(run_of("new", 1, 0.8 + more), run_of("old", 2, 0.8), [Rule("fake_voice.cosine")], fake_metrics())
    found = outcome(result, "fake_voice.cosine")
    assert (found.kind, found.limit) == (kind, 0.01)
    assert found.estimate == pytest.approx(-more, abs=0.006)


def test_failed_takes_are_compared_without_a_rule_for_them(tmp_path: Path) -> None:
    wanted = items(60)
    plan = rate_plan(rates_of(wanted))
    old = planned_run(tmp_path, "old", wanted, plan)
    new = planned_run(
        tmp_path, "new", wanted, lambda item, seed: "crashed" if item.name[-1] in "012" else plan(item, seed)
    )
    result = gate(new, old, [Rule("fake_words.cer", margin=100)], fake_metrics())
    assert outcome(result, "takes.failed").kind == "fail" and result.exit_code == 1


def test_runs_that_are_the_same_on_all_items_pass_if_there_are_enough(tmp_path: Path) -> None:
    for count, kind in ((30, "pass"), (8, "not enough items"), (3, "not enough items")):
        wanted = items(count)
        rates = rates_of(wanted)
        found = outcome(gate(*two(tmp_path / str(count), rates, rates, wanted), [WER], fake_metrics()))
        assert found.kind == kind and (found.needed is None) == (kind == "pass")


def test_fewer_items_or_a_metric_that_is_not_measured_never_pass(tmp_path: Path) -> None:
    wanted = items(30)
    rates = rates_of(wanted)
    old = planned_run(tmp_path, "old", wanted, rate_plan(rates))
    fewer = planned_run(tmp_path, "fewer", wanted[:25], rate_plan(rates))
    result = gate(fewer, old, [WER], fake_metrics())
    assert outcome(result).kind == "items missing" and result.exit_code == 3
    assert "5 items are not in fewer, first fake-en-25" in result.text()
    unscored = planned_run(tmp_path, "unscored", wanted, rate_plan(rates), scored=False)
    result = gate(unscored, old, [WER], fake_metrics())
    assert outcome(result).kind == "not measured" and result.exit_code == 3
    assert "voxmill evaluate score" in result.text()
    plan = rate_plan(rates)
    partly = planned_run(
        tmp_path, "partly", wanted, lambda item, seed: None if item.name == "fake-en-3" else plan(item, seed)
    )
    result = gate(partly, old, [WER], fake_metrics())
    assert outcome(result).kind == "items missing" and "fake-en-3" in result.text()


def spaced(bad: float) -> Callable[[Item, int], dict[str, float] | None]:
    """Return a plan in which Chinese has a CER only, as `words_clean` gives it, and Amharic has nothing."""

    def plan(item: Item, seed: int) -> dict[str, float] | None:
        if item.language == "am":
            return None
        return {"cer": bad} if item.language in ("zh", "cmn") else {"wer": 0.02, "cer": 0.01, "hypothesis": 1.0}

    return plan


def test_chinese_by_another_code_is_not_left_out(tmp_path: Path) -> None:
    wanted = [*items(30), *items(30, "cmn")]
    old, new = (planned_run(tmp_path, name, wanted, spaced(bad)) for name, bad in (("old", 0.02), ("new", 0.9)))
    for language in ("", "cmn", "zh-CN"):
        result = gate(new, old, [Rule("fake_words.error", language=language)], fake_metrics())
        found = outcome(result, "fake_words.error")
        assert result.exit_code != 0 and found.kind == "fail" and found.left_out == 0
        assert found.items == (30 if language else 60)


def test_what_has_a_figure_in_neither_run_never_passes(tmp_path: Path) -> None:
    wanted = [*items(30), *items(30, "cmn")]
    old, new = (planned_run(tmp_path, name, wanted, spaced(bad)) for name, bad in (("old", 0.02), ("new", 0.9)))
    result = gate(new, old, [WER], fake_metrics())
    assert outcome(result).kind == "items missing" and result.exit_code == 3
    assert "30 items have a figure in neither run, first fake-cmn-0; remove them or limit the rule" in result.text()
    assert gate(new, old, [Rule("fake_words.wer", language="en")], fake_metrics()).exit_code == 0


class Heard(Noted):
    """A recognizer that does not know every language."""

    name = "heard"
    version = 1
    values = ()
    schema = pa.schema([("hypothesis", pa.float64())])


class HeardRates(Rates):
    """Error rates that read a recognizer's rows."""

    name = "heard_rates"
    uses = ("heard",)


def test_a_language_that_the_recognizer_does_not_know_is_named_and_left_out(tmp_path: Path) -> None:
    wanted = [*items(30), *items(30, "am")]
    metrics: list[Metric] = [Heard(), HeardRates()]
    old, new = (planned_run(tmp_path, name, wanted, spaced(0.1), scored=False) for name in ("old", "new"))
    for run in (old, new):
        score(run, metrics)
    result = gate(new, old, [Rule("heard_rates.wer")], metrics)
    found = outcome(result, "heard_rates.wer")
    assert (found.kind, found.items, found.left_out) == ("pass", 30, 30)
    assert "the recognizer does not know am" in found.reason


def test_fewer_seeds_than_the_baseline_never_pass(tmp_path: Path) -> None:
    wanted = items(30)
    plan = rate_plan(rates_of(wanted))
    old = planned_run(tmp_path, "old", wanted, plan, (0, 1, 2))
    new = planned_run(tmp_path, "new", wanted, plan, (0,))
    result = gate(new, old, [WER], fake_metrics())
    assert outcome(result).kind == "items missing" and result.exit_code == 3
    assert "new lacks seeds 1, 2 of old" in result.text()
    assert gate(old, new, [WER], fake_metrics()).exit_code == 0


def test_a_filter_without_items_never_passes(tmp_path: Path) -> None:
    wanted = items(30)
    rates = rates_of(wanted)
    new, old = two(tmp_path, rates, rates, wanted)
    for rule in (Rule("fake_words.wer", language="de"), Rule("fake_words.wer", list="none", each="language")):
        result = gate(new, old, [rule], fake_metrics())
        assert outcome(result).kind == "items missing" and result.exit_code == 3


def test_a_rule_for_each_language_finds_the_one_that_is_worse(tmp_path: Path) -> None:
    wanted = [*items(30, "en"), *items(30, "ja"), *items(30, "de")]
    before = rates_of(wanted)
    after = noisy(before, 4, 0.005)
    after = {name: rate + (0.1 if "-ja-" in name else 0) for name, rate in after.items()}
    result = gate(
        *two(tmp_path, before, after, wanted), [Rule("fake_words.error", each="language", margin=1)], fake_metrics()
    )
    kinds = {one.language: (one.kind, one.unit) for one in result.outcomes if one.value == "fake_words.error"}
    assert kinds == {"de": ("pass", "% WER"), "en": ("pass", "% WER"), "ja": ("fail", "% CER")}


def test_absolute_bounds(tmp_path: Path) -> None:
    wanted = items(100)
    rates = rates_of(wanted)
    new, old = two(tmp_path, rates, rates, wanted)
    rules = [Rule("fake_words.wer", at_most=bound) for bound in (30, 15, 5)] + [Rule("fake_words.wer", at_least=10)]
    result = gate(new, old, rules, fake_metrics())
    kinds = [one.kind for one in result.outcomes if one.value == "fake_words.wer"]
    assert kinds == ["pass", "not enough items", "fail", "pass"]


def test_rules_are_read_and_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text('[[rule]]\nvalue = "wer"\nmargin = 1\nlist = "fake"\n', encoding="utf-8")
    assert read_rules(path) == [Rule("wer", 1, "fake")]
    for text, words in (
        ('[[rule]]\nvalue = "wer"\nmargn = 1\n', "rule 1: unknown key 'margn'; did you mean margin"),
        ('[[rule]]\nvalue = "wer"\nmargin = "1"\n', "not a number"),
        ("[[rule]]\nmargin = 1\n", "value is missing"),
        ('[[rule]]\nvalue = "wer"\nmargin = -1\n', "0 or more"),
        ('[[rule]]\nvalue = "wer"\neach = "voice"\n', "language or list"),
        ("", r"no \[\[rule\]\]"),
        ("[rules]\n", "unknown key rules"),
        ("[[rule]\n", "gate.toml"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(EvaluationError, match=words):
            read_rules(path)
    with pytest.raises(EvaluationError, match="no file of rules"):
        read_rules(tmp_path / "absent.toml")


def test_a_value_is_known_by_its_full_name_or_by_a_column_that_one_metric_has(tmp_path: Path) -> None:
    assert resolve("wer", ["a.wer", "b.cer"]) == "a.wer"
    with pytest.raises(EvaluationError, match=r"may be a\.wer, b\.wer"):
        resolve("wer", ["a.wer", "b.wer"])
    with pytest.raises(EvaluationError, match=r"did you mean fake_words\.wer"):
        resolve("fake_words.wr", ["fake_words.wer"])
    wanted = items(4)
    rates = rates_of(wanted)
    new, old = two(tmp_path, rates, rates, wanted)
    with pytest.raises(EvaluationError, match="no better direction"):
        gate(new, old, [Rule("fake_floor.floor_wer")], fake_metrics())


def test_the_bundled_rules_can_be_read() -> None:
    assert {rule.value for rule in read_rules(RULES)} >= {"takes.failed", "words_clean.error"}
