"""Settings of a server, checked before anything is started."""

from __future__ import annotations

import argparse
import ipaddress
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from voxcpm.server.errors import unknown

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of voices, adapters and keys."""
DEFAULT_VOICE = "default"
"""What clients send as `voice` for none; no stored voice has this name."""
ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""OpenAI's model names, which many clients send and cannot change."""


def option(default: Any, words: str, flag: str | None = None) -> Any:
    """Return a field that both command lines offer as an option.

    words: its help, with units. flag: its name, if it is not the field's.
    """
    return field(default=default, metadata={"help": words, "flag": flag})


@dataclass(frozen=True)
class ServerSettings:
    """What `voxmill serve` was given. Times are in seconds, sizes in bytes."""

    checkpoint: str  #: folder or hub id
    name: str = option("", "Name of the model for clients. Default: the checkpoint folder's.")
    host: str = option("127.0.0.1", "Address to listen at. One that other machines reach needs --keys or --no-keys.")
    port: int = option(8000, "Port; 0 takes a free one.")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...")
    dtype: str | None = option(None, "float32, bfloat16, float16 or int8; the checkpoint's if not given.")
    slots: int | None = option(
        None,
        "Utterances generated at once, a quarter kept for live ones. Default: 4 on a CPU, from the memory on a GPU.",
    )
    threads: int | None = option(None, "CPU threads of the model. Default: all cores, one for weights under 100 MB.")
    lora: tuple[str, ...] = option((), "An adapter as NAME=FOLDER; clients choose it with model=NAME. May be repeated.")
    voices: Path | None = option(None, "Folder of stored voices.")  # noqa: RUF009 (it returns a field)
    stored_only: bool = option(False, "Refuse clips that come with a request.")
    require_consent: bool = option(
        False, "Clone voices with a checked consent only, of uploads and of clips in requests (docs/consent.md)."
    )
    reference_hosts: tuple[str, ...] = option(
        (), "A host that clips may be fetched from by https. May be repeated.", "reference-host"
    )
    keys: Path | None = option(None, "File of keys, made by voxmill serve-key. It is read again when it changes.")  # noqa: RUF009
    no_keys: bool = option(False, "Let everyone who can connect use the server.")
    wyoming: str | None = option(None, "Also speak the Wyoming protocol, for Home Assistant, at [HOST:]PORT.")
    wyoming_no_keys: bool = option(
        False, "Let everyone who can connect use Wyoming, which has no keys: with --keys, or beyond this machine."
    )
    allow_host: tuple[str, ...] = option((), "Another name that the server answers to on loopback. May be repeated.")
    cors: tuple[str, ...] = option(
        (), "Origin of pages that may use the server, e.g. https://example.org. May be repeated."
    )
    default_format: str = option("mp3", "response_format of a request that names none.")
    pcm_rate: str = option("24000", "Hz of pcm without sample_rate, or native: the model's.")
    strict: bool = option(False, "Refuse unknown fields; otherwise they are named in X-Ignored-Fields.")
    no_mark: bool = option(False, "Do not say in headers and files that the audio is synthetic.")
    no_watermark: bool = option(False, "Leave out the watermark in the sound (docs/watermark.md).")
    watermark_key: Path | None = option(None, "File of a private key, whose watermark is added to the public one.")  # noqa: RUF009
    sign_key: Path | None = option(None, "Sign whole answers with this private key (PEM), as C2PA does.")  # noqa: RUF009
    sign_cert: Path | None = option(None, "Certificate of the key and its chain (PEM).")  # noqa: RUF009
    sign_training: str = option(
        "notAllowed", "What signed answers say of training on them: allowed, notAllowed or constrained."
    )
    sign_tsa: str | None = option(None, "URL of a time stamping service. Default: none is asked.")
    deadline: float | None = option(None, "Refuse a stream whose first audio is expected later than this, in seconds.")
    max_characters: int = option(4096, "Longest text, in characters.")
    max_seconds: float = option(120.0, "Longest audio of an utterance, in seconds.")
    drain: float = option(30.0, "Time for running requests to end after SIGTERM, in seconds.")
    hang_after: float | None = option(
        None, "Restart an engine that does not answer for this long, in seconds. Default: 60 on a GPU, 300 on a CPU."
    )
    load_within: float = option(900.0, "Restart an engine that has not loaded the model after this long, in seconds.")
    unload_after: float | None = option(
        None, "Free the model's memory after this long without a request, in seconds. The next request waits for it."
    )
    max_long_characters: int = 100_000
    max_body: int = 16 * 2**20
    header_s: float = 10.0
    body_s: float = 30.0
    slow_reader_s: float = 60.0
    consent_program: tuple[str, ...] = (sys.executable, "-m", "voxmill", "consent")  #: command that checks consents
    worker: tuple[str, ...] = (sys.executable, "-m", "voxcpm.server.process.worker")  #: command of the engine process

    @property
    def adapters(self) -> dict[str, Path]:
        """LoRA folders by name. Raises ValueError for one without a name."""
        found = {}
        for words in self.lora:
            name, sign, folder = words.partition("=")
            if not (sign and folder and NAME.fullmatch(name)):
                raise ValueError(
                    f"--lora {words}: write NAME=FOLDER, with letters a-z, digits, '.', '_' and '-' in the name"
                )
            found[name] = Path(folder).expanduser()
        return found

    @property
    def pcm_hertz(self) -> int | None:
        """Hz of pcm without `sample_rate`; None: the model's. Raises ValueError."""
        if self.pcm_rate == "native":
            return None
        if not self.pcm_rate.isdigit():
            raise ValueError(f"--pcm-rate {self.pcm_rate} is not a number of Hz or native")
        return int(self.pcm_rate)

    @property
    def model_name(self) -> str:
        """The model name that clients see."""
        return self.name or Path(self.checkpoint).resolve().name

    def pinned(self) -> ServerSettings:
        """Return the settings with the folders behind symbolic links, e.g. of `latest`, which a trainer moves to the next save.

        The name of the model and what a new engine process loads then stay what was started.
        """
        checkpoint = Path(self.checkpoint)
        lora = tuple(f"{name}={folder.resolve()}" for name, folder in self.adapters.items())
        return replace(
            self, checkpoint=str(checkpoint.resolve()) if checkpoint.exists() else self.checkpoint, lora=lora
        )

    @property
    def loopback(self) -> bool:
        """Return True if only this machine can connect."""
        return _is_loopback(self.host)

    @property
    def wyoming_address(self) -> tuple[str, int] | None:
        """Host and port of the Wyoming protocol; None without it. Raises ValueError."""
        if self.wyoming is None:
            return None
        host, _, port = self.wyoming.rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f"--wyoming {self.wyoming}: write HOST:PORT or PORT, with a port from 0 to 65535")
        return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)

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
        self._check_wyoming()
        if self.require_consent and self.voices is None:
            raise ValueError("--require-consent keeps consents beside the stored voices: give --voices FOLDER")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port {self.port} is outside 0..65535")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"--slots {self.slots} must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads {self.threads} must be at least 1")
        if self.default_format not in FORMATS:
            raise ValueError(unknown("--default-format", self.default_format, FORMATS))
        if self.pcm_hertz is not None and not LOWEST_RATE <= self.pcm_hertz <= HIGHEST_RATE:
            raise ValueError(f"--pcm-rate {self.pcm_rate} is outside {LOWEST_RATE}..{HIGHEST_RATE} Hz")
        for name, folder in self.adapters.items():
            if name in (self.model_name, *ALIASES):
                raise ValueError(f"--lora {name}: the name is taken by the model itself")
            if not folder.exists():
                raise FileNotFoundError(f"no LoRA adapter at {folder}")
        for origin in self.cors:
            if not re.fullmatch(r"https?://[^/*\s]+", origin):
                raise ValueError(f"--cors {origin}: give an origin such as https://example.org, without a path")
        for name in ("max_characters", "max_seconds", "deadline", "drain", "hang_after", "load_within", "unload_after"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} {value:g} must be above 0")

    def _check_wyoming(self) -> None:
        address = self.wyoming_address
        if address is None or self.wyoming_no_keys:
            return
        if self.keys is not None:
            raise ValueError(
                "--wyoming with --keys: the Wyoming protocol has no keys, so that whoever can connect needs none: "
                "give --wyoming-no-keys too, or leave out --wyoming"
            )
        if not _is_loopback(address[0]) and not self.no_keys:
            raise ValueError(
                f"--wyoming {self.wyoming} lets other machines connect, and the Wyoming protocol has no keys: "
                "give --wyoming-no-keys if everyone may use it, or leave out the host"
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def help_of(name: str) -> str:
    """Return the help of an option."""
    words: str = ServerSettings.__dataclass_fields__[name].metadata["help"]
    return words


def parse_arguments(arguments: Sequence[str] | None = None) -> ServerSettings:
    """Read the options of `python -m voxcpm serve`. Wrong ones exit with status 2."""
    parser = argparse.ArgumentParser(prog="voxcpm serve", description="Serve a checkpoint over HTTP.")
    parser.add_argument("checkpoint", help="a checkpoint folder or a hub id")
    hints = get_type_hints(ServerSettings)
    for one in fields(ServerSettings):
        if "help" not in one.metadata:
            continue
        kind = hints[one.name]
        plain = f" Default: {one.default}." if one.default and kind is not bool else ""
        how: dict[str, Any] = {"dest": one.name, "help": one.metadata["help"] + plain}
        if kind is bool:
            how |= {"action": "store_true"}
        elif kind == tuple[str, ...]:
            how |= {"action": "append", "default": [], "metavar": "TEXT"}
        else:
            how |= {
                "type": next(part for part in (*get_args(kind), kind) if part is not type(None)),
                "default": one.default,
            }
        parser.add_argument(f"--{one.metadata['flag'] or one.name.replace('_', '-')}", **how)
    values: dict[str, Any] = vars(parser.parse_args(arguments))
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return ServerSettings(**values)
