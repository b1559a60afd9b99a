"""An annotator that writes the measured pitch and rate of a voice as a description."""

from __future__ import annotations

from collections.abc import Sequence

from annotators.providers.base import Provider
from annotators.schema import Answer, Clip, VoiceDescription, captions_of


class Numbers(Provider):
    """Describe a voice by its pitch and its rate; a clip without these measures gets an error."""

    name = "numbers"
    model = "numbers-1"
    prompt_version = "1"
    listens = False

    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        """Return one answer per clip, in order."""
        return [self._describe(clip) for clip in clips]

    def _describe(self, clip: Clip) -> Answer:
        pitch, rate = clip.row["pitch_hz"], clip.row["rate_sps"]
        if pitch is None or rate is None:
            return Answer(clip.segment_id, error="no pitch or rate was measured")
        full = f"A voice with a median pitch of {pitch:.0f} Hz that speaks {rate:.1f} syllables per second."
        captions = {
            ("brief", "en"): f"{pitch:.0f} Hz, {rate:.1f} syllables/s",
            ("style", "en"): f"{rate:.1f} syllables per second",
            ("full", "en"): full,
        }
        return Answer(clip.segment_id, VoiceDescription(captions=captions_of(captions)))
