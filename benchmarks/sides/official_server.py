"""The official package behind a lock, as an HTTP server: `python official_server.py CHECKPOINT THREADS PORT`.

Runs in the environment of the official package, so it uses the standard library only. POST /v1/audio/speech with `input`,
`min_len`, `max_new_tokens`, `seed` streams 16-bit PCM at the model's rate, one request after the other, as its own demo does.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import torch

torch.set_num_threads(int(sys.argv[2]))

import voxcpm  # noqa: E402
from voxcpm import VoxCPM  # noqa: E402

if "site-packages" not in str(voxcpm.__file__):
    raise SystemExit(f"this is not the official package: {voxcpm.__file__}")

VOICE: Any = VoxCPM.from_pretrained(sys.argv[1], load_denoiser=False, optimize=False, device="cpu")
ONE_AT_A_TIME = Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers with chunks as they are made."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "audio/pcm")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with ONE_AT_A_TIME:
            torch.manual_seed(asked["seed"])
            stream = VOICE.generate_streaming(
                asked["input"], min_len=asked["min_len"], max_len=asked["max_new_tokens"], retry_badcase=False
            )
            for samples in stream:
                data = (samples.clip(-1, 1) * 32767).astype("<i2").tobytes()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Handler).serve_forever()
