"""Captions in registers and languages: which one a sample of each kind gets, and that runs on older descriptions are unchanged."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from train_runs import Runs

import trainer.dryrun.plan
from catalogs.candidates.captions import ADDED, CAPTIONS, COLUMNS, caption_columns
from catalogs.candidates.stored import FOLDER
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.settings import SettingsError
from trainer.config import Phase, TrainConfig, load_train_config
from trainer.data.candidates import Candidate, Candidates, Choice
from trainer.data.corpora import Corpora
from trainer.data.holdout import data_key, find_candidates
from trainer.data.mixture import Mixture
from trainer.data.rows import Planner
from trainer.data.sample_counts import SampleCounts, caption_words
from trainer.dryrun.plan import plan
from trainer.sample_kinds import BY_LAYOUT, DECOUPLED, LAYOUTS
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.text_tokenizer import TextTokenizer

TEXTS = {
    "full": "A calm young woman, not loud.", "brief": "calm young woman", "style": "calm, slow", "persona": "A nurse at night.",
    "full_zh": "年轻女性，声音平静。", "brief_zh": "平静的年轻女声", "style_zh": "语气平静，语速缓慢",
    "persona_zh": "夜班护士，轻声安慰病人",
}  # fmt: skip
REGISTER = {TEXTS[column]: register for column, (register, _) in zip(COLUMNS, CAPTIONS, strict=True)}
LANGUAGE = {TEXTS[column]: language for column, (_, language) in zip(COLUMNS, CAPTIONS, strict=True)}
DESIGN = {layout: float(layout == "design") for layout in LAYOUTS}
CONTROL = {layout: float(layout == "controllable") for layout in LAYOUTS}


def segment(number: int, has: tuple[str, ...] = COLUMNS, language: str = "en", **changes: Any) -> Candidate:
    """A segment with some of the captions TEXTS."""
    values: dict[str, Any] = {
        "segment_id": f"{number:04}", "language": language, "text": "good evening", "seconds": 4.0,
        "description": TEXTS["full"] if "full" in has else None, "brief": TEXTS["brief"] if "brief" in has else None,
        "captions": tuple((name, TEXTS[name]) for name in ADDED if name in has), "references": (("ref", 3.0),),
    }  # fmt: skip
    return Candidate(**(values | changes))


def choices(candidates: list[Candidate], count: int = 4000, **phase: Any) -> list[Choice]:
    stream = Mixture(candidates, Phase.model_validate({"steps": 10} | phase), "only", 1)
    return list(islice(stream, count))


def shares(found: list[Choice], names: dict[str, str]) -> dict[str, float]:
    """Shares of the registers or languages in the descriptions of choices."""
    counts = Counter(names[choice.description] for choice in found if choice.description)
    return {name: count / counts.total() for name, count in counts.items()}


def test_design_draws_registers_in_the_shares_that_are_asked_for() -> None:
    many = [segment(n) for n in range(100)]
    assert shares(choices(many, layouts=DESIGN), REGISTER) == {
        "brief": pytest.approx(0.4, abs=0.03), "full": pytest.approx(0.4, abs=0.03), "persona": pytest.approx(0.2, abs=0.03)
    }  # fmt: skip
    weights = {"brief": 1.0, "full": 0.0, "persona": 3.0}
    assert shares(choices(many, layouts=DESIGN, captions=weights), REGISTER) == {
        "brief": pytest.approx(0.25, abs=0.03), "persona": pytest.approx(0.75, abs=0.03)
    }  # fmt: skip


def test_controllable_is_given_the_style_only() -> None:
    """Also if it is content-decoupled, and whatever `captions` asks for: identity is what the reference gives."""
    both = [segment(n) for n in range(50)]
    both += [segment(100 + n, described_id="0001", seconds=5.0) for n in range(50)]
    found = choices(both, layouts=CONTROL, decoupled=0.5, captions={"brief": 1.0, "full": 0.0, "persona": 5.0})
    assert {choice.candidate.described_id is None for choice in found} == {True, False}
    assert set(shares(found, REGISTER)) == {"style"}
    assert BY_LAYOUT["controllable"].registers == DECOUPLED.registers == ("style",)


def test_other_kinds_have_no_description() -> None:
    found = choices([segment(n) for n in range(50)])
    assert {c.layout for c in found if c.description is not None} == {"design", "controllable"}
    assert all((c.caption >= 0) == (c.description is not None) for c in found)
    assert {c.layout for c in found} == set(LAYOUTS)


def test_captions_are_in_chinese_in_the_shares_of_the_spoken_language() -> None:
    spoken = ("zh", "yue", "th", "en")
    many = [segment(n, language=spoken[n % 4]) for n in range(200)]
    for asked in ({"chinese": 0.5, "other": 0.2}, {"chinese": 1.0, "other": 0.0}):
        found = choices(many, 8000, layouts=DESIGN | {"controllable": 1.0}, chinese_captions=asked)
        for layout in ("design", "controllable"):
            for language in spoken:
                mine = [c for c in found if (c.layout, c.candidate.language) == (layout, language)]
                share = asked["chinese" if language in ("zh", "yue") else "other"]
                assert shares(mine, LANGUAGE).get("zh", 0.0) == pytest.approx(share, abs=0.06), (layout, language)
    assert Phase(steps=1).chinese_captions.model_dump() == {"chinese": 0.5, "other": 0.2}


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.sampled_from(COLUMNS)),
    st.sampled_from(["design", "controllable"]),
    st.sampled_from(["en", "zh"]),
    st.sampled_from([{"brief": 1.0, "full": 0.0, "persona": 0.0}, {"brief": 0.0, "full": 0.0, "persona": 1.0}, {}]),
)
def test_a_segment_without_the_wanted_register_gets_another_one(
    has: set[str], layout: str, language: str, captions: dict[str, float]
) -> None:
    own = segment(1, tuple(has), language)
    if not has - {"brief"}:  # brief alone never made a segment described
        assert layout not in own.layouts()
        return
    found = choices([own], 200, layouts={**DESIGN, "design": 0.0, layout: 1.0}, captions=captions, max_repeats=1000)
    assert {COLUMNS[choice.caption] for choice in found} <= has
    assert all(choice.description == TEXTS[COLUMNS[choice.caption]] for choice in found)
    got = set(shares(found, REGISTER))
    there = {REGISTER[TEXTS[name]] for name in has}
    wanted = (
        {"style"} if layout == "controllable" else {n for n, w in captions.items() if w} or {"brief", "full", "persona"}
    )
    if wanted & there and (len(wanted) == 1 or not wanted - there):
        assert got == wanted & there
    elif layout == "controllable" and there & {"brief", "full"}:
        assert got <= {"brief", "full"}, "identity in a role is the last resort"


def segments_of_before() -> list[Candidate]:
    """Segments as described before there were other captions than brief and full ones."""
    recorded = [
        Candidate(
            f"{n:02}", ("en", "de", "zh")[n % 3], "text", 1.0 + n, "A calm voice." if n % 3 or n % 2 else None,
            (("01", 2.0),) if n % 4 else (), "calm" if n % 5 else None,
        )
        for n in range(40)
    ]  # fmt: skip
    return recorded + [Candidate(f"made{n}", "en", "text", 3.0, "calm", (("01", 2.0),), None, "02") for n in range(4)]


@pytest.mark.parametrize(
    ("settings_", "key", "drawn"),
    [
        ({}, "3:c0ed6081c2a615a6", "6f1f69770843a266"),
        ({"brief": 0.3}, "3:ca14d80ebeb8f5f6", "62f6b06641436899"),
        ({"brief": 1.0, "decoupled": 0.5}, "3:9f62c8907bfd4feb", "a772381233d0813d"),
    ],
)
def test_segments_described_before_are_drawn_as_before(settings_: dict[str, float], key: str, drawn: str) -> None:
    """Key and hash of 9,000 choices are those of commit f509ff2, the last one without registers."""
    phase = Phase.model_validate({"steps": 10} | settings_)
    found = segments_of_before()
    assert data_key(1, {"only": phase}, {"only": found}) == key
    told = [
        [c.layout, c.candidate.segment_id, c.reference, c.seed, c.description]
        for c in choices(found, 9000, **settings_)
    ]
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] == drawn


def test_other_settings_of_captions_matter_to_a_run_only_if_there_are_other_captions() -> None:
    def key(found: list[Candidate], **phase: Any) -> str:
        return data_key(1, {"a": Phase.model_validate({"steps": 1} | phase)}, {"a": found})

    before, now = segments_of_before(), [segment(n) for n in range(4)]
    for change in ({"captions": {"persona": 0.7}}, {"chinese_captions": {"other": 0.9}}):
        assert key(before, **change) == key(before)
        assert key(now, **change) != key(now), change
    assert key(before, captions={"brief": 0.9}) != key(before)
    for name in ADDED:
        changed = segment(0, captions=tuple((n, t + "!" * (n == name)) for n, t in now[0].captions))
        assert key([changed, *now[1:]]) != key(now), name


@given(st.floats(0, 1))
def test_the_earlier_setting_brief_means_what_it_meant(share: float) -> None:
    phase = Phase.model_validate({"steps": 1, "brief": share})
    assert phase.brief_share == share and phase.captions.persona == 0
    again = Phase.model_validate(phase.model_dump())
    assert again.brief_share == share and again.captions == phase.captions


def test_the_earlier_setting_brief_is_accepted_and_told_once(tmp_path: Path) -> None:
    common = ["corpus=c", "output=o"]
    config = load_train_config("toy", [*common, "phases.toy.brief=0.3"])
    assert config.phases["toy"].captions.model_dump() == {"brief": 0.3, "full": 0.7, "persona": 0.0}
    (line,) = config.renamed()
    assert "brief of a phase is now captions" in line
    assert load_train_config("toy", common).renamed() == []
    for given_, words in (
        (["phases.toy.brief=2"], r"brief is a share of 0 to 1, not 2"),
        (["phases.toy.brief=0.5", "phases.toy.captions={full: 1}"], r"brief and captions are the same setting"),
        (["phases.toy.captions={brief: 0, full: 0, persona: 0}"], r"every register has weight 0"),
        (["phases.toy.captions.style=1"], r"unknown setting phases\.toy\.captions\.style"),
        (["phases.toy.chinese_captions.other=2"], r"chinese_captions\.other.*less than or equal to 1"),
    ):
        with pytest.raises(SettingsError, match=words):
            load_train_config("toy", [*common, *given_])


def described_row(segment_id: str, **columns: Any) -> dict[str, Any]:
    return {"segment_id": segment_id, "annotator": "new", "status": "ok", "verdict": "agree", **columns}


def listed(*captions: tuple[str, str, str | None]) -> list[dict[str, str | None]]:
    return [{"register": register, "language": language, "text": text} for register, language, text in captions]


def test_captions_are_read_from_columns_and_lists() -> None:
    rows = pa.Table.from_pylist(
        [
            described_row("old", full="A (calm) voice.", brief="calm"),
            described_row("new", full="Full.", brief=" ", style=" slow (very) ", persona="A nurse.", captions=listed(
                ("full", "en", "not this"), ("brief", "en", "calm"), ("style", "zh", "（缓慢）\n平静"), ("style", "zh", "second"),
                ("persona", "zh", "()"), ("full", "th", "ภาษาไทย"), ("full", "zh", None), ("song", "zh", "x"),
            )),
            described_row("none", captions=[]),
            described_row("listed", captions=[*listed(("persona", "en", "A nurse.")), None]),
        ],
        schema=DESCRIPTIONS,
    )  # fmt: skip
    found = {name: column.to_pylist() for name, column in caption_columns(rows).items()}
    assert found == {
        "full": ["A (calm) voice.", "Full.", None, None], "brief": ["calm", "calm", None, None],
        "style": [None, "slow very", None, None], "persona": [None, "A nurse.", None, "A nurse."],
        "full_zh": [None] * 4, "brief_zh": [None] * 4, "style_zh": [None, "缓慢 平静", None, None], "persona_zh": [None] * 4,
    }  # fmt: skip
    assert {len(column) for column in caption_columns(rows.slice(0, 0)).values()} == {0}


@pytest.fixture
def copy(speech: Path, tmp_path: Path) -> Path:
    shutil.copytree(speech, tmp_path / "corpus", ignore=shutil.ignore_patterns(FOLDER))
    return tmp_path / "corpus"


def describe_again(corpus: Path, chosen: list[str], **more: Any) -> None:
    """Describe segments with all captions TEXTS, and one in the spoken language."""
    captions = listed(*((*caption, TEXTS[column]) for column, caption in zip(COLUMNS, CAPTIONS, strict=True)))
    captions += listed(("full", "de", "Eine ruhige Stimme."))
    english = {name: TEXTS[name] for name in COLUMNS[:4]}
    rows = [described_row(name, **english, captions=captions, **more) for name in chosen]
    path = corpus / "annotations" / "new" / "all.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=DESCRIPTIONS), path)


def all_ids(corpus: Path) -> list[str]:
    return sorted(Corpora([corpus]).kept())


def without_added(corpus: Path) -> None:
    """Rewrite the description files as an earlier version wrote them."""
    for path in (corpus / "annotations").rglob("*.parquet"):
        table = pq.read_table(path)
        if "brief" in table.column_names:
            earlier = ("style", "persona", "captions", "labels", "evidence", "model_version", "pass_key")
            pq.write_table(table.drop_columns([name for name in earlier if name in table.column_names]), path)


def test_a_table_holds_old_and_new_descriptions(copy: Path) -> None:
    without_added(copy)
    before = list(find_candidates(Corpora([copy]), "true", 60.0, "a"))
    assert any(c.description for c in before) and not any(c.captions for c in before)
    plain, chosen = all_ids(copy)[:2], all_ids(copy)[2:4]
    describe_again(copy, chosen)
    stored = find_candidates(Corpora([copy]), "true", 60.0, "a")
    found = {c.segment_id: c for c in stored}
    for name in chosen:
        mine = found[name]
        assert {COLUMNS[n]: mine.caption(n) for n in range(len(CAPTIONS))} == TEXTS
    assert [found[c.segment_id] for c in before if c.segment_id in plain] == [
        c for c in before if c.segment_id in plain
    ]
    in_memory = Candidates.of(list(stored))
    for name in ("flags", "digest"):
        values = getattr(stored.table, name)[stored.rows].tolist()
        assert values == getattr(in_memory.table, name)[in_memory.rows].tolist(), name


def test_columns_that_are_empty_change_no_key(copy: Path) -> None:
    """A file of today without new captions, and the same one as an earlier version wrote it."""
    phase = Phase(steps=1)

    def key() -> str:
        return data_key(1, {"a": phase}, {"a": find_candidates(Corpora([copy]), "true", 60.0, "a")})

    now = key()
    without_added(copy)
    shutil.rmtree(copy / FOLDER)
    assert key() == now


def test_a_description_that_was_dropped_gives_no_caption(copy: Path) -> None:
    describe_again(copy, all_ids(copy), **{"verdict": "dropped"})
    assert not any(c.captions for c in find_candidates(Corpora([copy]), "true", 60.0, "a"))


def test_the_model_reads_the_caption_in_parentheses_at_the_start_without_a_space(golden: Path) -> None:
    """Every caption, and the lengths that rows are packed by are those of the tokens."""
    tokenizer = TextTokenizer.load(golden / "checkpoint")
    planner = Planner(tokenizer, VoxCPM2Config.load(golden / "checkpoint"))
    many = [segment(n, language="zh" if n % 2 else "en") for n in range(20)]
    stream = Mixture(many, Phase.model_validate({"steps": 1, "layouts": DESIGN | {"controllable": 1.0}}), "only", 1)
    draws = stream.draws(0)
    tokens, lengths = planner.lengths(stream, draws)
    seen = set()
    for number in range(300):
        choice = stream.choice(number)
        item = planner.plan(choice)
        assert list(item.tokens) == tokenizer.encode(f"({choice.description}){choice.candidate.text}")
        assert len(item.tokens) == tokens[number] and item.length == lengths[number]
        seen.add(choice.caption)
    assert seen == set(range(len(CAPTIONS)))


def test_what_is_scored_in_validation_has_the_register_of_its_kind() -> None:
    """No caption is drawn for it: it is always the same one."""
    assert segment(1).caption_for(BY_LAYOUT["controllable"]) == TEXTS["style"]
    assert segment(1).caption_for(BY_LAYOUT["design"]) == TEXTS["full"]
    assert segment(1, ("full", "brief")).caption_for(BY_LAYOUT["controllable"]) == TEXTS["full"]
    assert segment(1, ("persona_zh",)).caption_for(BY_LAYOUT["design"]) == TEXTS["persona_zh"]


def test_counts_by_array_are_those_of_single_choices() -> None:
    many = [segment(n, language=("zh", "th", "en")[n % 3]) for n in range(60)]
    many += [segment(100 + n, described_id="0001") for n in range(10)]
    stream = Mixture(many, Phase.model_validate({"steps": 1, "decoupled": 0.5}), "only", 1)
    singly = SampleCounts()
    for choice in islice(stream, 3000):
        singly.count(choice)
    together = stream.tally(range(3000))
    assert together.captions == singly.captions and together == singly
    metrics = together.metrics()
    named = {name: share for name, share in metrics.items() if name.startswith("data/share_caption_")}
    assert len(named) == len(CAPTIONS) and sum(named.values()) == pytest.approx(1)
    style = sum(n for key, n in together.captions.items() if key.startswith("controllable/style/"))
    assert style == together.layouts["controllable"]


def test_shares_are_told_beside_those_asked_for() -> None:
    counts = {"design/brief/en/other": 3, "design/full/zh/chinese": 1, "controllable/style/en/other": 4}
    words = caption_words(
        counts,
        {"design": {"brief": 0.5, "persona": 0.5}, "controllable": {"style": 1.0}},
        {"chinese": 0.5, "other": 0.2},
    )
    assert words == (
        "design: brief 3 (75.0%, asked 50.0%), full 1 (25.0%, asked 0.0%), persona 0 (0.0%, asked 50.0%);"
        " controllable: style 4 (100.0%, asked 100.0%); in Chinese for Chinese speech: 1 (100.0%, asked 50.0%);"
        " in Chinese for other speech: 0 (0.0%, asked 20.0%)"
    )


@pytest.mark.parametrize("laid_out", [20_000, 40])
def test_the_dry_run_shows_the_shares(
    runs: Runs, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laid_out: int
) -> None:
    """A phase of more samples than are laid out is extrapolated from them."""
    monkeypatch.setattr(trainer.dryrun.plan, "_LAID_OUT", laid_out)
    describe_again(copy, all_ids(copy))
    config = TrainConfig.model_validate(
        runs.config(tmp_path / "out", {"steps": 60, "layouts": DESIGN | {"controllable": 1.0}}).model_dump()
        | {"corpus": str(copy)}
    )
    told = plan(config)
    (phase,) = told.phases
    assert phase.exact == (laid_out > 40)
    assert sum(phase.captions.values()) == pytest.approx(phase.samples, abs=0 if phase.exact else 20)
    assert phase.captions_asked == {
        "design": {"brief": pytest.approx(0.4), "full": pytest.approx(0.4), "persona": pytest.approx(0.2)},
        "controllable": {"style": 1.0},
    }
    (line,) = (line for line in told.lines() if line.startswith("  by description: "))
    style = sum(count for key, count in phase.captions.items() if key.split("/")[1] == "style")
    assert style == pytest.approx(phase.layouts["controllable"], abs=0 if phase.exact else 10)
    assert f"controllable: style {style:,} (100.0%, asked 100.0%)" in line
    assert "asked 40.0%" in line and "in Chinese for other speech" in line
    assert json.loads(json.dumps(told.as_dict()))["phases"][0]["captions"] == phase.captions


def test_words_of_other_languages_are_not_given_to_the_model(copy: Path) -> None:
    """The clips are German and English; the German caption is an extra."""
    describe_again(copy, all_ids(copy))
    stream = Mixture(find_candidates(Corpora([copy]), "true", 60.0, "a"), Phase(steps=1), "only", 1)
    given_ = {choice.description for choice in islice(stream, 2000)} - {None}
    assert given_ == set(TEXTS.values())
    assert Corpus(copy).annotations("descriptions").column("captions").null_count < len(all_ids(copy))
