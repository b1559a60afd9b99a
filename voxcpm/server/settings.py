"""Settings of a server, checked before anything is started."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from voxcpm.server.errors import unknown

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of voices, adapters and keys."""
ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""OpenAI's model names, which many clients send and cannot change."""


@dataclass(frozen=True)
class ServerSettings:
    """What `voxmill serve` was given. Times are in seconds, sizes in bytes."""

    checkpoint: str  #: folder or hub id
    name: str = ""  #: model name that clients see; default: the checkpoint's folder name
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    dtype: str | None = None  #: None: the checkpoint's
    slots: int | None = None  #: utterances generated at once; None: the engine chooses
    adapters: Mapping[str, Path] = field(default_factory=dict)  #: LoRA folders by name
    voices: Path | None = None  #: folder of stored voices
    stored_only: bool = False  #: refuse clips sent with a request
    reference_hosts: tuple[str, ...] = ()  #: hosts that clips may be fetched from
    keys: Path | None = None
    no_keys: bool = False  #: another address than loopback without keys is meant
    allowed_hosts: tuple[str, ...] = ()  #: names that the Host header may have on loopback, beside localhost
    cors: tuple[str, ...] = ()  #: origins of pages that may call the server
    default_format: str = "mp3"
    pcm_rate: int | None = 24000  #: Hz of pcm without `sample_rate`; None: the model's rate
    strict: bool = False  #: an unknown field is an error
    mark: bool = True  #: say in headers and files that the audio is synthetic
    deadline_s: float | None = None  #: longest wait for first audio at admission; None: the engine's default
    max_characters: int = 4096
    max_long_characters: int = 100_000
    max_seconds: float = 120.0  #: of audio per utterance
    max_body: int = 16 * 2**20
    header_s: float = 10.0
    body_s: float = 30.0
    slow_reader_s: float = 60.0
    drain_s: float = 30.0
    worker: tuple[str, ...] = (sys.executable, "-m", "voxcpm.server.process.worker")  #: command of the engine process

    @property
    def model_name(self) -> str:
        """The model name that clients see."""
        return self.name or Path(self.checkpoint).resolve().name

    @property
    def loopback(self) -> bool:
        """Return True if only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError if the server must not start with these settings."""
        from voxcpm.server.encode import FORMATS, HIGHEST_RATE, LOWEST_RATE

        if not self.loopback and self.keys is None and not self.no_keys:
            raise ValueError(
                f"--host {self.host} lets other machines connect: give --keys FILE (see voxmill serve-key), "
                "or --no-keys if everyone may use the server"
            )
        if self.keys is not None and self.no_keys:
            raise ValueError("--keys and --no-keys exclude each other: leave one of them out")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port {self.port} is outside 0..65535")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"--slots {self.slots} must be at least 1")
        if self.default_format not in FORMATS:
            raise ValueError(unknown("--default-format", self.default_format, FORMATS))
        if self.pcm_rate is not None and not LOWEST_RATE <= self.pcm_rate <= HIGHEST_RATE:
            raise ValueError(f"--pcm-rate {self.pcm_rate} is outside {LOWEST_RATE}..{HIGHEST_RATE} Hz")
        for name, folder in self.adapters.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"--lora {name}: a name has letters a-z, digits, '.', '_' and '-', at most 64")
            if name in (self.model_name, *ALIASES):
                raise ValueError(f"--lora {name}: the name is taken by the model itself")
            if not folder.exists():
                raise FileNotFoundError(f"no LoRA adapter at {folder}")
        for origin in self.cors:
            if not re.fullmatch(r"https?://[^/*\s]+", origin):
                raise ValueError(f"--cors {origin}: give an origin such as https://example.org, without a path")
        if self.max_characters < 1 or self.max_seconds <= 0:
            raise ValueError("--max-characters and --max-seconds must be above 0")
