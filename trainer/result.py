"""What `train` reports after every step, and returns at its end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrainResult:
    """The result of a run. Losses are diffusion + weighted stop of the first and the last step."""

    checkpoint: str
    """A folder that `speak` loads (after a LoRA run that was stopped: the adapter so far)."""
    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    stopped_early: bool = False
    """A signal stopped the run; the same call resumes it."""
    layouts: dict[str, int] = field(default_factory=dict)
    """Number of samples of all steps, by layout."""
    languages: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    """Segments that did not fit into a row in some layout, with the positions they needed."""
    bad_steps: int = 0
    """Number of steps that were skipped because the loss or the gradient was NaN or infinite, or the loss spiked."""
    audio_h: float = 0.0
    """Hours of target audio seen, repetitions counted."""
    validation: dict[str, float] = field(default_factory=dict)
    """The last validation's metrics."""
    adapter: str | None = None
    """With LoRA: the folder with the adapter, which is merged in `checkpoint`."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Segments that were left out because they are damaged, with the reasons."""
    best: str | None = None
    """With `validation.best`: the link to the best checkpoint."""
    ended_early: bool = False
    """The panel ended the run before its last step, since the best checkpoint was not beaten."""


@dataclass(frozen=True)
class Progress:
    """Passed to `on_step` after every step."""

    step: int
    steps: int
    report: StepReport
    seconds_left: float
    """Estimated from the speed of this run so far."""


@dataclass(frozen=True)
class StepReport:
    """Measurements of one step. Losses are means over its target patches, before the update."""

    diffusion: float
    stop: float
    total: float
    """diffusion + stop_weight * stop: what was minimized."""
    grad_norm: float
    """Before clipping."""
    lr: float
    positions: int
    """Number of text tokens, patches and marks, without padding."""
    slots: int
    """Number of positions with padding."""
    patches: int
    """Number of target patches: those with a loss."""
    audio: int
    """Number of all patches: targets, given beginnings, references."""
    seconds: float
    """Time from the previous report to this one, without validation and checkpoints."""
    waited_s: float
    """The part of `seconds` spent waiting for the samples (planning, audio, codec, packing)."""
    groups: dict[str, float] = field(default_factory=dict)
    """The diffusion loss by layout and by language: "layout_basic", "language_en" ..."""
    taken: bool = True
    """True if the weights were changed: not if there was no target patch, the loss is NaN or infinite, or the guard refuses it."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Damaged segments with the reasons; samples that need them were left out."""
