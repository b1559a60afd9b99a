"""Clips of requests: what is decoded, what is refused, and where nothing is fetched from."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("av", reason="the extra serve is not installed")
pytest.importorskip("h11", reason="the extra serve is not installed")

import av

from voxcpm.errors import AudioError
from voxcpm.server.references import decode, sources
from voxcpm.server.references.decode import decode_clip
from voxcpm.server.references.fetch import Fetcher, is_inside
from voxcpm.server.references.sources import read_source

HOST = "voices.example.org"
PUBLIC = "93.184.216.34"


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    wave = 0.5 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate).astype(np.float32)
    return np.stack([wave] * channels, axis=1)


def wav(seconds: float = 2.0, rate: int = 16_000, channels: int = 1, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, rate, channels), rate, format=kind)
    return file.getvalue()


def coded(container: str, codec: str, seconds: float = 2.0, rate: int = 48_000) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate).T.copy(), format="flt", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout="mono",
            rate=rate,
            frame_size=stream.codec_context.frame_size or 0,
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_formats_of_files(kind: str) -> None:
    samples = decode_clip(wav(2.0, 44_100, 2, kind), 16_000)
    assert samples.dtype == np.float32 and abs(len(samples) - 32_000) < 1_600
    assert 0.45 < np.abs(samples).max() < 0.6


@pytest.mark.parametrize(
    ("container", "codec"), [("webm", "libopus"), ("mp4", "aac"), ("adts", "aac"), ("ogg", "libopus")]
)
def test_formats_of_recorders(container: str, codec: str) -> None:
    samples = decode_clip(coded(container, codec), 16_000)
    assert abs(len(samples) - 32_000) < 1_600 and np.abs(samples).max() > 0.4


def test_long_clips_are_cut() -> None:
    assert len(decode_clip(wav(40.0, 8_000), 8_000)) == 30 * 8_000


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (b"", "not a WAV"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "not a WAV"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a WAV"),
        (b"RIFF\0\0\0\0WAVE" + b"x" * 100, "cannot be decoded"),
        (b"fLaC" + b"\xff" * 5_000, "cannot be decoded"),
        (wav(0.5), "at least 1 s"),
        (wav(2.0, 4_000), "sample rate of 4000"),
        (wav(1.2, 8_000, 9), "9 channels"),
        (wav()[:44], "0.00 s long"),
    ],
)
def test_clips_that_are_refused(clip: bytes, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        decode_clip(clip, 16_000)


def test_silence_is_refused() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(32_000, np.float32), 16_000, format="WAV")
    with pytest.raises(AudioError, match="silent"):
        decode_clip(file.getvalue(), 16_000)


def test_work_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "TIME_LIMIT_S", -1.0)
    with pytest.raises(AudioError, match="to decode"):
        decode_clip(wav(), 16_000)


@given(
    st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]),
    st.integers(0, 100_000),
    st.binary(min_size=1, max_size=64),
    st.booleans(),
)
@settings(max_examples=60)
def test_damaged_clips_are_decoded_or_refused(kind: str, at: int, noise: bytes, cut: bool) -> None:
    clip = bytearray(_CLIPS[kind])
    start = at % len(clip)
    clip[start : start + len(noise)] = noise
    try:
        samples = decode_clip(bytes(clip[: start + len(noise)] if cut else clip), 16_000)
    except AudioError as error:
        assert "/" not in str(error) and len(str(error)) < 200
    else:
        assert np.isfinite(samples).all() and len(samples) <= 30 * 16_000


_CLIPS = {kind: wav(1.5, 16_000, 1, kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}


# -- where clips come from -----------------------------------------------------------------------------------------------


def read(source: str | bytes, fetcher: Fetcher | None = None) -> bytes:
    return asyncio.run(read_source(source, fetcher or Fetcher()))


def test_data_urls() -> None:
    body = base64.b64encode(b"clip").decode()
    for head in ("data:audio/wav;base64,", "data:video/webm;codecs=opus;base64,", "DATA:audio/x-wav;BASE64,"):
        assert read(head + body) == b"clip"
    assert read(b"clip") == b"clip"


@pytest.mark.parametrize(
    "source",
    [
        "data:text/plain;base64,aGk=",
        "data:video/mp4;base64,aGk=",
        "data:,hi",
        "data:audio/wav,hi",
        "data:audio/wav;base64,%%%",
        "data:audio/wav;base64",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "/etc/passwd",
        "../voices/a.wav",
        "ftp://voices.example.org/a.wav",
        "http://voices.example.org/a.wav",
        "https://voices.example.org/a.wav",
    ],
)
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(AudioError, match="data:"):
        read(source)


def test_large_data_urls_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", 30)
    with pytest.raises(AudioError, match="larger"):
        read("data:audio/wav;base64," + "A" * 80)


# -- addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:93.184.216.34", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1", "::127.0.0.1", "nonsense", "",
    ],
)  # fmt: skip
def test_addresses_inside_are_known(address: str) -> None:
    assert is_inside(address)


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1:248:1893:25c8:1946"])
def test_addresses_outside_are_known(address: str) -> None:
    assert not is_inside(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://voices.example.org/a.wav",
        "https://voices.example.org:8443/a.wav",
        "https://user:secret@voices.example.org/a.wav",
        "https://evil.example.org/a.wav",
        "https://voices.example.org.evil.org/a.wav",
        "https://voices.example.org@evil.org/a.wav",
        "https://[::1]/a.wav",
        "https://127.0.0.1/a.wav",
        "https://voices.example.org:99999/",
        "https://voices.example.org/a b",
        "https://voices.example.org/\r\nX: y",
        "https://voices.example.org/" + "a" * 3_000,
    ],
)
def test_addresses_that_are_never_resolved(url: str) -> None:
    async def resolve(host: str) -> list[str]:
        raise AssertionError("resolved")

    with pytest.raises(AudioError):
        read(url, Fetcher(frozenset({HOST}), resolve=resolve))


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.1.2.3"], [PUBLIC, "169.254.169.254"], ["::ffff:10.0.0.1"], []]
)
def test_a_name_that_leads_inside_is_refused(addresses: list[str]) -> None:
    async def connect(address: str, host: str) -> Any:
        raise AssertionError("connected")

    async def resolve(host: str) -> list[str]:
        return addresses

    with pytest.raises(AudioError, match="not a public host"):
        read(f"https://{HOST}/a.wav", Fetcher(frozenset({HOST}), resolve, connect))


def answered(answer: bytes) -> tuple[bytes, list[str], bytes]:
    """Fetch from a server that answers with these bytes: what was fetched, the addresses that were connected to, the request."""
    connected: list[str] = []
    asked = bytearray()

    async def run() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.extend(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def connect(address: str, host: str) -> Any:
            connected.append(address)
            return await asyncio.open_connection("127.0.0.1", port)

        async with server:
            return await Fetcher(frozenset({HOST}), _public, connect).fetch(f"https://{HOST}/a.wav?x=1")

    return asyncio.run(run()), connected, bytes(asked)


async def _public(host: str) -> list[str]:
    return [PUBLIC]


def test_a_clip_is_fetched_from_the_checked_address() -> None:
    found, connected, asked = answered(b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 4\r\n\r\nclip")
    assert found == b"clip" and connected == [PUBLIC]
    assert asked.startswith(b"GET /a.wav?x=1 HTTP/1.1\r\n") and b"host: voices.example.org\r\n" in asked.lower()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "redirects"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", "not answer with audio"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 10000001\r\n\r\n", "larger"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n" + b"x" * 10_000_001, "larger"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 9\r\n\r\nclip", "HTTP|early"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "HTTP"),
        (b"", "HTTP|early"),
    ],
)  # fmt: skip
def test_answers_that_are_refused(answer: bytes, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        answered(answer)


def test_a_slow_host_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxcpm.server.references.fetch.TIME_LIMIT_S", 0.01)

    async def resolve(host: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(AudioError, match="took more than"):
        read(f"https://{HOST}/a.wav", Fetcher(frozenset({HOST}), resolve))


def test_real_speech(corpora: Path) -> None:
    clips = [path for kind in ("*.flac", "*.wav") for path in sorted(corpora.rglob(kind))[:2]]
    assert clips
    for path in clips:
        if path.stat().st_size < decode.MOST_BYTES:
            assert len(decode_clip(path.read_bytes(), 16_000)) >= 16_000
