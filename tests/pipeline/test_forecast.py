"""The dry run: excerpts drawn by share of time, forecasts that scale, and nothing written."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from fakes.recordings import noise, write
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import models
from pipeline.config import load_config
from pipeline.forecast import EXCERPT_S, draw_places, forecast, list_recordings
from pipeline.records import Source


def source(name: str) -> Source:
    return Source(name, f"/nowhere/{name}", name, Path(name).parent.as_posix(), 1, "")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["wav", "mp3"]), st.floats(1, 5000)), min_size=1, max_size=20
    ),
    st.floats(30, 900),
    st.integers(0, 100),
)
def test_places_lie_in_the_recordings_and_strata_get_their_share(
    items: list[tuple[str, str, float]], sample_s: float, seed: int
) -> None:
    recordings = [(source(f"{folder}/{i}.{ending}"), length) for i, (folder, ending, length) in enumerate(items)]
    lengths = {s.source_id: length for s, length in recordings}
    places = draw_places(recordings, sample_s, random.Random(seed))
    total = sum(lengths.values())
    count = max(3, round(min(sample_s, total) / EXCERPT_S))
    assert len(places) == count
    for chosen, start in places:
        assert 0 <= start <= max(0.0, lengths[chosen.source_id] - EXCERPT_S)
    stratum = {s.source_id: (folder, ending) for (s, _), (folder, ending, _) in zip(recordings, items, strict=True)}
    got = Counter(stratum[chosen.source_id] for chosen, _ in places)
    for key in set(stratum.values()):
        share = count * sum(length for s, length in lengths.items() if stratum[s] == key) / total
        assert abs(got[key] - share) < 1.0 + 1e-6


def test_a_forecast_of_silence_and_of_nothing(tmp_path: Path) -> None:
    """Noise has no speech: nothing is kept, what cannot be read is counted, and nothing is written."""
    folder = tmp_path / "in"
    for i in range(2):
        write(folder / f"{i}.wav", noise(30.0, 16_000, level=0.001, seed=i), 16_000)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    config = load_config(None, ["engine.executor=inline"])
    if missing := [name for name in config.weights() if not models.available(name)]:
        pytest.skip(f"the weights {', '.join(missing)} are not here (voxmill models pull small)")
    out = tmp_path / "corpus"
    found = list_recordings([str(folder)], out, config)
    result = forecast(found, out, config, sample_s=60)
    assert (result.recordings, result.unreadable) == (3, 1)
    assert result.audio_s == pytest.approx(60.0)
    assert result.kept_s.value == result.kept_s.high == 0.0
    assert 0 < result.wall_s.low <= result.wall_s.value <= result.wall_s.high
    assert result.stage_cpu_s["detect_speech"] > 0
    assert not out.exists()
    (folder / "0.wav").unlink()
    (folder / "1.wav").unlink()
    with pytest.raises(ValueError, match="none of the 1 recordings can be read"):
        forecast(list_recordings([str(folder)], out, config), out, config)
