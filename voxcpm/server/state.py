"""What all routes share: settings, the engine process, keys, metrics, voices, and records of recent requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from voxcpm.server.process.messages import Latents, VoicePrompt
from voxcpm.server.settings import ALIASES, ServerSettings
from voxcpm.watermark.keys import Key

if TYPE_CHECKING:
    from voxcpm.provenance.c2pa.signer import Signing
    from voxcpm.server.access.keys import Keys
    from voxcpm.server.errors import ApiError
    from voxcpm.server.metrics import Metrics
    from voxcpm.server.process.link import EngineLink
    from voxcpm.server.process.result import SpeechResult

RECORDS = 1024
"""Requests whose end is remembered."""


class Recorded(Protocol):
    """A call that runs or has ended (see voxcpm.server.calls)."""

    @property
    def result(self) -> SpeechResult:
        """What became of it."""
        ...

    def cancel(self) -> None:
        """Cancel it from outside the task that iterates over it."""
        ...


class Running(Recorded, Protocol):
    """A call that runs."""

    def interrupt(self, error: ApiError) -> None:
        """End it with an error, at once."""
        ...


class VoiceStore(Protocol):
    """Stored voices."""

    def names(self) -> Iterable[str]:
        """Return the names that a request may use."""
        ...

    async def usable(self) -> list[str]:
        """Return those of `names` whose consent counts today, if one is required."""
        ...

    async def resolve(self, name: str) -> VoicePrompt:
        """Return a voice; one of OpenAI's is designed first. Raises ApiError, UnknownVoice among them."""
        ...


class ReferenceReader(Protocol):
    """Clips that come with a request."""

    async def read(
        self, source: str | bytes, param: str, side: Literal["left", "right"] = "right", consent: str | None = None
    ) -> Latents:
        """Return the latents of a data: or https: URL, or of the bytes of a clip.

        side: where it is padded; "left" for a prompt that is continued. consent: id of the consent for it. Raises ApiError;
        `param` is the field at fault.
        """
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
    watermark_keys: tuple[Key, ...] = ()  #: whose watermark is put into audio before it is encoded; none: no watermark
    signing: Signing | None = None  #: how whole answers are signed
    draining: bool = False
    answering: int = 0  #: requests whose answer is not complete; the end of the server waits for them
    running: set[Running] = field(default_factory=set)
    records: OrderedDict[tuple[str, str], Recorded] = field(default_factory=OrderedDict)
    """Recent calls by (name of the key, request id), oldest first."""
    waiting: dict[tuple[str, str], Recorded] = field(default_factory=dict)
    """Requests that the engine has not taken yet, by the same."""

    @property
    def models(self) -> dict[str, str | None]:
        """Names that a request's `model` may have -> the adapter that each stands for."""
        own: dict[str, str | None] = dict.fromkeys((self.settings.model_name, *ALIASES))
        return own | {name: name for name in self.settings.adapters}

    @property
    def busy(self) -> bool:
        """Return True if a request is being answered."""
        return bool(self.running) or self.answering > 0

    def remember(self, owner: str, request_id: str, speech: Recorded) -> None:
        """Keep a call's record; the oldest is dropped."""
        self.records[owner, request_id] = speech
        self.records.move_to_end((owner, request_id))
        while len(self.records) > RECORDS:
            self.records.popitem(last=False)
