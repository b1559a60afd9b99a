"""What the server tells Home Assistant about itself: programs, voices, languages."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from voxcpm.server.presets import PRESETS
from voxcpm.server.settings import ALIASES, DEFAULT_VOICE
from voxcpm.server.wyoming.events import Event

if TYPE_CHECKING:
    from voxcpm.server.state import ServerState

LANGUAGES = (
    "ar", "my", "zh", "da", "nl", "en", "fi", "fr", "de", "el", "he", "hi", "id", "it", "ja", "km", "ko", "lo", "ms", "no",
    "pl", "pt", "ru", "es", "sw", "sv", "tl", "th", "tr", "vi",
)  # fmt: skip
"""Languages of VoxCPM2."""
EARLIER = ("zh", "en")
"""Languages of VoxCPM1.5 and VoxCPM 0.5B."""
_MODEL = {"name": "OpenBMB", "url": "https://github.com/OpenBMB/VoxCPM"}
_NAMES = {"name": "descriptions of voxmill", "url": ""}
_STORED = {"name": "the voices of this server", "url": ""}
_OTHER_DOMAINS = ("asr", "handle", "intent", "wake", "mic", "snd")


def programs(state: ServerState) -> list[str]:
    """Return the models that a client may select: the checkpoint first, then its adapters."""
    return [name for name in state.models if name not in ALIASES]


def languages(state: ServerState) -> tuple[str, ...]:
    """Return the codes of the languages that the model speaks. Raises ApiError (503) before it is loaded."""
    return LANGUAGES if state.link.about.takes_references else EARLIER


async def voice_names(state: ServerState) -> list[str]:
    """Return the names of the voices that a request may use: `default`, stored ones, those of descriptions."""
    known = await state.voices.usable() if state.voices is not None else []
    return [DEFAULT_VOICE, *sorted(known, key=lambda name: name in PRESETS)]


async def info(state: ServerState) -> Event:
    """Return the answer to `describe`. Raises ApiError (503) before the model is loaded."""
    spoken = list(languages(state))
    voices = [_voice(name, spoken) for name in await voice_names(state)]
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "description": f"{name}, served by voxmill",
            "attribution": _MODEL,
            "installed": True,
            "version": _version(),
            "voices": voices,
            "supports_synthesize_streaming": True,
        }
        for name in programs(state)
    ]
    return Event("info", {"tts": found} | {domain: [] for domain in _OTHER_DOMAINS})


def _voice(name: str, spoken: list[str]) -> dict[str, Any]:
    design = PRESETS.get(name)
    words = "the model without a stored voice" if name == DEFAULT_VOICE else design.description if design else ""
    return {
        "name": name,
        # Home Assistant shows this instead of the name.
        "description": f"{name}: {words}" if words else name,
        "attribution": _MODEL if name == DEFAULT_VOICE else _NAMES if design else _STORED,
        "installed": True,
        "version": None,
        "languages": spoken,
        "speakers": None,
    }


def _version() -> str | None:
    try:
        return importlib.metadata.version("voxmill")
    except importlib.metadata.PackageNotFoundError:
        return None
