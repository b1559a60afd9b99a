"""Formats of answers: streamed equals whole, however the samples are cut; the length and the samples are right."""

from __future__ import annotations

import io
import subprocess
import sys
import wave

import numpy as np
import pytest
import soundfile
import soxr
from encoded_audio import RATE, STATEMENT, decoded, encoded, sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from voxcpm.server.encode import FORMATS, encoder_for
from voxcpm.server.writers.base import pcm16

WAV = sweep(21_777)
CUTS = st.lists(st.integers(0, len(WAV)), max_size=6)
#: Formats whose bytes do not show how the samples were cut. Opus ends a page with each piece.
SAME_BYTES = sorted(set(FORMATS) - {"opus"})
#: Bit rates of speech change samples by so much; LAME also makes a sound quieter by 0.4 dB.
CLOSE = {"pcm": 1e-4, "wav": 1e-4, "flac": 1e-4, "opus": 0.01, "m4a": 0.02, "mp3": 0.03, "aac": 0.02}


@pytest.mark.parametrize("name", FORMATS)
@given(
    cuts=CUTS, speed=st.sampled_from((1.0, 1.0, 1.3, 0.4)), rate=st.sampled_from((RATE, 24_000)), whole=st.booleans()
)
@settings(max_examples=12, deadline=None)
def test_the_cuts_change_nothing(name: str, cuts: list[int], speed: float, rate: int, whole: bool) -> None:
    pieces = encoded(name, WAV, rate, cuts, speed=speed, whole=whole)
    at_once = encoded(name, WAV, rate, speed=speed, whole=whole)
    if name in SAME_BYTES:
        assert pieces == at_once
    np.testing.assert_array_equal(decoded(pieces, name)[0], decoded(at_once, name)[0])


@pytest.mark.parametrize("rate", [48_000, 24_000, 16_000, 8_000])
@pytest.mark.parametrize("name", FORMATS)
def test_streamed_equals_whole_and_is_the_audio(name: str, rate: int) -> None:
    want = soxr.resample(WAV, RATE, rate, quality="HQ")
    streamed, whole = (encoded(name, WAV, rate, range(0, len(WAV), 7680), whole=kind) for kind in (False, True))
    found, shown = decoded(whole, name)
    if name == "opus" and rate != RATE:
        # A decoder of Opus gives 48 kHz for any rate of the input.
        assert shown == RATE and abs(len(found) - len(WAV)) <= RATE // rate
        want = soxr.resample(want, rate, RATE, quality="HQ")
    else:
        assert shown == (0 if name == "pcm" else rate)
    # Raw AAC cannot say where the audio starts: 1,024 samples come before it. FFmpeg decodes the padding of the last
    # frame in both forms of AAC.
    early, late = (1024, 2048) if name == "aac" else (0, 1024) if name == "m4a" else (0, 0)
    assert len(want) + early <= len(found) + 1 and len(found) <= len(want) + early + late
    length = min(len(want), len(found) - early)
    assert np.abs(found[early:][:length] - want[:length]).max() < 4 * CLOSE[name]
    assert np.sqrt(np.mean((found[early:][:length] - want[:length]) ** 2)) < CLOSE[name]
    again = decoded(streamed, name)[0]
    if name == "mp3":
        # A stream cannot state its length, and without it nothing says how long LAME's silence at the start is.
        again = again[576 + 529 :][: len(found)]
        assert np.abs(again - found).max() < 1e-3
    else:
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "opus"])
def test_libsndfile_reads_it(name: str) -> None:
    data = encoded(name, WAV, 24_000, whole=True)
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == 24_000 and abs(len(samples) - len(WAV) / 2) <= 1


def test_a_whole_m4a_states_its_length() -> None:
    import av

    with av.open(io.BytesIO(encoded("m4a", WAV)), "r") as file:
        # The list of edits leaves out the delay of the encoder and the padding.
        assert file.duration is not None and abs(file.duration / 1e6 - len(WAV) / RATE) < 0.001


def test_sizes_in_the_header_of_a_wav() -> None:
    whole, streamed = (encoded("wav", WAV, whole=kind) for kind in (True, False))
    with wave.open(io.BytesIO(whole)) as file:
        assert (file.getnframes(), file.getframerate(), file.getsampwidth()) == (len(WAV), RATE, 2)
    assert int.from_bytes(whole[4:8], "little") == len(whole) - 8
    data = streamed.index(b"data")
    assert streamed[4:8] == streamed[data + 4 : data + 8] == b"\xff" * 4 and whole[data + 8 :] == streamed[data + 8 :]
    samples, _ = soundfile.read(io.BytesIO(streamed))
    assert len(samples) == len(WAV)


def test_a_whole_flac_states_length_and_digest() -> None:
    import hashlib

    data = encoded("flac", WAV, whole=True)
    assert soundfile.info(io.BytesIO(data)).frames == len(WAV)
    assert data[26:42] == hashlib.md5(pcm16(WAV).tobytes()).digest()


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 1.25, 2.0, 3.0, 4.0])
def test_speed_changes_the_length_and_not_the_pitch(speed: float) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    found, _ = decoded(encoded("wav", tone, 16_000, range(0, len(tone), 7680), speed=speed), "wav")
    windows = 2 if speed < 0.5 or speed > 2 else 1
    assert abs(len(found) / 16_000 - 2 / speed) < 0.1 * windows
    middle = found[len(found) // 4 : len(found) // 4 * 3]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.fft.rfftfreq(len(middle), 1 / 16_000)[spectrum.argmax()] == pytest.approx(440, abs=6)


@pytest.mark.parametrize("rate", [48_000, 24_000])
@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.streams])
def test_little_audio_is_held_back(name: str, rate: int) -> None:
    encoder, sent = encoder_for(name, RATE, rate, STATEMENT), b""
    for number, start in enumerate(range(0, 10 * 7680, 7680), 1):
        sent += encoder.push(sweep(10 * 7680)[start : start + 7680])
        found, shown = decoded(sent, name)
        assert len(found) / (shown or rate) > 0.16 * number - 0.15


@pytest.mark.parametrize("name", FORMATS)
def test_the_head_comes_with_the_first_audio_and_an_answer_may_be_empty(name: str) -> None:
    encoder = encoder_for(name, RATE, RATE, STATEMENT)
    assert encoder.media_type == FORMATS[name].media_type
    assert encoder.push(np.zeros(0, np.float32)) == b""
    alone = encoder.finish()
    assert (alone == b"") == (name == "pcm")
    if name in ("wav", "flac"):
        assert len(decoded(alone)[0]) == 0
    first = encoder_for(name, RATE, RATE, STATEMENT).push(WAV)
    assert len(first) > 2000 if FORMATS[name].streams else first == b""
    assert encoder_for(name, RATE, RATE, STATEMENT, whole=True).push(WAV) == b""


@pytest.mark.parametrize(
    ("name", "rate", "speed", "words"),
    [
        ("ogg", 48_000, 1.0, "the format 'ogg' is not known; use mp3, opus, aac, flac, wav, pcm, m4a"),
        ("mp3", 20_000, 1.0, "mp3 cannot have a sample rate of 20000 Hz; use 8000, 11025"),
        ("opus", 44_100, 1.0, "opus cannot have a sample rate of 44100 Hz; use 8000, 12000, 16000, 24000, 48000"),
        ("aac", 96_000, 1.0, "96000 Hz is outside 8000..48000"),
        ("pcm", 4_000, 1.0, "4000 Hz is outside 8000..48000"),
        ("wav", 48_000, 0.2, "speed 0.2 is outside 0.25..4"),
        ("wav", 48_000, float("nan"), "speed nan is outside"),
    ],
)
def test_what_cannot_be_is_said(name: str, rate: int, speed: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encoder_for(name, RATE, rate, None, speed)


@given(st.lists(st.floats(-2, 2, width=32), max_size=50))
def test_samples_are_rounded_to_the_nearest_and_clipped(values: list[float]) -> None:
    samples = np.array(values, np.float32)
    back = pcm16(samples).astype(np.float32) / 32768
    assert np.all(np.abs(back - np.clip(samples, -1, 32767 / 32768)) <= 0.5 / 32768)


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, numpy; from voxcpm.server.encode import FORMATS, encoder_for\n"
        "for name in FORMATS:\n"
        "    encoder = encoder_for(name, 48000, 24000, None, 1.5)\n"
        "    assert encoder.push(numpy.zeros(48000, numpy.float32)) + encoder.finish()\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
