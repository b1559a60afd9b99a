"""A worker of the protocol of evaluation/systems/process.py that misbehaves as the text asks: `say`, `crash`, `hang` and so on.

python speech_worker.py [--starts FILE] [--dies]     FILE: a line is added at every start
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

RATE = 16_000


def tone(seed: int, seconds: float) -> list[int]:
    """Return samples that follow from the seed."""
    return [int(8000 * math.sin(2 * math.pi * (200 + 10 * seed) * n / RATE)) for n in range(int(seconds * RATE))]


def write(path: str, samples: list[int]) -> None:
    """Write a WAV file."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def reply(**fields: Any) -> None:
    """Answer one line."""
    print("VOXMILL " + json.dumps(fields), flush=True)


def speak(ask: dict[str, Any]) -> None:
    """Do what the text says."""
    word, name = ask["text"].split()[0], ask["id"]
    if word == "crash":
        print("traceback line\nout of memory", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "exit":
        sys.exit(3)
    elif word == "hang":
        # A child that would outlive its parent.
        subprocess.Popen(["sleep", "600"])
        signal.pause()
    elif word == "error":
        reply(id=name, error="the text\nis too strange")
    elif word == "nothing":
        reply(id=name)
    elif word == "empty":
        write(ask["out"], [])
        reply(id=name)
    elif word == "silent":
        write(ask["out"], [0] * RATE)
        reply(id=name)
    elif word == "broken":
        Path(ask["out"]).write_bytes(b"RIFFnonsense")
        reply(id=name)
    elif word == "runaway":
        write(ask["out"], tone(ask["seed"], 2.0))
        reply(id=name, attempts=3, reached_limit=True)
    elif word == "noisy":
        print("loading 100%|####| 7/7 \r", end="")
        print('{"id": 1, "error": "not an answer"}\nVOXMILL {broken\nVOXMILL [1]')
        reply(id=name + 1, error="an answer to another text")
        write(ask["out"], tone(ask["seed"], 0.2))
        print("tail without end ", end="")
        reply(id=name, wall_s="soon", attempts=None, notes="odd")
    elif word == "deaf":
        os.close(0)
        os.close(1)
        signal.pause()
    else:
        write(ask["out"], tone(ask["seed"], 0.5))
        reply(id=name, wall_s=0.25, first_audio_s=0.1, attempts=2, notes={"given": ask})


def main() -> None:
    """Answer until standard input ends."""
    if "--starts" in sys.argv:
        with Path(sys.argv[sys.argv.index("--starts") + 1]).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if "--dies" in sys.argv:
        sys.exit("no weights at /nowhere")
    if "--never" in sys.argv:
        signal.pause()
    reply(name="fake tts", version="9", settings={"voice": "tone"})
    for line in sys.stdin:
        speak(json.loads(line))


if __name__ == "__main__":
    main()
