"""Nothing of the golden set is left unused. Meaningful only after all the other golden tests, in one session."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxcpm_fixtures import GoldenSet

#: meta.json entries that describe how the set was made, or are the codec's (test_audiovae).
NOT_NUMBERS_OF_THE_BACKBONE = {
    "seed",
    "versions",
    "stream_full_maxdiff",
    "stream_irregular_maxdiff",
    "dec_rms",
    "dec_absmax",
    "mu_std",
    "train_min_fsq_rounding_margin",
    "train_rng_kinds",
}
#: Tensors that test other code, with the reason.
ELSEWHERE = {
    # How the trainer's packer fills a batch, not read by the model: dataset bookkeeping.
    "training.safetensors": ("packed.audio_dataset_ids", "packed.audio_duration_consumed", "packed.audio_task_ids",
                             "packed.text_token_consumed"),
}  # fmt: skip


def test_every_tensor_was_compared(request: pytest.FixtureRequest, golden_set: GoldenSet) -> None:
    present = {Path(item.path).name for item in request.session.items}
    wanted = {path.name for path in Path(__file__).parent.glob("test_golden_*.py")}
    chosen = request.config.getoption("keyword") or request.config.getoption("markexpr")
    if present & wanted != wanted or chosen or any("::" in arg for arg in request.config.args):
        pytest.skip("only some of the golden tests were asked for")
    unused = {
        name: sorted(set(file) - file.read - set(ELSEWHERE.get(name, ()))) for name, file in golden_set.files.items()
    }
    unused["meta.json"] = sorted(set(golden_set.meta) - golden_set.meta.read - NOT_NUMBERS_OF_THE_BACKBONE)
    assert not {name: keys for name, keys in unused.items() if keys}
