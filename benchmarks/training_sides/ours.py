"""This package's trainer, run in its own environment: `python ours.py CHECKPOINT THREADS DATA [lora]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parent.parent / "sides"),
    str(Path(__file__).resolve().parent.parent.parent),
]

import torch  # noqa: E402

torch.set_num_threads(int(sys.argv[2]))

from protocol import answer, timed  # noqa: E402

from trainer.config import Phase, TrainConfig  # noqa: E402
from trainer.data.candidates import Choice  # noqa: E402
from trainer.data.corpora import Corpora  # noqa: E402
from trainer.data.latent_cache import Latents  # noqa: E402
from trainer.data.mixture import Candidate  # noqa: E402
from trainer.data.rows import Planned, Planner  # noqa: E402
from trainer.data.sample_counts import SampleCounts  # noqa: E402
from trainer.data.samples import BatchMaker, SampleMaker, StepRows, document_noise  # noqa: E402
from trainer.model.build import build  # noqa: E402
from trainer.optim import make_optimizer  # noqa: E402
from trainer.step import Stepper  # noqa: E402
from voxcpm.sequence.training_rows import pack_rows  # noqa: E402

DATA, BATCH = Path(sys.argv[3]), 4
PHASE = Phase(steps=1_000_000, schedule="constant", lr=1e-4)
MODEL_SETTINGS: dict[str, Any] = {"start": sys.argv[1]}
if "lora" in sys.argv:
    MODEL_SETTINGS["lora"] = {"r": 32, "alpha": 32}
CONFIG = TrainConfig.model_validate(
    {"corpus": str(DATA / "corpus"), "output": str(DATA / "output"), "model": MODEL_SETTINGS,
     "phases": {"only": PHASE.model_dump()}}
)  # fmt: skip
CORPORA = Corpora(CONFIG.corpora)
TRAINEE = build(CONFIG, CORPORA, None)
OPTIMIZER = make_optimizer(TRAINEE.model, CONFIG.optim, PHASE.lr)
PLANNER = Planner(TRAINEE.tokenizer, TRAINEE.config)
WARM = Latents(CORPORA, TRAINEE.codec, TRAINEE.config)
FRESH: list[Latents] = []
STEPS = [0]
PLANS: dict[str, list[Planned]] = {}


def _row(name: str, batch: int) -> list[Planned]:
    """Return the clips of a batch as one packed row."""
    if name not in PLANS:
        clips = map(json.loads, (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
        PLANS[name] = [
            PLANNER.plan(
                Choice(i, Candidate(c["segment_id"], "en", c["text"], c["seconds"], None, ()), "basic", None, i)
            )
            for i, c in enumerate(clips)
        ]
    return PLANS[name][batch * BATCH : (batch + 1) * BATCH]


def _latents(how: str) -> Latents:
    """Return the latents. warm: from memory; stored: read from the output of `voxmill encode`; encode: from the codec."""
    if how == "warm":
        return WARM
    if how == "stored":
        return Latents(CORPORA, TRAINEE.codec, TRAINEE.config, memory_s=0.0)
    if not FRESH:
        FRESH.append(Latents(Corpora([DATA / "plain"]), TRAINEE.codec, TRAINEE.config, memory_s=0.0))
    return FRESH[0]


def _step(row: list[Planned], how: str, lr: float, dtype: str) -> None:
    config = CONFIG.model_copy(update={"compute": CONFIG.compute.model_copy(update={"dtype": dtype})})
    maker = SampleMaker(CORPORA, _latents(how), TRAINEE.config)
    stepper = Stepper(config, TRAINEE, OPTIMIZER, torch.device("cpu"))
    phase, number = PHASE.model_copy(update={"lr": lr}), STEPS[0]
    batches = BatchMaker(config, maker, TRAINEE.config, torch.device("cpu"))
    ready = stepper.ready(lambda: StepRows([row], SampleCounts(), batches.micro_batches(phase, number, [row]), {}, {}))
    assert ready is not None
    report = stepper.take(phase, number, number, ready)
    assert report.taken
    STEPS[0] += 1


def step(request: dict[str, Any]) -> float:
    """Return the seconds of one optimizer step; `latents`: warm, stored or encode."""
    row = _row(request["set"], request["batch"])
    if request["latents"] == "warm":
        for item in row:
            WARM.get(item.choice.candidate.segment_id, item.patches)
    dtype = request.get("dtype", "float32")
    return timed(lambda: _step(row, request["latents"], request.get("lr", 1e-4), dtype))


@torch.no_grad()
def loss(request: dict[str, Any]) -> float:
    """Return the mean diffusion loss over `batches` batches, with the same random numbers each time."""
    maker = SampleMaker(CORPORA, WARM, TRAINEE.config)
    found = []
    for number in range(request["batches"]):
        row = _row(request["set"], number)
        batch = pack_rows([[maker.make(item) for item in row]])
        noise = document_noise(TRAINEE.config, batch, {(0, i): 1000 * number + i for i in range(len(row))})
        found.append(float(TRAINEE.model.training_losses(batch, noise).diffusion))
    return sum(found) / len(found)


def targets(request: dict[str, Any]) -> float:
    """Target patches of a batch."""
    return float(sum(item.patches for item in _row(request["set"], request["batch"])))


def positions(request: dict[str, Any]) -> float:
    """Positions of a batch that are computed, padding included."""
    return float(sum(item.length for item in _row(request["set"], request["batch"])))


if __name__ == "__main__":
    answer({"ready": lambda request: 0.0, "step": step, "loss": loss, "targets": targets, "positions": positions})
