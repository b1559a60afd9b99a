"""Speech is written as the name says, whole or not at all, and a full disk is one line."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from voxcpm.inference.write_audio import FORMATS, STDOUT, check_name, write_audio, write_stream

RATE = 48_000
WAV = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)).astype(np.float32)


@pytest.mark.parametrize("ending", [*FORMATS, ".WAV", ".Mp3"])
def test_the_name_says_the_format(tmp_path: Path, ending: str) -> None:
    writers: list[Callable[[Path], int]] = [
        lambda path: write_audio(path, WAV, RATE),
        lambda path: write_stream(path, RATE, iter([WAV[:9000], WAV[9000:]])),
    ]
    for write in writers:
        path = tmp_path / "new" / f"speech{ending}"
        assert write(path) == len(WAV)
        info = soundfile.info(path)
        assert (info.format, info.subtype) == FORMATS[ending.lower()] and info.samplerate == RATE
        assert info.duration == pytest.approx(0.5, abs=0.06)
        assert [one.name for one in path.parent.iterdir()] == [path.name]
        path.unlink()


def test_a_stream_is_the_same_wav_and_playable_meanwhile(tmp_path: Path) -> None:
    write_audio(tmp_path / "whole.wav", WAV, RATE)
    seen = []

    def chunks() -> Any:
        for start in range(0, len(WAV), 5000):
            yield WAV[start : start + 5000]
            seen.append(soundfile.info(tmp_path / "stream.wav").frames)

    write_stream(tmp_path / "stream.wav", RATE, chunks())
    assert seen == [5000, 10000, 15000, 20000, 24000]
    assert (tmp_path / "stream.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_standard_output_takes_a_wav(monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[Callable[[], int]] = [
        lambda: write_audio(STDOUT, WAV, RATE),
        lambda: write_stream(STDOUT, RATE, iter([WAV[:99], WAV[99:]])),
    ]
    for write in writers:
        sink = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=sink))
        assert write() == len(WAV)
        sink.seek(0)
        samples, rate = soundfile.read(sink, dtype="float32")
        assert rate == RATE and np.abs(samples - WAV).max() < 1e-4


@pytest.mark.parametrize("name", ["speech.m4a", "speech", "speech.txt", "wav"])
def test_other_endings_are_refused_with_those_that_are_written(tmp_path: Path, name: str) -> None:
    for refuse in (check_name, lambda path: write_audio(path, WAV, RATE)):
        with pytest.raises(ValueError, match=r"ending says the format; use one of \.wav, \.flac, \.mp3"):
            refuse(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __exit__(self, *_: object) -> None:
            # A buffered file writes what is left when it is closed.
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "old.wav").write_bytes(b"old")
    monkeypatch.setattr(Path, "open", lambda *_: Full())
    for name in ("speech.wav", "speech.mp3", "old.wav"):
        with pytest.raises(OSError, match="no space left on the disk for the audio; free some") as error:
            write_audio(tmp_path / name, WAV, RATE)
        assert error.value.errno == errno.ENOSPC and "\n" not in str(error.value)
    with pytest.raises(OSError, match="no space left on the disk for the audio"):
        write_stream(tmp_path / "speech.wav", RATE, iter([WAV]))
    monkeypatch.undo()
    assert (tmp_path / "old.wav").read_bytes() == b"old"
