"""The engine process: take messages from the pipe, run the engine's steps, send the audio back.

It is started by EngineLink with the number of its end of a socket pair. It ends when the other end closes, so that it never
outlives the HTTP process. A request that cannot be taken is refused by itself; an error of a step ends the process, because the
engine's state is then unknown, and the HTTP process starts a new one.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import queue
import signal
import socket
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from voxcpm.errors import first_line
from voxcpm.server.process.backend import Backend, Chunk, Options, build, read_digests, submit
from voxcpm.server.process.messages import (
    PREFIX,
    Accepted,
    Audio,
    Cancel,
    Clip,
    Encode,
    Encoded,
    Failed,
    Forget,
    FromEngine,
    Latents,
    Load,
    Ping,
    Played,
    Pong,
    Ready,
    Refused,
    Speak,
    ToEngine,
    VoicePrompt,
    body_length,
    packed,
    to_engine,
)

if TYPE_CHECKING:
    from torch import Tensor

    from voxcpm.inference.patch_codec import Side
    from voxcpm.inference.prompt_cache import PromptCache

log = logging.getLogger("voxcpm.server")

CLIPS = 64
"""Encoded clips that are kept by the digest of their samples."""
KEPT = 256
"""Calls whose words and patches are kept for a call that continues them."""
PAUSED_S = 0.02
"""Wait for a message, in seconds, when every row pauses because its client has enough audio."""


@dataclass
class _Running:
    """A call that the engine runs."""

    speak: Speak
    cache: PromptCache
    words: str  #: what is spoken
    keep: bool  #: a later call may still continue it
    patches: int = 0
    latents: list[Tensor] = field(default_factory=list)  #: [P, D] each, only with `speak.keep`


class Worker:
    """The state of the engine process."""

    def __init__(self, backend: Backend, adapters: dict[str, str], send: Callable[[FromEngine], None]) -> None:
        self.backend, self.model, self.engine = backend, backend.model, backend.new_engine()
        self._adapters, self._send = adapters, send
        self._adapter: str | None = None
        self._numbers: dict[int, int] = {}  # call -> the engine's number
        self._running: dict[int, _Running] = {}  # by the engine's number
        self._clips: OrderedDict[tuple[bytes, int, Side], Tensor] = OrderedDict()
        self._kept: OrderedDict[int, PromptCache] = OrderedDict()
        self._encodes: deque[Encode] = deque()
        self._load = Load(0, 0, 0)

    def run(self, messages: queue.SimpleQueue[ToEngine | None]) -> None:
        """Work until the pipe closes."""
        paused = False
        while True:
            wait = 0.0 if self._encodes else None if self.engine.idle else PAUSED_S if paused else 0.0
            while True:
                try:
                    message = messages.get(wait != 0.0, wait)
                except queue.Empty:
                    break
                if message is None:
                    return
                self.take(message)
                wait = 0.0
            paused = not self.advance()

    def advance(self) -> bool:
        """Make a step of the engine; return True if something is new."""
        # One clip at most: however many come, the rows that run have their step in between.
        if self._encodes:
            self._encode_call(self._encodes.popleft())
        chunks = self.engine.step() if not self.engine.idle else []
        for chunk in chunks:
            self._pass_on(chunk)
        self._report()
        return bool(chunks)

    def take(self, message: ToEngine) -> None:
        """Handle one message."""
        match message:
            case Speak():
                self._refusing(message.call, lambda: self._speak(message))
            case Encode():
                self._encodes.append(message)
            case Cancel():
                self._kept.pop(message.call, None)
                if (number := self._numbers.get(message.call)) is not None:
                    self.engine.cancel(number)
                self._encodes = deque(one for one in self._encodes if one.call != message.call)
            case Played():
                if (number := self._numbers.get(message.call)) is not None:
                    self.engine.played(number, message.seconds)
            case Ping():
                self._send(Pong())
            case Forget():
                self._kept.pop(message.call, None)
                if (number := self._numbers.get(message.call)) is not None:
                    self._running[number].keep = False

    def _refusing(self, call: int, act: Callable[[], None]) -> None:
        """Answer with Refused if a call fails before the engine has it: the fault of one call ends only that call."""
        from voxcpm.engine.scheduler import EngineBusyError

        try:
            act()
        except EngineBusyError as error:
            self._send(Refused(call, "busy", first_line(error), error.retry_after_s))
        except _OtherAdapterError as error:
            self._send(Refused(call, "busy", str(error), 2.0))
        except _LostError as error:
            self._send(Refused(call, "lost", str(error)))
        except ValueError as error:
            self._send(Refused(call, "invalid", first_line(error)))
        except Exception:
            log.exception("call %d could not be started", call)
            self._send(Refused(call, "internal", "internal error"))

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _speak(self, speak: Speak) -> None:
        from voxcpm.inference.normalize_text import normalise_text
        from voxcpm.sequence.text_pieces import split_description

        self._switch(speak.adapter)
        cache = self._prompt(speak)
        # A description is not spoken: it is neither normalized, nor among the words that a later call continues.
        description, words = split_description(speak.text)
        words = normalise_text(words) if speak.normalize else words
        layout = self.model.layout(description + words, cache or None)
        number = submit(self.engine, layout, speak, self.model.device.type)
        self._numbers[speak.call] = number
        self._running[number] = _Running(speak, cache, words, speak.keep)
        self._send(Accepted(speak.call, int(layout.text_mask.sum()), len(layout.patches)))

    def _switch(self, adapter: str | None) -> None:
        """Put the model into the form with an adapter (None: without). One is active at a time, for all rows."""
        if adapter == self._adapter:
            return
        if not self.engine.idle:
            now = f"adapter {self._adapter!r}" if self._adapter else "the model without an adapter"
            raise _OtherAdapterError(f"the engine is at work with {now}: ask again when it is idle")
        try:
            self._put(adapter)
        finally:
            # The keys and values of voices that the engine keeps belong to the weights before, which are gone also if the
            # adapter could not be loaded. Its memory is free first.
            del self.engine
            self.engine = self.backend.new_engine()

    def _put(self, adapter: str | None) -> None:
        """Put an adapter into the model in place of the present one. Raises RuntimeError if it cannot be loaded."""
        from voxcpm.weights.lora import load_lora, remove_lora

        self._adapter = None
        remove_lora(self.model.backbone)
        if adapter is None:
            return
        try:
            load_lora(self.model.backbone, self._adapters[adapter])
        except (OSError, ValueError, RuntimeError) as error:
            # Its message has a path, which is not for clients.
            remove_lora(self.model.backbone)
            raise RuntimeError(f"--lora {adapter}: {first_line(error)}") from error
        self._adapter = adapter

    def check_adapters(self) -> None:
        """Load each adapter once. Raises RuntimeError for one that does not fit the model."""
        for adapter in self._adapters:
            self._put(adapter)
        self._put(None)

    def _prompt(self, speak: Speak) -> PromptCache:
        """Return the voice of a call: its own, or that of the call it continues. Raises _LostError if that one is gone."""
        from voxcpm.inference.prompt_cache import PromptCache, make_prompt_cache

        if speak.after is not None:
            if (kept := self._kept.get(speak.after)) is None:
                raise _LostError("the utterance that this one continues is not kept any more: send it as a new one")
            self._kept.move_to_end(speak.after)
            return kept
        voice = speak.voice or VoicePrompt()
        if voice.reference is None and voice.prompt is None:
            return PromptCache()
        prompt = self._latents(voice.prompt, "left") if voice.prompt is not None else None
        reference = self._latents(voice.reference, "right") if voice.reference is not None else None
        return make_prompt_cache(voice.prompt_text, prompt, reference)

    def _latents(self, source: Latents | Clip, side: Side) -> Tensor:
        """Return latents [n, P, D] float32. Raises ValueError if they, or a clip, cannot be used."""
        import numpy as np
        import torch

        if isinstance(source, Latents):
            values = np.frombuffer(source.data, "<f4").reshape(source.shape).copy()
            found = torch.from_numpy(values)
            if not torch.isfinite(found).all():
                raise ValueError("the voice holds numbers that are not finite: make it again")
            return found
        key = hashlib.sha256(source.data).digest(), source.rate, side
        if key not in self._clips:
            self._clips[key] = self._encode(source, side)
            while len(self._clips) > CLIPS:
                self._clips.popitem(last=False)
        self._clips.move_to_end(key)
        return self._clips[key]

    def _encode(self, clip: Clip, side: Side) -> Tensor:
        import numpy as np
        import soxr
        import torch

        from voxcpm.inference.patch_codec import encode_clip

        samples = np.frombuffer(clip.data, "<f4")
        if len(samples) < clip.rate // 10 or not np.isfinite(samples).all():
            raise ValueError(
                "the clip is shorter than 0.1 s or holds numbers that are not finite: send another recording"
            )
        rate = self.model.config.sample_rate
        wav = samples.copy() if clip.rate == rate else soxr.resample(samples, clip.rate, rate)
        return encode_clip(self.model.audio_vae, self.model.config, torch.from_numpy(wav), side)

    def _encode_call(self, message: Encode) -> None:
        self._refusing(message.call, lambda: self._send_encoded(message))

    def _send_encoded(self, message: Encode) -> None:
        found = self._latents(message.clip, message.side)
        n, p, d = found.shape
        self._send(Encoded(message.call, Latents((n, p, d), found.numpy().astype("<f4").tobytes())))

    # -- audio ---------------------------------------------------------------------------------------------------------

    def _pass_on(self, chunk: Chunk) -> None:
        running = self._running.get(chunk.number)
        if running is None:
            return
        call = running.speak.call
        data = b"" if chunk.samples is None else chunk.samples.astype("<f4").tobytes()
        running.patches += chunk.samples is not None
        if running.keep and chunk.latents is not None and chunk.ending != "failed":
            running.latents.append(chunk.latents)
        if chunk.ending is not None:
            del self._running[chunk.number], self._numbers[call]
            # Nobody continues a call that was cancelled or has failed: what it kept would push out a live session's.
            if running.keep and chunk.ending not in ("cancelled", "failed"):
                self._keep(running, chunk.ending == "stop")
        error = None if chunk.error is None else "the model could not generate this utterance: try another seed"
        if chunk.error is not None:
            log.error("call %d failed: %s", call, chunk.error)
        self._send(Audio(call, chunk.index, data, running.patches, chunk.ending, error))

    def _keep(self, running: _Running, whole: bool) -> None:
        """Keep a call's words and patches. One that was cut off is a bad prompt, so that only the voice is kept."""
        self._kept[running.speak.call] = self._continued(running, whole) if running.latents else running.cache
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def _continued(self, running: _Running, whole: bool) -> PromptCache:
        """Return the voice of a call that continues this one, as `voxcpm.inference.long_text` makes it."""
        import torch

        from voxcpm.inference.prompt_cache import make_prompt_cache

        patches = torch.stack(running.latents)
        if not self.model.config.takes_references:
            return make_prompt_cache(running.words, patches, None) if whole else running.cache
        reference = running.cache.get("ref_audio_feat")
        reference = patches if reference is None else reference
        return make_prompt_cache(running.words if whole else "", patches if whole else None, reference)

    def _report(self) -> None:
        found = self.engine.load()
        load = Load(int(found["slots"]), int(found["running"]), int(found["waiting"]))
        if load != self._load:
            self._load = load
            self._send(load)


class _OtherAdapterError(Exception):
    """The engine is at work with another adapter."""


class _LostError(Exception):
    """The call that another one continues is not kept."""


# -- the process -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the process: `sys.argv[-1]` is the file descriptor of the pipe."""
    # Ctrl-C and SIGTERM are for the HTTP process; this one ends with the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(format="voxcpm: %(message)s", level=logging.INFO, stream=sys.stderr)
    pipe = socket.socket(fileno=int(sys.argv[-1]))
    stream = pipe.makefile("rb")
    options = msgspec.json.decode(_read(stream), type=Options)

    def send(message: FromEngine) -> None:
        pipe.sendall(packed(message))

    try:
        try:
            digests = read_digests(options)
            worker = Worker(build(options), options.adapters, send)
            worker.check_adapters()
            send(_about(worker, digests.result()))
        except ConnectionError:
            return
        except Exception as error:
            log.debug("the model could not be loaded", exc_info=True)
            send(Failed(first_line(error)))
            return
        messages: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(stream, messages), daemon=True).start()
        # What was loaded stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        worker.run(messages)
    except (BrokenPipeError, ConnectionResetError):
        # The HTTP process is gone.
        return


def _about(worker: Worker, digests: dict[str | None, str]) -> Ready:
    model = worker.model
    config = model.config
    return Ready(
        sample_rate=model.sample_rate,
        encode_rate=config.sample_rate,
        patch_seconds=config.out_patch_samples / model.sample_rate,
        max_positions=config.max_length,
        slots=int(worker.engine.load()["slots"]),
        digest=digests.get(None, ""),
        adapter_digests={name: digest for name, digest in digests.items() if name is not None},
        architecture=config.architecture,
        takes_references=config.takes_references,
        device=str(model.device),
        dtype=str(model.backbone.dtype).removeprefix("torch."),
    )


def _read(stream: Any) -> bytes:
    """Read one message. Raises EOFError if the pipe is closed."""
    prefix = stream.read(PREFIX)
    if len(prefix) < PREFIX:
        raise EOFError
    body: bytes = stream.read(body_length(prefix))
    return body


def _receive(stream: Any, messages: queue.SimpleQueue[ToEngine | None]) -> None:
    """Put messages into the queue; None when the pipe closes."""
    try:
        while True:
            messages.put(to_engine.decode(_read(stream)))
    except (EOFError, OSError, ValueError):
        messages.put(None)


if __name__ == "__main__":
    main()
