"""The training loop: rows in, steps, checkpoints; killed at any moment, it goes on exactly where it saved last."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import FrameType

import torch

from catalogs.corpus import Corpus
from catalogs.settings import dump_settings
from trainer.build import Trainee, build
from trainer.checkpoint import RunState, latest, load_state, save
from trainer.config import Phase, TrainConfig, TrainError
from trainer.data import Planned, Planner, SampleMaker, describe_candidates, packed_rows
from trainer.metrics import Metrics
from trainer.mixture import Candidate, Mixture, Realised, find_candidates
from trainer.optim import learning_rate, make_optimizer
from voxcpm.samples import pack_rows
from voxcpm.training import TrainingBatch, TrainingNoise


@dataclass
class TrainResult:
    """Where the run ended. Losses are diffusion + weighted stop of the first and the last step."""

    checkpoint: str
    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    stopped_early: bool = False
    layouts: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    """Segments that fitted no row, with their positions."""


def train(config: TrainConfig, say: Callable[[str], None] = print) -> TrainResult:
    """Run all phases; resumes from the newest checkpoint of `output`. Raises TrainError with one line."""
    started = time.perf_counter()
    output = Path(config.output)
    corpus = Corpus(config.corpus)
    if config.threads:
        torch.set_num_threads(config.threads)
    candidates = {name: find_candidates(corpus, phase, name) for name, phase in config.phases.items()}
    output.mkdir(parents=True, exist_ok=True)
    (output / "train.yaml").write_text(dump_settings(config), encoding="utf-8")
    resumed = latest(output)
    trainee = build(config, corpus, resumed, say)
    device = _device(config.device)
    trainee.model.to(device, getattr(torch, config.dtype))
    trainee.codec.to(device)
    optimizer = make_optimizer(trainee.model, config.optim, next(iter(config.phases.values())).lr)
    state = RunState(data_key=_data_key(config, candidates))
    if resumed is not None:
        state = load_state(output, resumed, optimizer, state.data_key)
        say(f"going on from {resumed} at step {state.step} of {config.steps}")
    run = _Run(config, corpus, trainee, optimizer, state, say, device, output)
    with Metrics(output) as metrics, _flag_on_signal() as asked_to_stop:
        first = 0
        for name, phase in config.phases.items():
            if state.step < first + phase.steps and not asked_to_stop():
                say(f"phase {name}: {describe_candidates(candidates[name])}")
                run.phase(name, phase, candidates[name], first, metrics, asked_to_stop)
            first += phase.steps
    checkpoint = latest(output)
    if checkpoint is None or checkpoint.name != f"step_{state.step:07d}":
        checkpoint = save(output, trainee, optimizer, state, config.keep)
    for segment, length in state.skipped.items():
        say(f"left out: segment {segment} needs {length} positions, more than a row has")
    return TrainResult(
        str(output / "latest"),
        state.step,
        state.first_loss if state.first_loss is not None else math.nan,
        state.last_loss if state.last_loss is not None else math.nan,
        time.perf_counter() - started,
        asked_to_stop(),
        dict(run.realised.layouts),
        dict(run.realised.languages),
        state.skipped,
    )


@dataclass
class _Run:
    config: TrainConfig
    corpus: Corpus
    trainee: Trainee
    optimizer: torch.optim.AdamW
    state: RunState
    say: Callable[[str], None]
    device: torch.device
    output: Path
    realised: Realised = field(default_factory=Realised)

    def phase(
        self,
        name: str,
        phase: Phase,
        candidates: list[Candidate],
        first: int,
        metrics: Metrics,
        asked_to_stop: Callable[[], bool],
    ) -> None:
        """The steps of one phase that are still to be done."""
        mixture = Mixture(candidates, phase, name, self.config.seed)
        rows = packed_rows(mixture, Planner(self.trainee.tokenizer, self.trainee.config), phase, self.state.skipped)
        maker = SampleMaker(self.corpus, self.trainee.codec, self.trainee.config)
        per_step = phase.rows * phase.accumulate
        # Rows are planned from durations alone, so going back to where the run was costs no audio.
        done = self.state.step - first
        for _ in islice(rows, done * per_step):
            pass
        bad = 0
        for step in range(done, phase.steps):
            if asked_to_stop():
                break
            started = time.perf_counter()
            planned = list(islice(rows, per_step))
            values = self._step(phase, step, planned, maker)
            if values is None:
                bad += 1
                if bad > self.config.max_bad_steps:
                    raise TrainError(
                        f"{bad} steps in a row had a loss that is no number; lower the learning rate"
                        f" (--set phases.{name}.lr={phase.lr / 3:.1e}) and go on from {latest(self.output)}"
                    )
                self.say(f"step {self.state.step + 1}: the loss is no number; the step is skipped")
            else:
                bad = 0
                seconds = time.perf_counter() - started
                values |= {"speed/positions_per_s": values.pop("positions") / seconds}
                values |= {
                    "speed/patches_per_s": values.pop("patches") / seconds,
                    "data/audio_h": self.state.audio_s / 3600,
                }
                metrics.write(self.state.step + 1, values)
                if (step + 1) % self.config.log_every == 0 or step in (done, phase.steps - 1):
                    self.say(
                        f"step {self.state.step + 1}/{self.config.steps}: diffusion {values['loss/diffusion']:.4f},"
                        f" stop {values['loss/stop']:.4f}, {values['speed/patches_per_s']:.0f} patches/s"
                    )
            self.state.step += 1
            if self.state.step % self.config.save_every == 0:
                save(self.output, self.trainee, self.optimizer, self.state, self.config.keep)

    def _step(
        self, phase: Phase, step: int, planned: list[list[Planned]], maker: SampleMaker
    ) -> dict[str, float] | None:
        """One optimiser step over all its rows; None (and no change) when the loss or a gradient is no number."""
        batches = []
        for start in range(0, len(planned), phase.rows):
            rows = planned[start : start + phase.rows]
            batch = pack_rows([[maker.make(item) for item in row] for row in rows])
            batches.append((batch, self._noise(batch, rows)))
        # Normalised over the whole step, so that how it is split into parts changes nothing.
        positions = max(1, sum(int(batch.loss_mask.sum()) for batch, _ in batches))
        frames = positions * self.trainee.config.patch_size
        rate = learning_rate(phase, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        diffusion = stop = 0.0
        progress = self.state.step / max(1, self.config.steps)
        for batch, noise in batches:
            losses = self.trainee.model.training_losses(batch.to(self.device), noise, progress)
            parts = losses.diffusion_sum / frames, losses.stop_sum / positions
            (parts[0] + self.config.optim.stop_weight * parts[1]).backward()
            diffusion, stop = diffusion + float(parts[0].detach()), stop + float(parts[1].detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self.trainee.model.parameters(), self.config.optim.clip))
        total = diffusion + self.config.optim.stop_weight * stop
        if not (math.isfinite(total) and math.isfinite(norm)):
            return None
        self.optimizer.step()
        self.state.first_loss = total if self.state.first_loss is None else self.state.first_loss
        self.state.last_loss = total
        for item in (item for row in planned for item in row):
            self.realised.count(item.choice)
            self.state.audio_s += item.choice.candidate.seconds
        filled = sum(item.length for row in planned for item in row)
        return {
            "loss/diffusion": diffusion,
            "loss/stop": stop,
            "optim/grad_norm": norm,
            "optim/lr": rate,
            "data/row_fill": filled / (len(planned) * phase.max_positions),
            "positions": float(filled),
            "patches": float(positions),
        }

    def _noise(self, batch: TrainingBatch, rows: list[list[Planned]]) -> TrainingNoise:
        """Random numbers that belong to (seed, step, sample), wherever the sample was packed."""
        assert batch.document_ids is not None
        seeds = {
            (row, document): _hash(self.config.seed, self.state.step, item.choice.seed)
            for row, items in enumerate(rows)
            for document, item in enumerate(items)
        }
        shape = (self.trainee.config.patch_size, self.trainee.config.feat_dim)
        return TrainingNoise.for_documents(batch.document_ids, seeds, shape)


def _hash(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _data_key(config: TrainConfig, candidates: dict[str, list[Candidate]]) -> str:
    """What the order of the data follows from: seed, phases (but not how long they are) and segments."""
    phases = {
        name: phase.model_dump(exclude={"lr", "warmup", "schedule", "steps"}) for name, phase in config.phases.items()
    }
    segments = {name: [c.segment_id for c in found] for name, found in candidates.items()}
    return hashlib.sha256(json.dumps([config.seed, phases, segments], sort_keys=True).encode()).hexdigest()[:16]


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


@contextmanager
def _flag_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT only raise a flag: the step is finished and saved, then the run ends."""
    asked = False

    def raise_flag(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    try:
        before = {number: signal.signal(number, raise_flag) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there stops us in their own way
        yield lambda: asked
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
