"""A folder of everything that people give a corpus maker by mistake, and what must become of each: one maker a kind."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from fakes.recordings import noise, tone, write

RATE = 16_000
USED, EMPTY, REFUSED, LEFT = "used", "empty", "refused", "left alone"
"""Segments come of it; a recording without speech; in the quarantine with a reason; no recording by its name."""

Maker = Callable[[Path, np.ndarray], object]
KINDS: dict[str, tuple[str, Maker]] = {}


def kind(name: str, fate: str) -> Callable[[Maker], Maker]:
    """Register a maker of the file `name`, which gets float32 speech at 16 kHz."""

    def register(maker: Maker) -> Maker:
        KINDS[name] = (fate, maker)
        return maker

    return register


def make_bad_inputs(folder: Path, speech: np.ndarray) -> dict[str, str]:
    """Write one file of each kind, each in a separate folder (a session); {relative path: fate}."""
    fates = {}
    for number, (name, (fate, maker)) in enumerate(KINDS.items()):
        path = folder / f"{number:02d}" / name
        path.parent.mkdir(parents=True)
        maker(path, speech)
        fates[path.relative_to(folder).as_posix()] = fate
    return fates


def _text(content: bytes) -> Maker:
    return lambda path, speech: path.write_bytes(content)


def _sound(make: Callable[[np.ndarray], np.ndarray], rate: int = RATE, subtype: str = "PCM_16") -> Maker:
    return lambda path, speech: write(path, make(speech), rate, subtype)


def _resampled(rate: int) -> Callable[[np.ndarray], np.ndarray]:
    def make(speech: np.ndarray) -> np.ndarray:
        import soxr

        return np.asarray(soxr.resample(speech, RATE, rate), dtype=np.float32)

    return make


def _cut(ending: str, share: float, subtype: str = "PCM_16") -> Maker:
    def make(path: Path, speech: np.ndarray) -> None:
        whole = write(path.with_name(f"whole.{ending}"), speech, RATE, subtype)
        content = whole.read_bytes()
        whole.unlink()
        path.write_bytes(content[: round(len(content) * share)])

    return make


def _header(path: Path, channels: int, rate: int, promised: int, data: bytes) -> None:
    """A WAV whose header says what is asked."""
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", promised) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", min(4 + len(body) + promised, 0xFFFFFFFF)) + body)


def _pcm(speech: np.ndarray) -> bytes:
    return (speech * 32767).astype("<i2").tobytes()


def _dtmf(speech: np.ndarray) -> np.ndarray:
    pairs = [(697, 1209), (770, 1336), (852, 1477), (941, 1336)] * 3
    return np.concatenate([np.pad(tone(a, 0.3, RATE, 0.2) + tone(b, 0.3, RATE, 0.2), (0, 3200)) for a, b in pairs])


def _music(speech: np.ndarray) -> np.ndarray:
    chords = [
        sum(tone(f, 1.0, RATE, 0.1) for f in chord) for chord in ((262, 330, 392), (220, 262, 330), (294, 349, 440))
    ]
    return np.concatenate(chords * 3)


kind("empty.wav", REFUSED)(_text(b""))
kind("header_only.wav", REFUSED)(lambda path, speech: _header(path, 1, RATE, 0, b""))
kind("cut_at_10.flac", REFUSED)(_cut("flac", 0.10))
kind("cut_at_50.flac", REFUSED)(_cut("flac", 0.50))
kind("cut_at_97.flac", USED)(_cut("flac", 0.97))
kind("cut_at_50.wav", REFUSED)(_cut("wav", 0.50))
kind("cut_at_50.mp3", REFUSED)(_cut("mp3", 0.50, "MPEG_LAYER_III"))
kind("cut_in_its_header.wav", REFUSED)(_cut("wav", 0.0002))
kind("flac_called.wav", USED)(_cut("flac", 1.0))
kind("wav_called.mp3", USED)(_cut("wav", 1.0))
kind("text_called.flac", REFUSED)(_text(b"these are my notes\n" * 50))
kind("web_page_called.mp3", REFUSED)(_text(b"<!DOCTYPE html><html><body>404 not found</body></html>"))
kind("picture_called.wav", REFUSED)(_text(b"\x89PNG\r\n\x1a\n" + bytes(3000)))
kind("random.mp3", REFUSED)(_text(np.random.default_rng(1).bytes(20_000)))
kind("git_lfs_pointer.wav", REFUSED)(_text(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"))
kind("no_channels.wav", REFUSED)(lambda path, speech: _header(path, 0, RATE, len(speech) * 2, _pcm(speech)))
kind("rate_of_zero.wav", REFUSED)(lambda path, speech: _header(path, 1, 0, len(speech) * 2, _pcm(speech)))
kind("rate_of_4_ghz.wav", REFUSED)(lambda path, speech: _header(path, 1, 2**32 - 1, len(speech) * 2, _pcm(speech)))
kind("ten_hours_promised.wav", REFUSED)(
    lambda path, speech: _header(path, 1, RATE, 36_000 * RATE * 2, _pcm(speech[:RATE]))
)
kind("not_a_number.wav", REFUSED)(
    _sound(lambda speech: np.where(np.arange(len(speech)) == 900, np.nan, speech), RATE, "FLOAT")
)
kind("infinite.wav", REFUSED)(
    _sound(lambda speech: np.where(np.arange(len(speech)) == 900, np.inf, speech), RATE, "FLOAT")
)
kind("silence.wav", EMPTY)(_sound(lambda speech: np.zeros(5 * RATE, np.float32)))
kind("constant.wav", EMPTY)(_sound(lambda speech: np.full(5 * RATE, 0.3, np.float32)))
kind("hiss.wav", EMPTY)(_sound(lambda speech: noise(5, RATE, 0.05)))
kind("dial_tones.wav", EMPTY)(_sound(_dtmf))
kind("music.wav", EMPTY)(_sound(_music))
kind("a_click.wav", EMPTY)(_sound(lambda speech: np.concatenate([np.ones(8), np.zeros(400)]).astype(np.float32)))
kind("one_sample.wav", EMPTY)(_sound(lambda speech: np.full(1, 0.1, np.float32)))
kind("at_8_khz.wav", USED)(_sound(_resampled(8_000), 8_000))
kind("at_96_khz.wav", USED)(_sound(_resampled(96_000), 96_000, "PCM_24"))
kind("of_24_bits.flac", USED)(_sound(lambda speech: speech, RATE, "PCM_24"))
kind("of_8_bits.wav", USED)(_sound(lambda speech: speech, RATE, "PCM_U8"))
kind("law.wav", USED)(_sound(lambda speech: speech, RATE, "ULAW"))
kind("inverted_stereo.wav", USED)(_sound(lambda speech: np.stack([speech, -speech], axis=1)))
kind("six_channels.wav", USED)(_sound(lambda speech: np.stack([speech * 0.5] * 6, axis=1)))
kind("far_too_loud.wav", USED)(_sound(lambda speech: np.clip(speech * 30, -1, 1)))
kind("as_good_as_silent.wav", USED)(_sound(lambda speech: speech * 0.003, RATE, "PCM_24"))
kind("名前 – ñøñ 🎙.wav", USED)(_sound(lambda speech: speech))
kind("two\nlines\tand 'quotes\".wav", USED)(_sound(lambda speech: speech))
kind(f"{'long' * 60}.wav", USED)(_sound(lambda speech: speech))
kind("%s{}.wav", USED)(_sound(lambda speech: speech))
kind("notes.txt", LEFT)(_text(b"not a recording"))
kind("._resource_fork.wav", LEFT)(_text(b"\x00\x05\x16\x07" + bytes(100)))


@kind("queue.wav", REFUSED)
def _fifo(path: Path, speech: np.ndarray) -> None:
    os.mkfifo(path)


@kind("linked_to_nothing.wav", REFUSED)
def _broken_link(path: Path, speech: np.ndarray) -> None:
    path.symlink_to("nowhere.wav")


@kind("linked_to_itself.wav", REFUSED)
def _loop(path: Path, speech: np.ndarray) -> None:
    path.symlink_to(path.name)


@kind("folder_called.wav", LEFT)
def _folder(path: Path, speech: np.ndarray) -> None:
    path.mkdir()


@kind("around_and_around", LEFT)
def _folder_loop(path: Path, speech: np.ndarray) -> None:
    path.symlink_to("..", target_is_directory=True)


def make_zip_bomb(path: Path) -> Path:
    """20 kB that are 100 seconds of digital silence when unpacked a thousandfold, beside a member that would leave the folder."""
    scratch = path.with_suffix(".wav")
    soundfile.write(scratch, np.zeros(100 * RATE * 6, np.int16), RATE * 6)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(scratch, "silence.wav")
        archive.writestr("../../escaped.wav", b"RIFF")
    scratch.unlink()
    return path
