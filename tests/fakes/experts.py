"""Experts for tests."""

from __future__ import annotations

from collections.abc import Sequence

from annotators.experts.base import Expert, Shares
from annotators.schema import Clip


class Forbidden(Expert):
    """An expert whose license forbids commercial use. It calls everybody a man."""

    name, attribute, license, non_commercial = "forbidden", "gender", "CC-BY-NC-4.0", True

    def judge(self, clips: Sequence[Clip]) -> list[Shares | None]:
        return [{"female": 0.02, "male": 0.98} for _ in clips]


class Moody(Forbidden):
    """An expert of an attribute that no expert judges for `verify`. It must not be loaded."""

    name, attribute, license, non_commercial = "moody", "arousal", "CC0-1.0", False

    def load(self) -> None:
        raise AssertionError("loaded, though it is refused")


class Listener(Forbidden):
    """An expert that needs the audio of the clips."""

    name, non_commercial, listens, license = "listener", False, True, "CC0-1.0"

    def judge(self, clips: Sequence[Clip]) -> list[Shares | None]:
        assert all(clip.flac is not None and clip.flac.startswith(b"fLaC") for clip in clips)
        return super().judge(clips)
