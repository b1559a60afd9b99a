"""`data.licenses`: only segments with an allowed license are trained on, held out or used as references."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from corpus_builders import FINGERPRINT, make_unit
from fakes.logs import logged
from train_runs import Runs

from catalogs.candidates.build import table_key
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.query.views import query
from catalogs.vocabulary.licenses import NOT_STATED, allowed, canonical
from trainer.config import TrainConfig, TrainError, load_train_config
from trainer.data.corpora import Corpora
from trainer.data.mixture import find_candidates
from trainer.dryrun.checks import read_data
from trainer.dryrun.plan import plan
from trainer.run import train


@pytest.fixture(scope="module")
def by_license(speech: Path) -> dict[str, set[str]]:
    """The usable segments of the corpus by their license."""
    found: dict[str, set[str]] = {}
    for segment, name in query(speech, 'select segment_id, license from segments where kept and "row" is not null')[1]:
        found.setdefault(canonical(name), set()).add(segment)
    assert len(found) == 2, "the corpus is expected to have two licenses"
    return found


def ids_of(corpora: Corpora) -> list[str]:
    table = corpora.table
    return [table.ids[number] for number in range(len(table))]


def test_only_allowed_segments_are_in_the_table_and_in_its_pairs(speech: Path, by_license: dict[str, set[str]]) -> None:
    for name, wanted in by_license.items():
        corpora = Corpora([speech], licenses=[name])
        assert set(ids_of(corpora)) == set(corpora.kept()) == corpora.chosen("true", "a") == wanted
        table = corpora.table
        assert len(table.pairs) and {table.ids[int(number)] for number in table.pairs} <= wanted
        assert len(find_candidates(corpora, "true", 60.0, "a")) <= len(wanted)
    both = Corpora([speech], licenses=list(by_license))
    assert set(ids_of(both)) == set().union(*by_license.values()) == set(Corpora([speech]).kept())


def test_without_a_condition_everything_is_as_before(speech: Path, runs: Runs, tmp_path: Path) -> None:
    parts = Corpora([speech]).parts
    assert table_key(parts) == table_key(parts, ["any"]) == table_key(parts, ["CC0", "ANY"])
    assert len({table_key(parts), table_key(parts, ["stated"]), table_key(parts, ["commercial"])}) == 3
    config = runs.config(tmp_path / "out", {"steps": 2})
    assert config.data.licenses == ("any",)
    stated = config.model_copy(update={"data": config.data.model_copy(update={"licenses": ("stated",)})})
    # All segments have a license: the same rows, so the same order, and a run may be resumed with the other setting.
    assert read_data(config).key == read_data(stated).key


def test_the_plan_says_hours_by_license_and_what_is_left_out(
    runs: Runs, speech: Path, by_license: dict[str, set[str]], tmp_path: Path
) -> None:
    first, second = sorted(by_license)
    config = runs.config(tmp_path / "out", {"steps": 2})
    whole = plan(config)
    assert set(whole.licenses) == {first, second} and not whole.left_out
    assert f"licenses: {first} {whole.licenses[first]:.3f} h, {second}" in "\n".join(whole.lines())
    assert not any(line.startswith("left out by data.licenses") for line in whole.lines())
    part = plan(_with(config, first))
    assert part.licenses == {first: whole.licenses[first]} and part.left_out == {second: whole.licenses[second]}
    assert f"left out by data.licenses: {second} {whole.licenses[second]:.3f} h" in part.lines()
    assert part.as_dict()["left_out"] == part.left_out
    assert sum(phase.segments for phase in part.phases) < sum(phase.segments for phase in whole.phases)
    free = {name for name in by_license if allowed(name, ["commercial"])}
    assert any("of non-commercial data" in line for line in whole.lines()) == (free != set(by_license))


def test_a_license_that_nothing_has_is_one_line(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"data.licenses allows \(MIT\); there are .* h") as caught:
        plan(_with(runs.config(tmp_path / "out", {"steps": 2}), "MIT"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"data\.licenses: 'comercial' .* did you mean commercial"):
        load_train_config("stage1", ["corpus=c", "output=o", "data.licenses=[comercial]"])


def test_a_run_says_how_many_hours_have_no_license(speech: Path, runs: Runs, tmp_path: Path) -> None:
    unlicensed = tmp_path / "unlicensed"
    create_corpus(unlicensed)
    bind_fingerprint(unlicensed, FINGERPRINT)
    unit = make_unit("a", 3, seconds=1.5)
    commit_unit(unlicensed, dataclasses.replace(unit, rows=[row | {"license": None} for row in unit.rows]))
    config = runs.config(tmp_path / "out", {"steps": 1}, corpus=[str(speech), str(unlicensed)])
    # Two kept clips of 1.5 s.
    for licenses, taken in (("any", 0), ("stated", 1)):
        hours = Corpora([unlicensed], licenses=[licenses]).license_hours()
        assert hours[taken] == pytest.approx({NOT_STATED: 3 / 3600}) and not hours[1 - taken]
    lines: list[str] = []
    logged(lines.append, train, config)
    assert "0.001 h of it have no license; to leave them out: --set data.licenses=[stated]" in lines
    stated = _with(config.model_copy(update={"output": str(tmp_path / "stated")}), "stated")
    assert set(ids_of(read_data(stated).corpora)) == set(Corpora([speech]).kept())
    lines.clear()
    logged(lines.append, train, stated)
    assert not any("no license" in line for line in lines)


def _with(config: TrainConfig, *licenses: str) -> TrainConfig:
    return TrainConfig.model_validate(config.model_dump() | {"data": {"licenses": licenses}})
