"""What `train` tells: after every step, and at its end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrainResult:
    """Where the run ended. Losses are diffusion + weighted stop of the first and the last step."""

    checkpoint: str
    """A folder that `speak` loads (after a LoRA run that was stopped: the adapter so far)."""
    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    stopped_early: bool = False
    """A signal stopped the run; the same call resumes it."""
    layouts: dict[str, int] = field(default_factory=dict)
    """Samples by layout, of all steps."""
    languages: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    """Segments that fitted no row in some layout, with the positions they needed."""
    bad_steps: int = 0
    """Steps that were skipped because their loss or gradient was no number."""
    audio_h: float = 0.0
    """Hours of target audio seen, repetitions counted."""
    validation: dict[str, float] = field(default_factory=dict)
    """The last validation's metrics."""
    adapter: str | None = None
    """With LoRA: the folder with the adapter, which is merged in `checkpoint`."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Segments that were left out because they are damaged, and what was wrong."""


@dataclass(frozen=True)
class Progress:
    """Told after every step."""

    step: int
    steps: int
    report: StepReport
    seconds_left: float
    """At the speed of this run so far."""


@dataclass(frozen=True)
class StepReport:
    """What a step measured. Losses are means over its target patches, taken before the update."""

    diffusion: float
    stop: float
    total: float
    """diffusion + stop_weight * stop: what was minimized."""
    grad_norm: float
    """Before clipping."""
    lr: float
    positions: int
    """Text tokens, patches and marks, without padding."""
    slots: int
    """With padding."""
    patches: int
    """Target patches: those with a loss."""
    audio: int
    """All patches: targets, given beginnings, references."""
    seconds: float
    """From the report before it to this one: with everything between two steps but validation and checkpoints."""
    waited_s: float
    """Seconds of these until the samples were there (planning, audio, codec, packing)."""
    groups: dict[str, float] = field(default_factory=dict)
    """The diffusion loss by layout and by language: "layout_basic", "language_en" ..."""
    taken: bool = True
    """True if the weights were changed: not if nothing was learned, the loss is NaN or infinite, or the guard refuses it."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Segments that are damaged, and why: the samples that need them were left out."""
