"""Messages between the HTTP process and the engine process: length-prefixed msgpack, checked by msgspec against these types."""

from __future__ import annotations

from typing import Literal

import msgspec

MAX_MESSAGE = 256 * 2**20
"""Bytes of the longest message. A longer length prefix means that the other side is not ours."""
PREFIX = 4
"""Bytes of the length before each message, big-endian."""

Ending = Literal["stop", "max_len", "context", "cancelled", "failed"]
Kind = Literal["live", "whole"]


class Latents(msgspec.Struct, tag="latents", frozen=True):
    """Encoded speech: [n, P, D] float32, little-endian."""

    shape: tuple[int, int, int]
    data: bytes
    clip_sha256: str | None = None  #: of the file that was encoded, if it is known


class Clip(msgspec.Struct, tag="clip", frozen=True):
    """Decoded audio to encode: mono float32, little-endian, at `rate` Hz."""

    rate: int
    data: bytes


class VoicePrompt(msgspec.Struct, frozen=True):
    """A voice for one call: a reference whose voice is used, a prompt that the speech continues, or both."""

    reference: Latents | Clip | None = None
    prompt: Latents | Clip | None = None
    prompt_text: str = ""  #: the words of the prompt


# -- to the engine process ---------------------------------------------------------------------------------------------


class Speak(msgspec.Struct, tag="speak", kw_only=True, frozen=True):
    """Speak one utterance. The answer is Accepted and then Audio until its `ending`, or Refused."""

    call: int
    text: str
    seed: int
    voice: VoicePrompt | None = None
    cfg: float = 2.0
    steps: int = 10
    min_len: int = 2
    max_len: int = 750
    ratio: float | None = 6.0
    kind: Kind = "live"
    deadline_s: float | None = None  #: infinite: taken however long it waits
    adapter: str | None = None
    normalize: bool = False
    after: int | None = None  #: continue this earlier call (its words and patches), which was sent with `keep`
    keep: bool = False  #: keep words and patches for a later call until Forget


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Stop a call and free its slot. The answer is Audio with the ending "cancelled", if the call still ran."""

    call: int


class Played(msgspec.Struct, tag="played", frozen=True):
    """The client has taken this number of seconds of the call's audio."""

    call: int
    seconds: float


class Forget(msgspec.Struct, tag="forget", frozen=True):
    """Drop what `keep` kept of a call."""

    call: int


class Encode(msgspec.Struct, tag="encode", frozen=True):
    """Encode a clip to latents. The answer is Encoded or Refused."""

    call: int
    clip: Clip
    side: Literal["left", "right"] = "right"  #: where it is padded to whole patches: references right, prompts left


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Asks whether the engine still works: the answer is Pong, at the latest after the step that runs."""


ToEngine = Speak | Cancel | Played | Forget | Encode | Ping


# -- from the engine process -------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, tag="ready", kw_only=True, frozen=True):
    """The model is loaded: facts about it."""

    sample_rate: int  #: Hz of the audio it makes
    encode_rate: int  #: Hz at which it encodes clips
    patch_seconds: float
    max_positions: int
    slots: int
    digest: str  #: of the checkpoint's files (`checkpoint_digest`), empty if it could not be read
    adapter_digests: dict[str, str] = {}  #: of the checkpoint with each adapter
    architecture: str
    takes_references: bool = True  #: a clip can set the voice without being continued
    device: str
    dtype: str

    def digest_with(self, adapter: str | None) -> str | None:
        """Return the digest of the checkpoint with an adapter (None: without); None if it is not known."""
        return (self.digest if adapter is None else self.adapter_digests.get(adapter)) or None


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The process cannot work, e.g. the checkpoint cannot be loaded; it exits after this message."""

    message: str


class Accepted(msgspec.Struct, tag="accepted", frozen=True):
    """The engine has taken the call. Numbers of text tokens and of reference and prompt patches."""

    call: int
    text_tokens: int
    audio_tokens: int


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The engine does not take the call. lost: the call that it continues is not kept any more."""

    call: int
    reason: Literal["invalid", "busy", "lost", "internal"]
    message: str
    retry_after_s: float = 1.0


class Audio(msgspec.Struct, tag="audio", frozen=True):
    """The next audio of a call: float32, little-endian, empty if only the ending is new."""

    call: int
    index: int
    samples: bytes
    patches: int  #: number of patches generated so far
    ending: Ending | None = None
    error: str | None = None


class Encoded(msgspec.Struct, tag="encoded", frozen=True):
    """The latents of a clip."""

    call: int
    latents: Latents


class Load(msgspec.Struct, tag="load", frozen=True):
    """How full the engine is; sent when it changes."""

    slots: int
    running: int
    waiting: int


class Pong(msgspec.Struct, tag="pong", frozen=True):
    """The answer to Ping."""


FromEngine = Ready | Failed | Accepted | Refused | Audio | Encoded | Load | Pong

_encoder = msgspec.msgpack.Encoder()
to_engine = msgspec.msgpack.Decoder(ToEngine)
from_engine = msgspec.msgpack.Decoder(FromEngine)


def packed(message: ToEngine | FromEngine) -> bytes:
    """Return a message with its length in front. Raises ValueError if it is longer than MAX_MESSAGE."""
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(body)} bytes is longer than {MAX_MESSAGE}")
    return len(body).to_bytes(PREFIX, "big") + body


def body_length(prefix: bytes) -> int:
    """Return the length of the message after a prefix. Raises ValueError if it is longer than MAX_MESSAGE."""
    length = int.from_bytes(prefix, "big")
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes is longer than {MAX_MESSAGE}")
    return length
