"""What all routes share: settings, the engine process, keys, metrics, voices, and records of recent requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from voxcpm.server.process.messages import Clip, VoicePrompt
from voxcpm.server.settings import ALIASES, ServerSettings

if TYPE_CHECKING:
    from voxcpm.server.access.keys import Keys
    from voxcpm.server.calls import Speech
    from voxcpm.server.metrics import Metrics
    from voxcpm.server.process.link import EngineLink

RECORDS = 1024
"""Requests whose end is remembered."""


class VoiceStore(Protocol):
    """Stored voices."""

    def names(self) -> Iterable[str]:
        """Return the names that a request may use."""
        ...

    def resolve(self, name: str) -> VoicePrompt:
        """Return a voice. Raises UnknownVoice (voxcpm.server.errors)."""
        ...


class ReferenceReader(Protocol):
    """Clips that come with a request."""

    async def read(self, source: str, param: str) -> Clip:
        """Return the audio of a data: or https: URL. Raises ApiError; `param` is the field that is at fault."""
        ...


@dataclass
class ServerState:
    """One server's state; lives in the event loop of the HTTP process."""

    settings: ServerSettings
    link: EngineLink
    keys: Keys
    metrics: Metrics
    voices: VoiceStore | None = None
    references: ReferenceReader | None = None
    encoders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "encode"))
    draining: bool = False
    running: set[Speech] = field(default_factory=set)
    records: OrderedDict[tuple[str, str], Speech] = field(default_factory=OrderedDict)
    """Recent calls by (name of the key, request id), oldest first."""

    @property
    def models(self) -> dict[str, str | None]:
        """Names that a request's `model` may have -> the adapter that each stands for."""
        own: dict[str, str | None] = dict.fromkeys((self.settings.model_name, *ALIASES))
        return own | {name: name for name in self.settings.adapters}

    def remember(self, owner: str, request_id: str, speech: Speech) -> None:
        """Keep a call's record; the oldest is dropped."""
        self.records[owner, request_id] = speech
        self.records.move_to_end((owner, request_id))
        while len(self.records) > RECORDS:
            self.records.popitem(last=False)
