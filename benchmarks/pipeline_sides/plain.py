"""A plain script: one process, one file after another, the libraries in order. `python plain.py OUT FILE...`.

It uses the models of profile small with the libraries' usual settings and default threads; one bad file would end it.
Prints a line of JSON: wall seconds and segments.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import pyloudnorm  # noqa: E402
import soundfile  # noqa: E402
from faster_whisper import WhisperModel, decode_audio  # noqa: E402
from silero_vad import get_speech_timestamps, load_silero_vad  # noqa: E402

from catalogs.weights.registry import resolve  # noqa: E402
from pipeline.quality.dnsmos import WINDOW, windows  # noqa: E402
from pipeline.voice.ge2e import Ge2e  # noqa: E402

RATE = 16_000
TARGET_S, GAP_S, PAD_S = 15.0, 0.6, 0.15


def merge(spans: list[dict[str, float]], duration: float) -> list[tuple[float, float]]:
    """Join neighboring spans of speech up to 15 s, with a little silence around them."""
    joined: list[list[float]] = []
    for span in spans:
        near = joined and span["start"] - joined[-1][1] <= GAP_S and span["end"] - joined[-1][0] <= TARGET_S
        if near:
            joined[-1][1] = span["end"]
        else:
            joined.append([span["start"], span["end"]])
    return [(max(0.0, a - PAD_S), min(duration, b + PAD_S)) for a, b in joined]


def main() -> None:
    """Process every file and write clips and a table."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    vad = load_silero_vad(onnx=True)
    whisper = WhisperModel(str(resolve("whisper-base")), device="cpu", compute_type="int8")
    dnsmos = onnxruntime.InferenceSession(str(next(resolve("dnsmos").rglob("sig_bak_ovr.onnx"))))
    speaker = Ge2e(resolve("ge2e"))
    rows: list[dict[str, object]] = []
    prints = []
    for path in sys.argv[2:]:
        audio = decode_audio(path, sampling_rate=RATE)
        spans = merge(get_speech_timestamps(audio, vad, return_seconds=True), len(audio) / RATE)
        language = None
        for number, (start, end) in enumerate(spans):
            clip = audio[round(start * RATE) : round(end * RATE)]
            pieces, info = whisper.transcribe(
                clip,
                language=language,
                beam_size=5,
                temperature=0.0,
                word_timestamps=True,
                condition_on_previous_text=False,
            )
            pieces = list(pieces)
            language = language or info.language
            raw = np.concatenate([dnsmos.run(None, {"input_1": w[None]})[0] for w in windows(clip, WINDOW / RATE)])
            loudness = pyloudnorm.Meter(RATE).integrated_loudness(clip) if len(clip) > 0.4 * RATE else None
            voice = speaker.partials([clip])[0].mean(axis=0)
            prints.append(voice / np.linalg.norm(voice))
            name = f"{Path(path).stem}_{len(rows):05d}.flac"
            soundfile.write(out / name, clip, RATE)
            words = [(word.word, word.start, word.end) for piece in pieces for word in piece.words or []]
            rows.append(
                {
                    "file": name, "source": path, "number": number, "start": start, "end": end, "language": language,
                    "text": "".join(piece.text for piece in pieces).strip(), "words": json.dumps(words),
                    "ovr": float(raw[:, 2].mean()), "lufs": loudness,
                }
            )  # fmt: skip
    cosine = np.stack(prints) @ np.stack(prints).T
    pairs = [
        (i, j)
        for i, row in enumerate(rows)
        for j, other in enumerate(rows)
        if row["source"] == other["source"] and j not in (i, i - 1) and cosine[i, j] > 0.78
    ]
    pq.write_table(pa.Table.from_pylist(rows), out / "clips.parquet")
    (out / "pairs.json").write_text(json.dumps(pairs))
    seconds = sum(row["end"] - row["start"] for row in rows)
    print(json.dumps({"wall_s": time.perf_counter() - STARTED, "segments": len(rows), "segment_s": seconds}))


if __name__ == "__main__":
    main()
