"""The plan of a run, without running it: `voxmill train --dry-run`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from catalogs.corpus.latents import stored_codecs
from catalogs.vocabulary.licenses import summary
from trainer.codec.files import read_codec
from trainer.config import Phase, TrainConfig, TrainError
from trainer.data.latent_cache import Latents
from trainer.data.mixture import describe_candidates
from trainer.data.rows import Planner, RowStream
from trainer.data.sample_counts import SampleCounts, caption_words, layout_words
from trainer.dryrun.checks import (
    Data,
    ModelFacts,
    check_disk,
    check_output,
    disk_needed,
    free_bytes,
    license_words,
    look_at_model,
    read_data,
)
from trainer.dryrun.memory import FLOAT, Memory, PartSize, memory_needed
from trainer.model.build import keeps_half
from trainer.monitor.panel import check_judge
from trainer.runtime.device import pick_device, slow_arithmetic
from trainer.runtime.flops import training_flops
from trainer.runtime.ranks import Ranks, check_shares, chosen_ranks, planned_ranks
from trainer.sample_kinds import BY_LAYOUT, DECOUPLED
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.text_tokenizer import TextTokenizer

_LAID_OUT = 20_000
"""Number of samples of a phase that are laid out as in training; a longer phase is extrapolated from them."""
_CHARACTERS_A_TOKEN = 3
_LONG_S = 60
"""Seconds. A phase for clips of this length or more expects joined clips in the corpus."""
_ROOM = 1.15
"""Ratio of real memory to the estimate: libraries and fragmentation add to it."""
GPU_FLOPS = 400e12
"""FLOP/s of one GPU that the plan's GPU hours assume: 40 % of an H100's peak in bfloat16."""


@dataclass
class PhasePlan:
    """One phase. Samples, positions, hours and epochs are those of all its steps."""

    name: str
    steps: int
    rows: int
    segments: int
    hours: float
    samples: int = 0
    layouts: dict[str, int] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    """Shares of the layouts that the phase's weights ask for."""
    rounds: dict[str, float] = field(default_factory=dict)
    """How many times each segment that can serve a layout is taken in it, on average."""
    decoupled: int = 0
    """Number of content-decoupled samples."""
    languages: dict[str, int] = field(default_factory=dict)
    captions: dict[str, int] = field(default_factory=dict)
    """Number of descriptions by layout/register/language/speech (`trainer.data.sample_counts.caption_key`)."""
    captions_asked: dict[str, dict[str, float]] = field(default_factory=dict)
    """Requested shares of the registers, by layout."""
    chinese_asked: dict[str, float] = field(default_factory=dict)
    """Requested shares of Chinese descriptions, for speech in Chinese (`chinese`) and `other` speech."""
    text_tokens: int = 0
    patches: int = 0
    learnt: int = 0
    positions: int = 0
    filled: float = 0.0
    audio_h: float = 0.0
    epochs: float = 0.0
    too_long: dict[str, int] = field(default_factory=dict)
    exact: bool = True
    """True if all steps were laid out; otherwise the numbers are extrapolated."""
    notes: list[str] = field(default_factory=list)
    warning: str | None = None
    """A line if the phase passes over its segments more often than `data.warn_epochs`."""


@dataclass
class TrainPlan:
    """The report of `--dry-run`."""

    ranks: int
    parallel: str
    steps: int
    resumed: str | None
    origin: str
    weights: int
    trained: int
    phases: list[PhasePlan]
    memory: Memory
    exaflops: float
    checkpoint_bytes: float
    disk_bytes: float
    disk_free: float
    notes: list[str] = field(default_factory=list)
    licenses: dict[str, float] = field(default_factory=dict)
    """Hours of the corpora that may be trained on, by license; `NOASSERTION` is none."""
    left_out: dict[str, float] = field(default_factory=dict)
    """Hours that `data.licenses` leaves out, by license."""
    problem: str | None = None
    """Why the run cannot start in spite of this plan, in one line; None if it can."""

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for `--json`."""
        return asdict(self) | {"memory": asdict(self.memory) | {"total": self.memory.total}}

    def lines(self) -> list[str]:
        """Return the plan as readable lines."""
        found = [f"model: {self.origin}; {parameter_words(self.weights, self.trained)}"]
        found.append(
            f"ranks: {self.ranks}"
            + (f", {self.parallel}" if self.ranks > 1 else "")
            + f"; {self.steps} steps"
            + (f", resuming from {self.resumed}" if self.resumed else "")
        )
        for phase in self.phases:
            found += _phase_lines(phase)
        if self.licenses:
            found.append("; ".join([f"licenses: {license_words(self.licenses)}", *summary(self.licenses)]))
        if self.left_out:
            found.append(f"left out by data.licenses: {license_words(self.left_out)}")
        memory = self.memory
        parts = [
            f"{words} {value / 1e9:.2f}"
            for words, value in (
                ("weights", memory.weights), ("gradients", memory.gradients), ("optimizer", memory.optimizer),
                ("average", memory.average), ("activations", memory.activations),
            )
            if value
        ]  # fmt: skip
        found.append(f"memory per rank: about {memory.total / 1e9:.2f} GB ({', '.join(parts)})")
        hours = self.exaflops * 1e18 / GPU_FLOPS / 3600
        found.append(
            f"arithmetic: {self.exaflops * 1e6:,.3g} TFLOP, or {hours:,.2g} GPU hours at {GPU_FLOPS / 1e12:.0f} TFLOP/s"
        )
        found.append(
            f"disk: {self.checkpoint_bytes / 1e9:.2f} GB per checkpoint, {self.disk_bytes / 1e9:.2f} GB at most;"
            f" {self.disk_free / 1e9:.0f} GB are free"
        )
        warnings = [f"warning: {phase.warning}" for phase in self.phases if phase.warning]
        return [*found, *(f"note: {note}" for note in self.notes), *warnings]


def plan(config: TrainConfig) -> TrainPlan:
    """Return the plan of a run. It runs every check of `train`; nothing is written to the output, fetched or trained.

    Raises TrainError (and the loaders' errors) with one line. A disk that is too small is reported as the plan's `problem`: the
    numbers of the plan help to solve it.
    """
    ranks = planned_ranks(config)
    if config.launch.backend == "ray":
        ranks = chosen_ranks(config, 0, config.launch.workers, 0)
    check_shares(config, ranks)
    device = pick_device(config.compute.device)
    check_judge(config)
    data = read_data(config)
    resumed = check_output(config, data.key)
    facts = look_at_model(config, data.corpora, resumed)
    if facts is None:
        raise TrainError(
            f"{config.model.start} is not on this machine yet: fetch it first, with: hf download {config.model.start}"
        )
    problem = None
    try:
        check_disk(config, facts, resumed)
    except TrainError as error:
        problem = str(error)
    phases = []
    first = 0
    for name, phase in config.phases.items():
        steps = max(0, min(phase.steps, config.total_steps - first))
        planned = _plan_phase(name, phase, steps, data, facts)
        planned.warning = data.mixtures[name].repetition_warning(planned.epochs, config.data.warn_epochs)
        phases.append(planned)
        first += phase.steps
    each, most = disk_needed(config, facts)
    memory = _memory(config, facts, phases, ranks)
    return TrainPlan(
        ranks.world,
        ranks.mode,
        config.total_steps,
        str(resumed.name) if resumed else None,
        facts.origin,
        facts.weights,
        facts.trained,
        phases,
        memory,
        sum(training_flops(facts.config, p.positions - p.patches, p.patches, p.learnt) for p in phases) / 1e18,
        each,
        most,
        free_bytes(config),
        [
            *config.renamed(),
            *_device_notes(memory, device),
            *slow_arithmetic(config, device),
            *_latent_notes(facts, data),
            *_notes(facts, phases, data),
        ],
        *data.corpora.license_hours(),
        problem,
    )


class _RoughTokenizer(TextTokenizer):
    """Stands in for a tokenizer that has yet to be trained or fetched: only lengths are needed."""

    def __init__(self) -> None:
        pass

    digest = ""

    def encode(self, text: str) -> list[int]:
        return [0] * (1 + len(text) // _CHARACTERS_A_TOKEN)

    def count(self, texts: list[str]) -> np.ndarray:
        return np.array([1 + len(text) // _CHARACTERS_A_TOKEN for text in texts], dtype=np.int32)


def _plan_phase(name: str, phase: Phase, steps: int, data: Data, facts: ModelFacts) -> PhasePlan:
    candidates, mixture = data.candidates[name], data.mixtures[name]
    found = PhasePlan(
        name, steps, phase.rows * phase.accumulate, len(candidates), float(candidates.seconds.sum()) / 3600
    )
    rows = RowStream(mixture, Planner(facts.tokenizer or _RoughTokenizer(), facts.config), phase, found.too_long)
    realised, laid_out, wanted = SampleCounts(), 0, steps * found.rows
    while laid_out < wanted and found.samples < _LAID_OUT:
        row = next(rows)
        laid_out += 1
        for item in row:
            realised.count(item.choice)
            found.samples += 1
            found.text_tokens += len(item.tokens)
            found.patches += item.patches + item.reference_patches
            # The given beginning of a continuation is half of the clip on average.
            found.learnt += item.patches // (2 if BY_LAYOUT[item.choice.layout].continuation else 1)
            found.positions += item.length
    found.layouts, found.languages, found.decoupled = realised.layouts, realised.languages, realised.decoupled
    found.captions = realised.captions
    found.captions_asked, found.chinese_asked = mixture.captions.asked, mixture.captions.asked_chinese
    found.audio_h = realised.seconds / 3600
    found.filled = found.positions / max(1, laid_out * phase.max_positions)
    if laid_out < wanted:
        _extrapolate(found, wanted / laid_out)
        if mixture.shares.ramp:
            expected = mixture.shares.expected(found.samples)
            found.layouts = {layout: round(share * found.samples) for layout, share in expected.items()}
            found.decoupled = round(found.layouts.get(DECOUPLED.layout, 0) * mixture.shares.decoupled)
    found.epochs = found.samples / mixture.epoch_samples
    found.asked, found.rounds = mixture.shares.asked(found.samples), mixture.rounds(found.layouts)
    found.notes = [*mixture.notes(), *_short_clips(name, phase, float(candidates.seconds.max()))]
    return found


def _short_clips(name: str, phase: Phase, longest: float) -> list[str]:
    """Return a line if a phase allows clips much longer than the corpus has: the pipeline joins clips only if it is set to."""
    if phase.max_seconds < _LONG_S or longest > phase.max_seconds / 2:
        return []
    fitting = "stage1" if phase.max_seconds <= 60 else "stage2" if phase.max_seconds <= 180 else "stage3"
    return [
        f"phase {name}: the longest segment has {longest:.0f} s, max_seconds is {phase.max_seconds:g}: for longer clips prepare"
        f" with --set refine_cuts.lengths={fitting}"
    ]


def _extrapolate(found: PhasePlan, times: float) -> None:
    found.exact = False
    for name in ("samples", "decoupled", "text_tokens", "patches", "learnt", "positions"):
        setattr(found, name, round(getattr(found, name) * times))
    found.audio_h *= times
    for name in ("layouts", "languages", "captions"):
        setattr(found, name, {key: round(count * times) for key, count in getattr(found, name).items()})


def parameter_words(weights: int, trained: int) -> str:
    """Return the number of weights, and how many of them are trained, in words."""
    words = f"{weights / 1e6:,.1f} million weights"
    return words if trained == weights else f"{words}, of which {trained / 1e6:,.1f} million are trained"


def _phase_lines(phase: PhasePlan) -> list[str]:
    about = "" if phase.exact else "about "
    made = f"; {phase.decoupled:,} content-decoupled" if phase.decoupled else ""
    languages = ", ".join(f"{name or 'unknown'} {count:,}" for name, count in sorted(phase.languages.items()))
    captions = caption_words(phase.captions, phase.captions_asked, phase.chinese_asked)
    return [
        f"phase {phase.name}: {phase.steps:,} steps of {phase.rows} rows; {phase.segments:,} segments, {phase.hours:.3f} h;"
        f" {about}{phase.samples:,} samples ({phase.epochs:.1f} epochs), {phase.audio_h:.2f} h of audio",
        f"  by layout: {layout_words(phase.layouts, phase.asked, phase.rounds)}{made}",
        f"  by language: {languages}",
        *([f"  by description: {captions}"] if phase.captions else []),
        f"  {about}{phase.positions:,} positions ({phase.text_tokens:,} text tokens, {phase.patches:,} patches, of which"
        f" {phase.learnt:,} are learned); rows are {phase.filled:.0%} full",
    ]


def _memory(config: TrainConfig, facts: ModelFacts, phases: list[PhasePlan], ranks: Ranks) -> Memory:
    """Return the estimate of the phase that needs the most memory."""
    shape: VoxCPM2Config = facts.config
    needed = []
    for planned, phase in zip(phases, config.phases.values(), strict=True):
        at_once = min(phase.rows, phase.rows * phase.accumulate // ranks.world) * phase.max_positions
        share = at_once / max(1, planned.positions)
        part = PartSize(at_once, planned.patches * share, planned.learnt * share)
        needed.append(
            memory_needed(
                facts.weights,
                facts.trained,
                shape,
                part,
                ranks.world,
                ranks.sharded,
                config.optim.ema is not None,
                config.compute.dtype == "bfloat16",
                config.compute.recompute,
                None if config.model.lora is None else 2 if keeps_half(config, shape) else FLOAT,
            )
        )
    return max(needed, key=lambda memory: memory.total)


def _device_notes(memory: Memory, device: torch.device) -> list[str]:
    """Return a line that compares the estimate with the memory of the device, if it is a GPU."""
    if device.type != "cuda":
        return []
    about = torch.cuda.get_device_properties(device)
    words = f"{about.name} has {about.total_memory / 1e9:.1f} GB, the estimate is {memory.total / 1e9:.1f} GB"
    if memory.total * _ROOM > about.total_memory:
        words += (
            ": too little with libraries and fragments; fewer rows and more accumulate, compute.recompute=true or more ranks"
            " need less"
        )
    return [words]


def _latent_notes(facts: ModelFacts, data: Data) -> list[str]:
    """Return lines about stored latents that the run cannot use. The codec is read only if a corpus has stored latents."""
    stored = {part.path: codecs for part in data.corpora.parts if (codecs := stored_codecs(part.path))}
    if not stored:
        return []
    if facts.codec is not None:
        return Latents(data.corpora, read_codec(facts.codec), facts.config).notes
    return [
        f"{home} has latents of the codecs {', '.join(codecs)}: whether the model's is one of them is known when the run starts"
        for home, codecs in stored.items()
    ]


def _notes(facts: ModelFacts, phases: list[PhasePlan], data: Data) -> list[str]:
    found = [f"held out for validation: {len(data.held)} segments"] if data.held else []
    if facts.tokenizer is None:
        found.append(
            f"text tokens are estimated at {_CHARACTERS_A_TOKEN} characters each: the tokenizer comes with the run"
        )
    for phase in phases:
        if phase.too_long:
            segment, length = max(phase.too_long.items(), key=lambda item: item[1])
            found.append(
                f"phase {phase.name}: {len(phase.too_long)} segments are too long for a row in some layout and are left out of"
                f" it (the longest, {segment}, needs {length} positions): raise max_positions to have them"
            )
        found.append(f"phase {phase.name}: {describe_candidates(data.candidates[phase.name])}")
        found += phase.notes
    return found
