"""Facts from a file's first bytes: what the header of a recording states, and what a file is that is not a recording."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.stage import StageError


class AudioFileError(StageError):
    """A file that cannot be used as a recording; the message states in one line what is wrong with it."""


class UnreachableError(AudioFileError):
    """A file that cannot be read now, whatever it contains: the next run may be able to read it."""

    cause = "machine"


@dataclass(frozen=True)
class AudioInfo:
    """What is known of a file before it is decoded.

    `duration_s` is 0 if the file does not state it. `promised` is True if it is written in the file (FFmpeg only estimates
    that of an MP3 or AAC stream without an index from its first bit rate). `bits` is 16 or 24: enough to hold the samples
    without loss.
    """

    duration_s: float
    sample_rate: int
    channels: int
    codec: str
    bits: int
    reader: str
    promised: bool = True

    @property
    def is_float(self) -> bool:
        """Whether samples are stored as floating point numbers, which may exceed full scale without being clipped."""
        return self.codec.endswith(("/float", "/double"))


@dataclass
class StreamReport:
    """What was found while a file was streamed. `samples` counts all samples that were read. `lost` counts those of them
    that are silence in place of damaged data (so that times stay right). `stopped` states why reading ended early."""

    samples: int = 0
    lost: int = 0
    stopped: str = ""
    channel: int | None = None
    """The only channel used, if the channels cancel each other; None if they are mixed."""
    offset: float = 0.0
    """Constant subtracted from all samples (share of full scale)."""
    gain: float = 1.0
    """Factor that brings peaks above full scale down to it."""


#: First bytes of formats that libsndfile reads well. MP3 is not among them: its decoder writes warnings to the terminal.
_LIBSNDFILE = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"caff", b".snd", b"wvpk")


def for_libsndfile(head: bytes) -> bool:
    """Return True if a file that begins with `head` is tried with libsndfile first."""
    return head.startswith(_LIBSNDFILE)


def what_it_is(head: bytes) -> str | None:
    """Return the kind of a file, and what to do about it, if its first bytes show that it is not a recording; otherwise
    None."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the recording itself: run `git lfs pull` in its repository"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page or XML text, not audio (a failed download?)"
    if start.startswith((b"{", b"[")) and _is_text(head):
        return "JSON text, not audio (a failed download?)"
    if head and _is_text(head):
        return "plain text, not audio"
    return None


def _is_text(head: bytes) -> bool:
    try:
        words = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The end of the excerpt may cut a character in two.
        if error.start < len(head) - 3:
            return False
        words = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in words)


def wav_promise_s(path: str) -> float | None:
    """Return the seconds that a WAV header states, whether or not the data is there; None for another format or if it
    states none.

    libsndfile reports what the file holds instead, so that a recording cut short by a full disk looks complete to it.
    """
    with Path(path).open("rb") as file:
        kind = file.read(12)
        if kind[:4] not in (b"RIFF", b"RF64", b"RIFX") or kind[8:] != b"WAVE":
            return None
        order = ">" if kind[:4] == b"RIFX" else "<"
        return _walk_chunks(file, order)


def _walk_chunks(file: BinaryIO, order: str) -> float | None:
    byte_rate, long_size = 0, None
    while len(header := file.read(8)) == 8:
        name, size = header[:4], struct.unpack(order + "I", header[4:])[0]
        if name == b"data":
            size = long_size if size == 0xFFFFFFFF and long_size else size
            # Programs that write to a pipe cannot know the size and write zero or a huge number.
            return (
                None if not byte_rate or size == 0 or (long_size is None and size >= 0x7FFF0000) else size / byte_rate
            )
        body = file.read(min(size, 64))
        if name == b"ds64" and len(body) >= 16:
            long_size = struct.unpack(order + "Q", body[8:16])[0]
        elif name == b"fmt " and len(body) >= 12:
            byte_rate = struct.unpack(order + "I", body[8:12])[0]
        file.seek(size - len(body) + size % 2, 1)
    return None


def has_mp3_index(path: str) -> bool:
    """Return True if an MP3 states its length (a Xing or Info header in its first frame, after the ID3 tag)."""
    with Path(path).open("rb") as file:
        head = file.read(10)
        start = 0
        if head[:3] == b"ID3" and len(head) == 10:
            # An ID3 size has seven bits per byte.
            start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(start)
        frame = file.read(4096)
        return b"Xing" in frame or b"Info" in frame or b"VBRI" in frame
