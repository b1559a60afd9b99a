"""Training of the published 2B configuration on a GPU, with random weights and clips of natural lengths.

    python benchmarks/gpu_training.py [--only full,lora,...] [--steps 6] [--write docs/benchmarks.md] [--profile FILE] [--tiny]

Each way of training takes the steps that `voxmill train` takes: the same stepper, samples prefetched by one step, stored
latents. Printed: positions and learned patches per second, seconds of speech learned per second, the useful share of the GPU's
peak (no padding, no recomputation, no discarded outputs), the memory, and how long the GPU waited for samples. `--profile`
writes the time of one step by kind of kernel. `--tiny` runs a small model on any machine, to test the script.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from inference import _replace_section  # noqa: E402

from trainer.config import ComputeSettings, TrainConfig  # noqa: E402
from trainer.data.candidates import Choice  # noqa: E402
from trainer.data.mixture import Candidate  # noqa: E402
from trainer.data.packing import pack  # noqa: E402
from trainer.data.rows import Planned  # noqa: E402
from trainer.data.sample_counts import SampleCounts  # noqa: E402
from trainer.data.samples import BatchMaker, step_maker  # noqa: E402
from trainer.model.build import keep_in_half  # noqa: E402
from trainer.optim import make_optimizer  # noqa: E402
from trainer.result import StepReport  # noqa: E402
from trainer.runtime.flops import training_flops  # noqa: E402
from trainer.runtime.parallelize import parallelize  # noqa: E402
from trainer.runtime.prefetch import Prefetcher  # noqa: E402
from trainer.runtime.ranks import Ranks  # noqa: E402
from trainer.step import Stepper  # noqa: E402
from voxcpm.config import VoxCPM2Config  # noqa: E402
from voxcpm.kernels.roofline import find_gpu  # noqa: E402
from voxcpm.model.backbone import VoxCPM2  # noqa: E402
from voxcpm.presets import config_dict  # noqa: E402
from voxcpm.sequence.training_rows import Sample, lay_out_sample  # noqa: E402
from voxcpm.weights.lora import LoRAConfig, apply_lora  # noqa: E402

PATCHES_PER_S = 6.25
TOKENS_PER_S = 4.0


@dataclass(frozen=True)
class Way:
    """One way of training: `rows` rows of `positions` go through the model at once, `accumulate` times per step."""

    title: str
    compiled: bool = True
    recompute: bool = False
    lora: bool = False
    positions: int = 4096
    rows: int = 1
    accumulate: int = 4


WAYS = {
    "full": Way("all weights"),
    "half": Way("all weights, rows of 2048", positions=2048, accumulate=8),
    "recompute": Way("all weights, recomputed", recompute=True),
    "long": Way("all weights, recomputed, rows of 8192", recompute=True, positions=8192, accumulate=2),
    "eager": Way("all weights, recomputed, not compiled", compiled=False, recompute=True),
    "lora": Way("LoRA (rank 32)", lora=True),
    "lora24": Way("LoRA (rank 32), recomputed: for 24 GB", lora=True, recompute=True),
}


def natural_rows(positions: int, seed: int) -> Iterator[list[Planned]]:
    """Packed rows of clips of 1 to 30 s (log-normal, median 6 s); half of them with another clip as reference."""
    dice = np.random.default_rng(seed)

    def samples() -> Iterator[Planned]:
        index = 0
        while True:
            seconds = float(np.clip(dice.lognormal(np.log(6), 0.6), 1, 30))
            with_reference = bool(dice.integers(2))
            candidate = Candidate(f"clip{index}", "en", "", seconds, None, (("other", 5.0),))
            layout = "reference" if with_reference else "basic"
            choice = Choice(index, candidate, layout, "other" if with_reference else None, index)
            tokens = tuple(dice.integers(200, 400, round(TOKENS_PER_S * seconds)).tolist())
            yield Planned(choice, tokens, round(PATCHES_PER_S * seconds), 31 if with_reference else 0)
            index += 1

    return pack(samples(), positions)


class Rows:
    """Iterator over rows in the form that the training loop takes."""

    def __init__(self, positions: int) -> None:
        self._rows = natural_rows(positions, 1)

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> list[Planned]:
        return next(self._rows)

    def state(self) -> dict[str, Any]:
        """Return no state, because there is nothing to resume."""
        return {}

    def tally(self, rows: list[list[Planned]]) -> SampleCounts:
        """Return empty counts: this benchmark does not count the training data."""
        return SampleCounts()


class StoredClips:
    """Samples of random latents, each copied from one large array, as for stored latents."""

    def __init__(self, config: VoxCPM2Config) -> None:
        self._latents = torch.randn(4096, config.patch_size, config.feat_dim).to(torch.bfloat16)

    def make(self, planned: Planned) -> Sample:
        """Return the training sample of a plan."""
        start = planned.choice.index % 3000
        target = self._latents[start : start + planned.patches].float()
        reference = self._latents[: planned.reference_patches].float() if planned.reference_patches else None
        return lay_out_sample(planned.tokens, target, reference)


@dataclass(frozen=True)
class Measured:
    """Means over the timed steps, and the peak memory (GiB)."""

    positions_per_s: float
    learnt_per_s: float
    useful_tflops: float
    waited: float
    gib: float
    pad_share: float
    loss: float


def measure(way: Way, config: VoxCPM2Config, device: torch.device, steps: int, profile: Path | None) -> Measured:
    """Take steps and time them."""
    torch.manual_seed(0)
    model = VoxCPM2.from_config(config, torch.Generator(device).manual_seed(0), device).train()
    if way.lora:
        apply_lora(model, LoRAConfig(enable_lm=True, enable_dit=True, r=32, alpha=32), train=True)
        keep_in_half(model)
    settings = TrainConfig(
        corpus="none",
        output="none",
        phases={"all": {"steps": 1000, "rows": way.rows, "accumulate": way.accumulate, "max_positions": way.positions}},  # type: ignore[dict-item]
        compute=ComputeSettings(dtype="bfloat16", compile=way.compiled, recompute=way.recompute),
    )
    phase = settings.phases["all"]
    parallel = parallelize(model, settings, Ranks(), device)
    trainee: Any = SimpleNamespace(model=model, config=config)
    optimizer = make_optimizer(model, settings.optim, phase.lr)
    maker: Any = StoredClips(config)
    stepper = Stepper(settings, trainee, optimizer, device, parallel)
    batches = BatchMaker(settings, maker, config, device)
    warm = 3
    reports: list[StepReport] = []
    with Prefetcher() as ahead:
        source: Any = Rows(way.positions)
        each = way.rows * way.accumulate
        make = step_maker(source, each, partial(batches.micro_batches, phase))
        for number, made in enumerate(ahead.steps(make, range(warm + steps + 1))):
            last = number == warm + steps
            if number == warm:
                _settle(device)
                started = time.perf_counter()
            if last:
                _settle(device)
                seconds = time.perf_counter() - started
            ready = stepper.ready(made)
            assert ready is not None
            if last and profile is not None:
                _profiled(partial(stepper.take, phase, number, number, ready), profile, way)
                break
            report = stepper.take(phase, number, number, ready)
            if number >= warm and not last:
                reports.append(report)
    total = {
        name: sum(getattr(report, name) for report in reports) for name in ("positions", "patches", "audio", "slots")
    }
    useful = training_flops(config, total["positions"] - total["audio"], total["audio"], total["patches"])
    if way.lora:
        # Frozen weights have no gradient: only the forward pass and the gradient of the inputs count.
        useful *= 2 / 3
    return Measured(
        total["positions"] / seconds,
        total["patches"] / seconds,
        useful / seconds / 1e12,
        sum(report.waited_s for report in reports) / seconds,
        torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0,
        1 - total["positions"] / total["slots"],
        reports[-1].total,
    )


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _profiled(step: Any, path: Path, way: Way) -> None:
    """One step under torch's profiler: milliseconds on the device by kind of kernel, and the longest kernels."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    started = time.perf_counter()
    with profile(activities=activities) as found:
        step()
    wall = time.perf_counter() - started
    kinds: dict[str, float] = defaultdict(float)
    single: dict[str, list[float]] = defaultdict(list)
    for event in found.events() or ():
        if str(event.device_type).endswith("CUDA"):
            milliseconds = event.time_range.elapsed_us() / 1000
            kinds[_kind(event.name)] += milliseconds
            single[event.name].append(milliseconds)
    lines = [f"## {way.title}: one step, {wall * 1e3:.0f} ms (with the profiler's own time)", ""]
    lines += [f"{name:12} {value:8.1f} ms" for name, value in sorted(kinds.items(), key=lambda pair: -pair[1])]
    longest = sorted(single.items(), key=lambda pair: -sum(pair[1]))[:30]
    lines += ["", *(f"{sum(times):8.2f} ms {len(times):6} x {name[:110]}" for name, times in longest)]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n\n")


def _kind(kernel: str) -> str:
    name = kernel.lower()
    for kind, marks in (
        ("attention", ("flash", "fmha", "attention")),
        ("products", ("gemm", "cutlass", "nvjet", "cublas", "xmma")),
        ("optimizer", ("adam", "multi_tensor", "lerp")),
        ("compiled", ("triton",)),
        ("copies", ("memcpy", "memset")),
    ):
        if any(mark in name for mark in marks):
            return kind
    return "others"


def main() -> None:
    """Measure every requested way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--profile", type=Path, help="a file for where the time goes")
    parser.add_argument("--write", type=Path, help="markdown file whose gpu-training section is replaced")
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not arguments.tiny:
        sys.exit("no CUDA device is here: --tiny runs a small model on the CPU, without figures that mean anything")
    device = torch.device("cuda" if on_gpu else "cpu")
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    peak = (find_gpu(name) or (0.0, 0.0))[1] / 1e12
    config = VoxCPM2Config.from_dict(config_dict("toy", 512) if arguments.tiny else config_dict("2b", 73448))
    lines = [
        f"{name}, torch {torch.__version__}, bfloat16 over float32 weights (frozen ones bfloat16); rows of 4096 positions where"
        f" nothing else is said, one at a time, 16,384 positions a step; means of {arguments.steps} steps. Peak:"
        f" {peak:.0f} TFLOP/s.",
        "",
        "| what is trained | positions/s | learned patches/s | speech s/s | useful TFLOP/s | of the peak | GiB | waited |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for key in arguments.only.split(","):
        way = replace(WAYS[key], positions=512, compiled=False) if arguments.tiny else WAYS[key]
        try:
            found = measure(way, config, device, arguments.steps, arguments.profile)
        except torch.OutOfMemoryError as error:
            lines.append(f"| {way.title} | out of memory: {str(error).split('.')[0]} | | | | | | |")
            print(lines[-1], flush=True)
            continue
        finally:
            gc.collect()
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        share = f"{found.useful_tflops / peak:.1%}" if peak else ""
        lines.append(
            f"| {way.title} | {found.positions_per_s:,.0f} | {found.learnt_per_s:,.0f}"
            f" | {found.learnt_per_s / PATCHES_PER_S:,.0f} | {found.useful_tflops:.0f} | {share} | {found.gib:.1f}"
            f" | {found.waited:.1%} |"
        )
        print(f"{lines[-1]}  loss {found.loss:.3f}, padding {found.pad_share:.1%}", flush=True)
    if arguments.write:
        _replace_section(arguments.write, "gpu-training", "\n".join(lines))


if __name__ == "__main__":
    main()
