"""The rules give the same answer in Python and in SQL, before and after storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus_builders import good_row, make_unit
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import INDEX
from catalogs.corpus.shards import to_table
from catalogs.corpus.thresholds import (
    FLAGS,
    REASON_WORDS,
    RULES,
    SOFT_REASONS,
    Thresholds,
    apply_thresholds,
    change_thresholds,
    load_thresholds,
    save_thresholds,
)
from catalogs.settings import SettingsError, validate_settings

COLUMNS = sorted({rule.column for rule in RULES})
INDEX_ROW = {name: value for name, value in good_row(0, "s", "t", 0.0).items() if name in INDEX.names}
NEAR_LIMITS = [getattr(Thresholds(), rule.setting) for rule in RULES]
SCORES = st.one_of(
    st.none(), st.sampled_from(NEAR_LIMITS), st.floats(-100, 400, width=32), st.floats(-2, 5), st.just(float("nan"))
)
LIMITS = st.one_of(st.none(), st.floats(0.01, 1.0))
NOTES = st.one_of(st.none(), st.lists(st.sampled_from([*FLAGS, "something_new"]), unique=True))
TEXTS = st.sampled_from([None, "", "  \n", "x", "\u3000", " gut ", "你好"])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"text": TEXTS, "flags": NOTES, **dict.fromkeys(COLUMNS, SCORES)}),
        min_size=1,
        max_size=20,
    ),
    changed=st.fixed_dictionaries(
        {},
        optional={
            "max_agreement_cer": LIMITS,
            "min_language_p": LIMITS,
            "max_clipping": LIMITS,
            "drop_flags": st.lists(st.sampled_from(sorted(FLAGS)), unique=True).map(tuple),
        },
    ),
    require_text=st.booleans(),
)
def test_python_and_sql_agree(rows: list[dict[str, Any]], changed: dict[str, Any], require_text: bool) -> None:
    thresholds = Thresholds(require_text=require_text, **changed)
    full = [INDEX_ROW | row for row in rows]
    decided = apply_thresholds(to_table(full, INDEX), thresholds)
    expected = [thresholds.reasons(row) for row in full]
    assert decided.column("reasons").to_pylist() == expected
    assert decided.column("kept").to_pylist() == [not reasons for reasons in expected]


def test_a_score_at_its_limit_passes_and_one_beyond_fails() -> None:
    thresholds = Thresholds()
    assert thresholds.reasons(INDEX_ROW) == []
    for rule, limit in thresholds.limits():
        beyond = limit - 0.5 if rule.side == "below" else limit + 0.5
        assert thresholds.reasons(INDEX_ROW | {rule.column: limit}) == []
        assert rule.reason in thresholds.reasons(INDEX_ROW | {rule.column: beyond})
        assert rule.reason not in thresholds.reasons(INDEX_ROW | {rule.column: None})
        off = Thresholds(**{rule.setting: None})
        assert rule.reason not in off.reasons(INDEX_ROW | {rule.column: beyond})


def test_a_file_s_own_end_is_not_a_word_cut_off() -> None:
    row = INDEX_ROW | {"head_edge": 0.9, "tail_edge": 0.9}
    assert Thresholds().reasons(row) == ["head_cut_off", "tail_cut_off"]
    assert Thresholds().reasons(row | {"flags": ["file_head"]}) == ["tail_cut_off"]
    assert Thresholds().reasons(row | {"flags": ["file_head", "file_tail"]}) == []
    assert Thresholds(drop_flags=("file_head",)).reasons(row | {"flags": ["file_head", "file_tail"]}) == ["file_head"]


def test_a_flag_drops_only_where_it_is_named() -> None:
    row = INDEX_ROW | {"flags": ["given_rejected", "stock_phrase"]}
    assert Thresholds().reasons(row) == ["stock_phrase"]
    assert Thresholds(drop_flags=("given_rejected",)).reasons(row) == ["given_rejected"]
    with pytest.raises(SettingsError, match="no flag loud; flags: looping_text"):
        validate_settings(Thresholds, {"drop_flags": ["loud"]})


def test_hard_reasons_stay_whatever_the_limits() -> None:
    rows = [INDEX_ROW | {"reasons": ["too_short"], "text": None}, INDEX_ROW | {"reasons": ["noisy"], "snr_db": 30.0}]
    decided = apply_thresholds(to_table(rows, INDEX), Thresholds(require_text=False))
    assert decided.column("reasons").to_pylist() == [["too_short"], []]
    assert decided.column("kept").to_pylist() == [False, True]


def test_every_reason_is_explained_once() -> None:
    assert len(set(SOFT_REASONS)) == len(SOFT_REASONS)
    assert set(SOFT_REASONS) < set(REASON_WORDS)


def test_a_changed_limit_needs_no_new_run(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    commit_unit(tmp_path, make_unit("a", 5))
    corpus = Corpus(tmp_path)
    assert corpus.kept().num_rows == 4
    assert corpus.kept(Thresholds(min_dnsmos_ovr=3.5)).num_rows == 0
    save_thresholds(tmp_path, Thresholds(min_dnsmos_ovr=3.5))
    assert load_thresholds(tmp_path).min_dnsmos_ovr == 3.5
    assert Corpus(tmp_path).kept().num_rows == 0


def test_overrides_are_saved_and_mistakes_change_nothing(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    assert change_thresholds(tmp_path, ["min_dnsmos_ovr=3.5", "max_clipping=null"]).max_clipping is None
    with pytest.raises(SettingsError, match="min_snr_db"):
        change_thresholds(tmp_path, ["min_snr=3"])
    assert load_thresholds(tmp_path) == Thresholds(min_dnsmos_ovr=3.5, max_clipping=None)


def test_thresholds_of_the_run_are_the_corpus_own(tmp_path: Path) -> None:
    (tmp_path / "prepare.yaml").write_text("profile: small\nthresholds:\n  min_snr_db: 3.0\n")
    assert load_thresholds(tmp_path) == Thresholds(min_snr_db=3.0)


def test_a_misspelt_threshold_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="min_snr_db"):
        validate_settings(Thresholds, {"min_snr": 10})


DOCUMENTED = {
    "max_duration_s": 300.0, "min_dnsmos_ovr": 2.4, "min_snr_db": 15.0, "max_clipping": 0.001, "min_bandwidth_hz": 3500.0,
    "max_reverb_s": 0.8, "min_loudness_lufs": -45.0, "min_asr_logprob": -1.0, "max_no_speech_p": 0.8,
    "max_compression_ratio": 2.4, "max_agreement_cer": 0.2, "min_language_p": 0.7, "min_chars_per_s": 2.0,
    "max_chars_per_s": 30.0, "max_head_silence_s": 1.0, "max_tail_silence_s": 1.0, "max_head_edge": 0.3,
    "max_tail_edge": 0.3, "max_clicks_per_s": 2.0, "min_speaker_purity": 0.7, "require_text": True,
    "drop_flags": ("looping_text", "stock_phrase", "unusual_rate", "foreign_language", "marked_synthetic", "no_training"),
}  # fmt: skip


def test_the_defaults_are_what_is_documented() -> None:
    """They were measured (docs/benchmarks.md) and decide what existing corpora keep. A new rule is off by default."""
    defaults = Thresholds().model_dump()
    assert defaults == dict.fromkeys(defaults) | DOCUMENTED


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("max_duration_s", [0.001], [0.0]),
        ("min_dnsmos_ovr", [1.0, 5.0], [0.99, 5.01]),
        ("max_clipping", [0.0, 1.0], [-0.01, 1.01]),
        ("min_bandwidth_hz", [0.0], [-0.1]),
        ("max_reverb_s", [0.001], [0.0]),
        ("max_no_speech_p", [0.0, 1.0], [-0.01, 1.01]),
        ("max_compression_ratio", [0.001], [0.0]),
        ("max_agreement_cer", [0.0], [-0.01]),
        ("min_language_p", [0.0, 1.0], [-0.01, 1.01]),
        ("min_chars_per_s", [0.0], [-0.01]),
        ("max_chars_per_s", [0.001], [0.0]),
        ("max_head_silence_s", [0.0], [-0.01]),
        ("max_tail_silence_s", [0.0], [-0.01]),
        ("max_clicks_per_s", [0.0], [-0.01]),
        ("min_speaker_purity", [-1.0, 1.0], [-1.01, 1.01]),
    ],
)
def test_a_limit_that_no_score_can_have_is_refused(name: str, good: list[float], bad: list[float]) -> None:
    for value in [*good, None]:
        assert getattr(Thresholds(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(SettingsError, match=name):
            validate_settings(Thresholds, {name: value})


def test_thresholds_do_not_change_behind_their_users_backs() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Thresholds().min_snr_db = 3.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra inputs"):
        Thresholds(min_snr=3.0)  # type: ignore[call-arg]
    assert [(rule.setting, limit) for rule, limit in Thresholds(min_snr_db=None).limits()] == [
        (rule.setting, DOCUMENTED[rule.setting])
        for rule in RULES
        if DOCUMENTED.keys() - {"min_snr_db"} >= {rule.setting}
    ]


def test_a_change_keeps_what_was_changed_before(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    change_thresholds(tmp_path, ["min_snr_db=3"])
    assert change_thresholds(tmp_path, ["max_clipping=0.5"]) == Thresholds(min_snr_db=3.0, max_clipping=0.5)
    assert change_thresholds(tmp_path, reset=True) == Thresholds()
