"""The interface of an annotator that is asked over a network: a wire format. Money, limits and retries are the runner's."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from annotators.schema import VoiceDescription

MOST_TOKENS = 10_000_000
"""No request has more tokens: a service that states more states nothing, and the worst case is counted."""


@dataclass(frozen=True)
class Ask:
    """One clip that a provider is asked to describe. Nothing of its words, its file or its speaker's name is in here."""

    key: str
    """Identity of the question: sha256 of the clip's PCM at 16 kHz mono, the provider, the model, the prompt, the schema, the
    generation settings and the number of the vote."""
    segment_id: str
    speaker: str | None
    """Group of clips of one voice; not sent."""
    language: str | None
    """Spoken language, to put an accent into words."""
    seconds: float
    audio: bytes
    """FLAC, 16 kHz mono."""


@dataclass(frozen=True)
class Request:
    """Several clips asked about at once. `id` is the sha256 of the keys in order."""

    id: str
    asks: tuple[Ask, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(ask.key for ask in self.asks)


@dataclass(frozen=True)
class Tokens:
    """Tokens of a request: an upper bound before it is sent, or the usage that the reply states."""

    text_in: int = 0
    audio_in: int = 0
    cached_in: int = 0
    """Part of text_in and audio_in that is billed at the cached price."""
    out: int = 0
    """With thoughts."""

    @property
    def possible(self) -> bool:
        """Whether a request can have these numbers of tokens."""
        return all(0 <= count <= MOST_TOKENS for count in (self.text_in, self.audio_in, self.cached_in, self.out))


@dataclass(frozen=True)
class Reply:
    """What a service answered with status 200, before it is parsed."""

    text: str | None
    """Text of the answer, without thoughts; None if there is none."""
    finish: str
    """Why it ended, in the service's own word; "" if it did not say."""
    blocked: str | None
    """Reason of a block by the service's filters."""
    model_version: str | None
    """Model that answered, as the service names it."""
    usage: Tokens | None
    raw: str
    """Body as received. It is stored before anything is parsed."""


class RemoteError(Exception):
    """A request failed. The message is one line without secrets. No exception of a client library leaves a provider."""


class TransientError(RemoteError):
    """It may work later. sent: whether the service may have received and billed the request ("unknown"), or surely has not.
    status: HTTP status, or None without a reply."""

    def __init__(
        self, message: str, *, sent: bool, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.sent, self.retry_after, self.status = sent, retry_after, status


class RefusedError(RemoteError):
    """The service refused this request (status 400): its clips may be asked about singly. It is not billed."""


class QuotaError(RemoteError):
    """A quota that does not come back within minutes is used up: stop the pass."""


class FatalError(RemoteError):
    """No request can succeed (bad key, unknown model, no permission): stop the pass. status: HTTP status, if a reply said so."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class JobFailedError(RemoteError):
    """A batch job ended and will never have results: its requests may have been billed, and are asked about again."""


class RemoteProvider(abc.ABC):
    """Describe clips by a service. It has no ledger, no limits and no retries: the runner has them."""

    name: ClassVar[str]
    kind: ClassVar[str] = ""
    """Service; default: the name. Providers of one kind ask the same questions and share a ledger."""
    default_model: ClassVar[str] = ""
    """Model of a pass whose name does not say it."""
    model: str
    """Model that is asked for."""
    prompt_version: str
    identity: str
    """Hash of all that decides an answer beside the clip: the kind of provider, model, prompt, schema, generation settings."""
    free: bool = False
    """Whether no request costs money (a server of one's own): no cap is needed."""

    def check(self) -> None:  # noqa: B027 - many need nothing
        """Raise FatalError if it cannot work here, e.g. without its key. Nothing is sent."""

    @abc.abstractmethod
    def group(self, asks: Sequence[Ask]) -> list[Request]:
        """Return requests that ask about each clip once, clips of one speaker together, within the limits of a request."""

    @abc.abstractmethod
    def bound(self, request: Request) -> Tokens:
        """Return an upper bound of the tokens that a request can be billed for."""

    @abc.abstractmethod
    async def send(self, request: Request) -> Reply:
        """Send one request, once. Raises TransientError, RefusedError, QuotaError or FatalError, and nothing else."""

    @abc.abstractmethod
    def parse(self, raw: str, keys: Sequence[str]) -> Mapping[str, VoiceDescription | str]:
        """Return the description or the reason of its failure by key. Pure: it runs again on stored replies (`Reply.raw`).
        Reasons: "blocked:REASON", "max_tokens", "mismatch" (labels or the canary do not fit), "invalid: ...", "empty"."""

    @abc.abstractmethod
    def answered_by_another(self, model_version: str | None) -> bool:
        """Return True if the answering model is not of the family that was asked for."""

    def warnings(self) -> list[str]:
        """Return what the user should know before anything is sent, a line each."""
        return []

    async def close(self) -> None:  # noqa: B027 - many have nothing to close
        """Close connections."""


class BatchProvider(RemoteProvider):
    """A service that takes files of requests and answers within a day, at a lower price."""

    @abc.abstractmethod
    async def find_job(self, display_name: str) -> str | None:
        """Return the name of the job with this display name, or None: creation is not idempotent."""

    @abc.abstractmethod
    async def create_job(self, display_name: str, requests: Sequence[Request]) -> str:
        """Upload the requests and create the job; return its name. Raises TransientError if the job may exist nevertheless."""

    @abc.abstractmethod
    async def collect(self, job: str) -> Mapping[str, Reply | str] | None:
        """Return the reply or the error of each request by id, or None while the job runs. An error is not billed; a request that
        may have been billed and has no reply is absent. Raises JobFailedError if the job ended without results."""
