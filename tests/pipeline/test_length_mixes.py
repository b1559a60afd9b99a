"""Named mixes of clip lengths: one for each of the paper's stages, chosen by `--set refine_cuts.lengths=stage2`."""

from __future__ import annotations

import pytest

from catalogs.settings import SettingsError
from pipeline.config import load_config
from pipeline.speech.lengths import draw_runs


@pytest.mark.parametrize(("name", "longest_s"), [("stage1", 60.0), ("stage2", 180.0), ("stage3", 300.0)])
def test_a_mix_joins_up_to_its_stage_and_still_has_short_clips(name: str, longest_s: float) -> None:
    """An hour of sentences of 8 s: clips up to the stage's limit, none longer, and sentences that stay alone."""
    lengths = load_config(None, [f"refine_cuts.lengths={name}"]).stage("refine_cuts").config.model_dump()["lengths"]
    sizes = draw_runs([8.0] * 450, [0.5] * 449, lengths, "an hour")
    seconds = [size * 8.5 - 0.5 for size in sizes]
    assert longest_s / 2 < max(seconds) <= longest_s
    assert 0.2 < sum(s for s in seconds if s == 8.0) / sum(seconds) < 0.9


def test_nothing_is_joined_unless_asked_for() -> None:
    by_default = load_config(None).stage("refine_cuts").config
    assert by_default == load_config(None, ["refine_cuts.lengths=as_cut"]).stage("refine_cuts").config
    assert by_default.model_dump()["lengths"] == {0.0: 1.0}


def test_an_unknown_mix_names_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no mix of lengths 'stage4'; mixes: as_cut, stage1, stage2, stage3"):
        load_config(None, ["refine_cuts.lengths=stage4"])
