"""How many actors a node gets, what they promise of it, and the progress that is told."""

from __future__ import annotations

import pytest

from pipeline.config import load_config
from pipeline.engine.api import Outcome
from pipeline.engine.pools import fit_promises, size_pools
from pipeline.engine.progress import Progress
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.stage import LoadError
from pipeline.stages import stage_class


def chain(*actors: int, gpus: float = 0.0, cpus: float = 0.2) -> list[StageGroup]:
    names = ("decode", "transcribe", "cut_clips")
    specs = [StageSpec(name, stage_class(name).config_type()) for name in names]
    shares = (0.0, gpus, 0.0)
    return [StageGroup((s,), n, cpus, g) for s, n, g in zip(specs, actors, shares, strict=True)]


def test_pools_grow_with_the_node() -> None:
    assert [group.actors for group in size_pools(chain(0, 0, 0), 1, 0)] == [1, 1, 1]
    assert [group.actors for group in size_pools(chain(0, 0, 0), 2, 0)] == [1, 2, 1]
    many = size_pools(chain(0, 0, 0), 32, 0)
    assert many[1].actors > 20 * many[0].actors > 0, "transcribe is the slowest and gets most"
    assert sum(group.actors for group in many) <= 2 * 32
    assert [group.actors for group in size_pools(chain(2, 3, 4), 32, 0)] == [2, 3, 4], "what was said stays"
    assert size_pools(chain(0, 0, 0, gpus=0.5), 8, 4)[1].actors == 8, "two share a GPU, and there are four"


def test_two_cores_get_two_recognisers_of_the_whole_chain() -> None:
    """With one, which computes with one thread, nothing else fills the second core."""
    sized = {group.stages[0].name: group.actors for group in size_pools(load_config().groups(), 2, 0)}
    assert sized.pop("transcribe") == 2 and set(sized.values()) == {1}


def test_promises_never_take_the_whole_node() -> None:
    fitted = fit_promises(chain(1, 1, 1, cpus=0.5), 1, 0)
    assert 0 < sum(group.actors * group.cpus for group in fitted) <= 0.9
    assert fit_promises(chain(1, 1, 1), 2, 0) == chain(1, 1, 1)
    with pytest.raises(LoadError, match=r"lower engine\.actors"):
        fit_promises(chain(50, 1, 1, cpus=1.0), 4, 0)
    with pytest.raises(LoadError, match="2 GPUs and Ray has 1"):
        fit_promises(chain(1, 4, 1, gpus=0.5), 64, 1)


def test_progress_tells_speed_time_left_and_share_kept() -> None:
    now = [0.0]
    progress = Progress(sessions=4, audio_s=400.0, clock=lambda: now[0])
    assert progress.left_s is None and progress.kept_share is None
    now[0] = 10.0
    for _ in range(2):
        progress.stage_done(Outcome(busy_s={"fast": 1.0}, audio_s=100.0))
    progress.stage_done(Outcome(busy_s={"slow": 9.0}, audio_s=100.0))
    progress.session_done(audio_s=100.0, speech_s=80.0, kept_s=60.0)
    assert progress.kept_share == 0.75
    assert progress.stage_times_real_time == {"fast": 100.0, "slow": pytest.approx(100 / 9)}
    # 11 busy seconds of the 4 + 36 that it will take: 10 s for 27.5 %.
    assert progress.left_s == pytest.approx(10 * 29 / 11)
    assert progress.times_real_time == pytest.approx(400 * 0.275 / 10)
