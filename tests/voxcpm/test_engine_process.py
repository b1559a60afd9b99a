"""The worker of the engine process, without the process: adapters, what is kept for continuations, clips between steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="the extra serve is not installed")

from first_models import FOLDER, FirstModel

from voxcpm.server.process.backend import Options, build
from voxcpm.server.process.messages import (
    Accepted,
    Audio,
    Cancel,
    Clip,
    Encode,
    Encoded,
    Forget,
    FromEngine,
    Latents,
    Refused,
    Speak,
    VoicePrompt,
)
from voxcpm.server.process.worker import Worker, _about

TEXT = "Hello there."
PATCHES = 4
FRAMES = Clip(16_000, (0.3 * np.sin(np.arange(4_800) / 20)).astype("<f4").tobytes())


class Desk:
    """A worker and what it has sent."""

    def __init__(self, checkpoint: Path, **adapters: Path) -> None:
        backend = build(Options(str(checkpoint), device="cpu", slots=2))
        self.sent: list[FromEngine] = []
        self.worker = Worker(backend, {name: str(path) for name, path in adapters.items()}, self.sent.append)

    def always_stop(self) -> None:
        """Let the model say of every utterance that its end is the text's."""
        step = self.worker.engine.step

        def ended() -> list[Any]:
            return [replace(chunk, ending=chunk.ending and "stop") for chunk in cast("list[Any]", step())]

        self.worker.engine.step = ended  # type: ignore[method-assign]

    def begin(self, call: int, text: str = TEXT, **fields: object) -> FromEngine:
        """Send a call; return its first answer."""
        before = len(self.sent)
        asked = {"seed": 3, "max_len": PATCHES, "deadline_s": 600.0} | fields
        self.worker.take(Speak(call=call, text=text, **asked))  # type: ignore[arg-type]
        return self.sent[before]

    def finish(self) -> None:
        while not self.worker.engine.idle:
            self.worker.advance()

    def speak(self, call: int, **fields: object) -> np.ndarray:
        assert isinstance(self.begin(call, **fields), Accepted)  # type: ignore[arg-type]
        self.finish()
        return np.frombuffer(b"".join(m.samples for m in self.sent if isinstance(m, Audio) and m.call == call), "<f4")


@pytest.fixture(scope="module")
def desk(golden: Path) -> Desk:
    return Desk(golden / "checkpoint", anna=golden / "lora", gone=golden / "no-such-folder")


def test_a_failed_adapter_leaves_nothing_of_the_one_before(desk: Desk) -> None:
    config = desk.worker.model.config
    noise = np.random.default_rng(0).normal(size=(6, config.patch_size, config.feat_dim)).astype("<f4")
    voice = VoicePrompt(reference=Latents((6, config.patch_size, config.feat_dim), noise.tobytes()))
    plain = desk.speak(1, voice=voice)
    adapted = desk.speak(2, voice=voice, adapter="anna")
    assert np.abs(plain - adapted).max() > 1e-3
    refused = desk.begin(3, voice=voice, adapter="gone")
    assert isinstance(refused, Refused) and refused.reason == "internal"
    assert np.array_equal(desk.speak(4, voice=voice), plain)


Order = Callable[[Desk, int], object]


@pytest.mark.parametrize(
    "end",
    [
        lambda desk, call: (desk.worker.take(Cancel(call)), desk.worker.take(Forget(call))),
        lambda desk, call: (desk.worker.take(Forget(call)), desk.worker.take(Cancel(call))),
        lambda desk, call: desk.worker.take(Cancel(call)),
        lambda desk, call: desk.worker.take(Forget(call)),
    ],
    ids=["cancel-forget", "forget-cancel", "cancel", "forget"],
)
def test_nothing_is_kept_of_a_call_that_nobody_continues(desk: Desk, end: Order) -> None:
    desk.begin(10, keep=True)
    for _ in range(2):
        desk.worker.advance()
    end(desk, 10)
    desk.finish()
    answer = desk.begin(11, after=10)
    assert isinstance(answer, Refused) and answer.reason == "lost" and "new one" in answer.message


def test_a_lost_continuation_is_not_spoken_in_another_voice(desk: Desk) -> None:
    answer = desk.begin(20, after=999)
    assert isinstance(answer, Refused) and answer.reason == "lost" and desk.worker.engine.idle


def test_a_kept_call_is_continued(desk: Desk) -> None:
    desk.speak(30, keep=True)
    answer = desk.begin(31, after=30)
    assert isinstance(answer, Accepted) and answer.audio_tokens == PATCHES
    desk.finish()
    desk.worker.take(Forget(30))
    assert isinstance(desk.begin(32, after=30), Refused)


def test_clips_are_encoded_between_steps(desk: Desk) -> None:
    desk.begin(40)
    for call in (41, 42, 43, 44):
        desk.worker.take(Encode(call, FRAMES, "right"))
    desk.worker.take(Cancel(42))
    before = len(desk.sent)
    for _ in range(3):
        desk.worker.advance()
    found = [(type(m), m.call) for m in desk.sent[before:] if isinstance(m, Audio | Encoded)]
    assert found == [(Encoded, 41), (Audio, 40), (Encoded, 43), (Audio, 40), (Encoded, 44), (Audio, 40)]
    desk.finish()


def test_a_first_model_continues_the_piece_before_and_nothing_else(first: FirstModel) -> None:
    desk = Desk(first.checkpoint)
    about = _about(desk.worker, {})
    assert about.architecture == "voxcpm" and not about.takes_references
    # One that was cut off is not used as a prompt; its own voice stays.
    desk.speak(1, keep=True)
    answer = desk.begin(2, after=1, keep=True)
    assert isinstance(answer, Accepted) and answer.audio_tokens == 0
    desk.finish()
    desk.always_stop()
    desk.speak(3, keep=True)
    ended = [m for m in desk.sent if isinstance(m, Audio) and m.call == 3][-1]
    assert ended.ending == "stop"
    answer = desk.begin(4, after=3)
    assert isinstance(answer, Accepted) and answer.audio_tokens == ended.patches


def test_a_server_of_a_first_model() -> None:
    from speech_service import REAL, Service

    checkpoint = FOLDER / "voxcpm-0.5b" / "checkpoint"
    text = " ".join(f"This is sentence number {n}, and it takes a while." for n in range(6))
    asked: dict[str, Any] = {"response_format": "wav", "seed": 1, "max_new_tokens": PATCHES}
    with Service({"checkpoint": str(checkpoint), "worker": REAL, "slots": 2, "deadline": 600.0}) as service:
        assert service.speak(text, long=True, **asked).status == 200
        first = service.speak("Hello.", voice="alloy", **asked)
        assert first.status == 200, first.body
        assert first.headers["x-vllm-omni-input-audio-tokens"] != "0"
        assert service.speak("Hello.", voice="alloy", **asked).status == 200
