"""Passages of known words, spoken by Piper: what the watermark's benchmark asks a recognizer about.

    /tmp/piper/bin/python benchmarks/workers/piper_passages.py OUT --list LIST.lst

LIST is a cross-sentence list, as in ../shared/evaluation. It needs the environment of `piper_joe.py`. A passage is as many
sentences as fit into a window of Whisper, so that a pass over it counts some 75 words. `passages.jsonl` is written at the end.
"""

from __future__ import annotations

import argparse
import json
import wave
from collections.abc import Iterator
from pathlib import Path

from piper_joe import Joe

LONGEST_S = 26.0
GAP_S = 0.5


def sentences(path: Path) -> list[str]:
    """Return each text of a cross-sentence list once, in order: the prompts' and the targets'."""
    found: dict[str, None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        found[fields[2]] = found[fields[5]] = None
    return list(found)


def passages(joe: Joe, texts: list[str]) -> Iterator[tuple[str, bytes, int]]:
    """Yield (words, 16-bit audio, rate) of as many sentences in turn as fit into `LONGEST_S`."""
    said: list[str] = []
    audio, rate = b"", 0
    for text in texts:
        chunks, _ = joe.said(joe.voice, text)
        rate = chunks[0].sample_rate
        more = b"".join(chunk.audio_int16_bytes for chunk in chunks)
        if said and len(audio) + len(more) > 2 * rate * LONGEST_S:
            yield " ".join(said), audio, rate
            said, audio = [], b""
        said.append(text)
        audio += more + bytes(2 * round(GAP_S * rate))
    if said:
        yield " ".join(said), audio, rate


def main() -> None:
    """Speak what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the WAV files and passages.jsonl")
    parser.add_argument("--list", type=Path, required=True, help="a cross-sentence list")
    parser.add_argument("--sentences", type=int, default=1200, help="how many to speak (1200)")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (text, audio, rate) in enumerate(passages(Joe(seeded=False), sentences(asked.list)[: asked.sentences])):
        path = asked.out / f"{number:04}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(audio)
        lines.append(json.dumps({"path": path.name, "text": text, "language": "en"}) + "\n")
        print(path, flush=True)
    (asked.out / "passages.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
