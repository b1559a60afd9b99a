"""What became of a call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from voxcpm.server.process.messages import Ending


@dataclass
class SpeechResult:
    """What became of a call; filled while it runs."""

    number: int
    seed: int
    text_tokens: int = 0
    audio_tokens: int = 0  #: patches of reference and prompt
    patches: int = 0
    seconds: float = 0.0  #: of audio that was handed out
    ending: Ending | None = None
    error: str | None = None
    asked_at: float = field(default_factory=time.time)  #: UNIX time
    queued_s: float = 0.0  #: until the engine took it
    first_audio_s: float | None = None  #: after the engine took it
    total_s: float | None = None
    waits: bool = False  #: the engine has not taken it yet

    def json(self) -> dict[str, Any]:
        """Return the fields of GET /v1/audio/speech/{request_id}."""
        going = "waiting" if self.waits else "running"
        return {
            "status": going if self.ending is None else "failed" if self.ending == "failed" else "ended",
            "ending": self.ending,
            "error": self.error,
            "seed": self.seed,
            "patches": self.patches,
            "seconds": round(self.seconds, 6),
            "created_at": self.asked_at,
            "queued_s": self.queued_s,
            "first_audio_s": self.first_audio_s,
            "total_s": self.total_s,
            "usage": self.usage(),
        }

    def usage(self) -> dict[str, Any]:
        """Return token counts as OpenAI and vLLM-Omni name them; an output token is a patch."""
        read = self.text_tokens + self.audio_tokens
        return {
            "input_tokens": read,
            "output_tokens": self.patches,
            "total_tokens": read + self.patches,
            "input_token_details": {"text_tokens": self.text_tokens, "audio_tokens": self.audio_tokens},
        }
