"""What counts as a misspelling: a name that is not near is not suggested."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs.corpus.commit import create_corpus
from catalogs.nearest import nearest
from catalogs.query.views import QueryError, query
from catalogs.settings import SettingsError, load_settings
from catalogs.weights.registry import weights
from pipeline.config import PrepareConfig
from pipeline.speech.language import nearest_language


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("durations", ["duration_s", "start_s"], "duration_s"),
        ("kep", ["kept", "speaker"], "kept"),
        ("KEPT", ["kept", "speaker"], "kept"),
        ("min_snr", ["min_snr_db", "min_dnsmos_ovr"], "min_snr_db"),
        ("beam", ["beam_size", "model"], "beam_size"),
        ("be", ["beam_size", "model"], None),
        ("min", ["min_snr_db", "min_dnsmos_ovr"], None),
        ("colour", ["column", "count"], None),
        ("stop", ["steps", "seed"], None),
        ("pitch", ["path", "speech"], None),
        ("anything", [], None),
    ],
)
def test_near_names(name: str, known: list[str], meant: str | None) -> None:
    assert nearest(name, known) == meant


def test_every_message_leaves_out_a_name_that_is_not_near(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    with pytest.raises(SettingsError, match=r"unknown setting engine\.volume; known keys: "):
        load_settings(PrepareConfig, None, ["engine.volume=1"])
    with pytest.raises(KeyError, match=r"unknown weights 'whisk'; .*whisper-base"):
        weights("whisk")
    with pytest.raises(QueryError, match=r"unknown table sentences; there are: .*segments"):
        query(tmp_path, "select * from sentences")
    with pytest.raises(QueryError, match="unknown column volume; list them with: describe segments"):
        query(tmp_path, "select volume from segments")
    assert nearest_language("klingon") is None
