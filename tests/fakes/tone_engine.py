"""An engine process without a model: it speaks tones through the server's messages. A text plans what happens.

    "kill"     the process is killed after two chunks
    "hang"     the process lives, but does nothing any more after two chunks
    "fault"    the utterance fails after two chunks
    "refuse"   the utterance does not fit
    "busy N"   the first N calls with this text are refused as the queue is full
    "hold"     no audio comes until the call is cancelled
    "seconds N"  audio of N seconds, otherwise 0.8
    "clip PATH"  the audio of a file at 48 kHz
A checkpoint named "broken" cannot be loaded, the process of the checkpoint "mortal" ends at once, that of "endless" loads for ever.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import soundfile

from voxcpm.server.process.messages import (
    PREFIX,
    Accepted,
    Audio,
    Cancel,
    Encode,
    Encoded,
    Failed,
    FromEngine,
    Latents,
    Load,
    Ping,
    Played,
    Pong,
    Ready,
    Refused,
    Speak,
    body_length,
    packed,
    to_engine,
)

RATE = 48_000
PATCH = 7_680
AHEAD_S = 30.0


@dataclass
class Row:
    """A call that runs."""

    speak: Speak
    patches: int
    made: int = 0
    played_s: float = 0.0
    clip: np.ndarray | None = None


def tone(seed: int, index: int) -> np.ndarray:
    """Return the patch [7680] float32 of a seed's utterance."""
    at = (np.arange(PATCH) + index * PATCH) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + seed % 400) * at)).astype("<f4")


class ToneEngine:
    """Answers messages."""

    def __init__(self, pipe: socket.socket) -> None:
        self.pipe = pipe
        self.rows: dict[int, Row] = {}
        self.asked: Counter[str] = Counter()

    def read(self) -> bytes:
        # Not buffered, so that `select` sees every message.
        prefix = self.pipe.recv(PREFIX, socket.MSG_WAITALL)
        if len(prefix) < PREFIX:
            raise SystemExit(0)
        return self.pipe.recv(body_length(prefix), socket.MSG_WAITALL)

    def send(self, message: FromEngine) -> None:
        self.pipe.sendall(packed(message))

    def run(self, slots: int) -> None:
        self.send(
            Ready(sample_rate=RATE, encode_rate=16_000, patch_seconds=0.16, max_positions=4096, slots=slots, digest="ab" * 8,
                  architecture="voxcpm2", device="cpu", dtype="float32")
        )  # fmt: skip
        load = None
        while True:
            now = Load(slots, len(self.rows), 0)
            if now != load:
                load = now
                self.send(now)
            if not any(self._moves(row) for row in self.rows.values()) or self._has_message():
                self.take(to_engine.decode(self.read()))
                continue
            for call, row in list(self.rows.items()):
                if self._moves(row):
                    self._advance(call, row)

    def _moves(self, row: Row) -> bool:
        return row.speak.text != "hold" and row.made * 0.16 - row.played_s < AHEAD_S

    def _has_message(self) -> bool:
        return bool(select.select([self.pipe], [], [], 0)[0])

    def take(self, message: Any) -> None:
        match message:
            case Speak():
                self._speak(message)
            case Cancel():
                if self.rows.pop(message.call, None) is not None:
                    self.send(Audio(message.call, 0, b"", 0, "cancelled"))
            case Played():
                if message.call in self.rows:
                    self.rows[message.call].played_s = message.seconds
            case Ping():
                self.send(Pong())
            case Encode():
                self.send(Encoded(message.call, Latents((2, 4, 64), bytes(2 * 4 * 64 * 4))))

    def _speak(self, speak: Speak) -> None:
        self.asked[speak.text] += 1
        if speak.text == "refuse":
            self.send(Refused(speak.call, "invalid", "the text takes 5000 of the model's 4096 positions"))
            return
        busy = re.fullmatch(r"busy (\d+)", speak.text)
        if busy and self.asked[speak.text] <= int(busy[1]):
            self.send(Refused(speak.call, "busy", "the queue is full", 0.2))
            return
        if speak.text.startswith("clip "):
            clip = soundfile.read(speak.text.removeprefix("clip "), dtype="float32")[0]
            self.rows[speak.call] = Row(speak, len(clip) // PATCH, clip=clip)
            self.send(Accepted(speak.call, 1, 0))
            return
        seconds = re.search(r"seconds (\d+)", speak.text)
        self.rows[speak.call] = Row(speak, min(speak.max_len, round(float(seconds[1]) / 0.16) if seconds else 5))
        self.send(Accepted(speak.call, len(speak.text.split()), 2 if speak.voice else 0))

    def _advance(self, call: int, row: Row) -> None:
        if row.made == 2 and row.speak.text == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if row.made == 2 and row.speak.text == "hang":
            signal.pause()
        if row.made == 2 and row.speak.text == "fault":
            del self.rows[call]
            self.send(Audio(call, row.made, b"", row.made, "failed", "the model could not generate this utterance"))
            return
        patch = tone(row.speak.seed, row.made) if row.clip is None else row.clip[row.made * PATCH :][:PATCH]
        data = patch.tobytes()
        row.made += 1
        over = row.made == row.patches
        if over:
            del self.rows[call]
        self.send(Audio(call, row.made - 1, data, row.made, "stop" if over else None))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    engine = ToneEngine(socket.socket(fileno=int(sys.argv[-1])))
    options = msgspec.json.decode(engine.read())
    if options["checkpoint"] == "mortal":
        sys.exit(1)
    if options["checkpoint"] == "endless":
        signal.pause()
    if options["checkpoint"] == "broken":
        engine.send(Failed("no checkpoint folder at broken"))
        sys.exit(0)
    engine.run(options["slots"] or 2)
