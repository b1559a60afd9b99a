"""Studio prompts from Debian's Asterisk packages: fetched without root, read, and selected by their transcripts."""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 16_000
LANGUAGES = ("en", "es", "fr", "it", "ru")

LONG_S = 2.0
"""Seconds. Longer prompts make up 95 % of a session; only these are used for word error rates."""

_APT_TIMEOUT_S = 900
_G722_BYTES_PER_S = 8_000
#: Brackets mark tones and remarks, angle brackets silence. The other signs are spoken as words ("star") that are not written.
_NOT_WORDS = frozenset("[]()<>*#@=+/\\_\ufffd")
#: A question mark within a word or before a small letter: an accented letter was lost ("pu? essere").
_LOST_LETTER = re.compile(r"\w\?\w|\?\s+[^\W\d_A-ZÀ-ÖØ-Þ]")
#: The name of the next prompt within a text: two transcripts are under one name.
_NEXT_LINE = re.compile(r"\b\w+(?:-\w+)+:")


class DemoRecordingsUnavailable(RuntimeError):  # noqa: N818 - a state of the machine, not a fault
    """The packages cannot be fetched on this machine; the message says what to put in the folder instead."""


@dataclass(frozen=True)
class SpokenPrompt:
    """A prompt from the packages: its name, its text, and its samples, `[S] float32` at 16 kHz."""

    name: str
    text: str
    samples: np.ndarray

    @property
    def duration_s(self) -> float:
        return len(self.samples) / RATE


def unpack_packages(say: Callable[[str], None]) -> Path:
    """Return the folder of the unpacked packages: from the cache, or with `apt-get download` and `dpkg -x` (no root needed).

    The cache is `voxmill/debian` under XDG_CACHE_HOME (default ~/.cache). Raises DemoRecordingsUnavailable with a one-line message.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxmill" / "debian"
    unpacked = cache / "unpacked"
    if (unpacked / ".complete").is_file():
        return unpacked
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise _unavailable("the demo's recordings are Debian packages and this machine has no apt-get")
    names = [f"asterisk-core-sounds-{code}{kind}" for code in LANGUAGES for kind in ("", "-g722")]
    say("  fetching asterisk-core-sounds (55 MB, CC-BY-SA-3.0) from Debian")
    cache.mkdir(parents=True, exist_ok=True)
    # A separate folder and one rename: neither a killed run nor a concurrent one leaves an incomplete folder.
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as scratch:
        fetched = Path(scratch)
        done = _run(["apt-get", "download", *names], fetched)
        if done.returncode and os.geteuid() == 0:
            # A new machine has no package lists yet.
            _run(["apt-get", "update"], fetched)
            done = _run(["apt-get", "download", *names], fetched)
        archives = sorted(fetched.glob("*.deb"))
        if done.returncode or len(archives) < len(names):
            raise _unavailable(f"apt-get cannot download the demo's recordings ({_last_words(done)})")
        for archive in archives:
            done = _run(["dpkg", "-x", str(archive), str(fetched / "unpacked")], fetched)
            if done.returncode:
                raise _unavailable(f"dpkg cannot unpack {archive.name} ({_last_words(done)})")
        (fetched / "unpacked" / ".complete").touch()
        if not (unpacked / ".complete").is_file():
            shutil.rmtree(unpacked, ignore_errors=True)
            (fetched / "unpacked").replace(unpacked)
    return unpacked


def choose_prompts(root: Path, language: str, seconds: float, dice: random.Random) -> list[SpokenPrompt]:
    """Return prompts of about `seconds` in total, in random order: 95 % of the time longer than 2 s, the rest 0.7 to 2 s.

    Only prompts whose transcript consists of words are used. The total is shorter if the packages do not have enough.
    """
    texts = read_transcripts(root, language)
    sounds = root / "usr/share/asterisk/sounds"
    voice = next(folder for folder in sorted(sounds.iterdir()) if folder.name.startswith(f"{language}_"))
    names = [name for name in sorted(texts) if (voice / f"{name}.g722").is_file()]
    dice.shuffle(names)
    long_s, short_s = seconds * 0.95, seconds * 0.05
    chosen = []
    for name in names:
        if long_s <= 0 and short_s <= 0:
            break
        path = voice / f"{name}.g722"
        duration_s = path.stat().st_size / _G722_BYTES_PER_S
        if LONG_S < duration_s < 15 and long_s > 0:
            long_s -= duration_s
        elif 0.7 < duration_s <= LONG_S and short_s > 0:
            short_s -= duration_s
        else:
            continue
        chosen.append(SpokenPrompt(name, texts[name], read_g722(path)))
    dice.shuffle(chosen)
    return chosen


def read_transcripts(root: Path, language: str) -> dict[str, str]:
    """Return {prompt name: text} of the prompts whose transcript consists of words."""
    listing = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    texts = {}
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8", errors="replace").splitlines():
        name, separator, text = line.partition(":")
        text = " ".join(text.split())
        if separator and not name.startswith(";") and is_clean(text):
            texts[name.strip()] = text
    return texts


def is_clean(text: str) -> bool:
    """Return True if a transcript consists of words: no tones, remarks, signs that are spoken, or lost letters."""
    if not any(c.isalnum() for c in text) or _NOT_WORDS & set(text):
        return False
    return not _LOST_LETTER.search(text) and not _NEXT_LINE.search(text)


def read_g722(path: Path) -> np.ndarray:
    """Decode a raw G.722 file to `[S] float32` at 16 kHz."""
    import av

    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(container.streams.audio[0])]
    return np.concatenate(frames).astype(np.float32) / 32768.0


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_APT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {_APT_TIMEOUT_S // 60} minutes")


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split())[-160:] or f"exit status {done.returncode}"


def _unavailable(why: str) -> DemoRecordingsUnavailable:
    return DemoRecordingsUnavailable(
        f"{why}; put recordings of your own into the folder (any audio or video, one folder per session) and run it again:"
        " voxmill demo DIR uses DIR/recordings when it is not empty"
    )
