"""Checks of the arguments before anything is computed. Every message says what to change."""

from __future__ import annotations

from pathlib import Path

CFG_RANGE = (0.1, 10.0)
STEPS_RANGE = (1, 100)
DEFAULT_MIN_LEN = 2


def check_text(text: str) -> None:
    """Raise ValueError if the text is not a string or is blank."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the text is empty: give something to say")


def check_solver(cfg_value: float, inference_timesteps: int) -> None:
    """Raise ValueError if `cfg_value` is outside 0.1..10 or `inference_timesteps` is not an integer in 1..100."""
    if not CFG_RANGE[0] <= cfg_value <= CFG_RANGE[1]:
        raise ValueError(f"cfg_value {cfg_value:g} is outside {CFG_RANGE[0]}..{CFG_RANGE[1]:g}")
    if not (isinstance(inference_timesteps, int) and STEPS_RANGE[0] <= inference_timesteps <= STEPS_RANGE[1]):
        raise ValueError(f"inference_timesteps {inference_timesteps} is outside {STEPS_RANGE[0]}..{STEPS_RANGE[1]}")


def check_lengths(min_len: int, max_len: int) -> None:
    """Raise ValueError if the maximum is below one patch or below the minimum, or the minimum is negative."""
    if min_len < 0 or max_len < 1:
        raise ValueError(f"min_len {min_len} must be at least 0 and max_len {max_len} at least 1")
    # The default minimum may be above the maximum: `max_len=1` alone is not an error.
    if min_len > max(max_len, DEFAULT_MIN_LEN):
        raise ValueError(f"min_len {min_len} is above max_len {max_len}")


def check_prompt(prompt_audio: object | None, prompt_text: str | None) -> None:
    """Raise ValueError if prompt audio is given without its text, or the text without the audio."""
    if (prompt_audio is None) != (not prompt_text):
        given, lacking = ("prompt audio", "its text") if prompt_audio is not None else ("a prompt text", "its audio")
        raise ValueError(f"{given} was given without {lacking}: give both or none")


def check_file(path: str | Path | None) -> None:
    """Raise FileNotFoundError if `path` is not a file (None is allowed)."""
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(f"no audio file at {path}")
