"""The errors of the model package; each message is one line that says what to do."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint cannot be used: wrong architecture, missing, unexpected or misshapen tensors, NaN in the weights."""


class AudioError(ValueError):
    """A clip cannot be used: unreadable, silent, or shorter than 0.1 s."""


class GenerationError(RuntimeError):
    """An utterance failed: its latents are not finite."""

    def __init__(self, patches: int) -> None:
        super().__init__(
            f"generation failed after {patches} patches: the latents are not finite. Try another seed, or dtype float32"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
