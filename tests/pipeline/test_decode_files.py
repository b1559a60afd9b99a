"""Opening recordings: every kind of container and fault, the mixdown, and what becomes of damaged and cut-off files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from fakes.recordings import noise, tone, write
from sessions import session_of

from pipeline.audio.open import AudioFileError, StreamReport, probe, probe_seconds, stream_mono
from pipeline.stages.decode import Decode, DecodeConfig

# Faults that end in quarantine, with the words a person reads; every other file of the folder must be usable.
REFUSED = {
    "corrupted_bytes.flac": "damaged: 1.5 of 2.5 s decode",
    "git_lfs_pointer.wav": "a Git LFS pointer, not the recording itself: run `git lfs pull` in its repository",
    "header_only.wav": "has no samples",
    "html_error_page.wav": "a web page or XML text, not audio (a failed download?)",
    "random_bytes.mp3": "not audio that can be read (invalid data found when processing input)",
    "text_as_audio.flac": "plain text, not audio",
    "truncated.flac": "truncated: 0.7 of 2.5 s decode",
    "truncated_header_says_more.wav": "truncated: 1.2 of 2.5 s decode",
    "zero_length.wav": "the file is empty (0 bytes)",
}


def mono(path: Path) -> tuple[np.ndarray, StreamReport]:
    report = StreamReport()
    parts = list(stream_mono(str(path), report=report))
    return np.concatenate(parts), report


def test_every_broken_file_is_used_or_refused_in_one_readable_line(corpora: Path, capfd: object) -> None:
    paths = sorted((corpora / "world/broken").iterdir())
    session = Decode(DecodeConfig())(session_of(*paths))
    assert len(session.recordings) == 53
    reasons = {Path(row.path).name: row.error for row in session.quarantine}
    assert reasons == REFUSED
    for recording in session.usable():
        seconds = sum(len(w.pcm) for w in session.windows if w.source_id == recording.source.source_id) / 16_000
        assert seconds == pytest.approx(recording.duration_s, abs=1e-3) and recording.sample_rate >= 8_000
    assert capfd.readouterr() == ("", ""), "a decoder wrote to the terminal"  # type: ignore[attr-defined]


def test_every_container_gives_the_same_speech(corpora: Path) -> None:
    folder = corpora / "world/broken"
    expected, _ = mono(folder / "speech.ogg")
    for name in ("speech.m4a", "speech.aac", "speech_32k.mp3", "mp3_named_wav.wav"):
        found, _ = mono(folder / name)
        lag = int(np.argmax(np.correlate(found[8000:40000], expected[8000 + 1600 : 40000 - 1600], "valid"))) - 1600
        found, wanted = found[max(0, lag) :][:56_000], expected[max(0, -lag) :][:56_000]
        assert abs(lag) <= 1600 and np.corrcoef(found, wanted)[0, 1] > 0.95, name


def test_sixteen_bit_samples_come_through_exactly(tmp_path: Path) -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32768, 50_000).astype(np.int16)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, pcm, 44_100, subtype="PCM_16")
        samples, report = mono(tmp_path / name)
        assert np.array_equal(np.rint(samples * 32768).astype(np.int16), pcm) and report.samples == len(pcm)


def test_channels_are_mixed_unless_they_cancel(tmp_path: Path) -> None:
    voice, other = noise(3, 16_000), noise(3, 16_000, seed=1)
    empty = np.zeros_like(voice)
    cases = {
        "same": ([voice, voice], voice, None),
        "one side": ([voice, empty], voice / 2, None),
        "two voices": ([voice, other], (voice + other) / 2, None),
        "inverted": ([voice * 0.9, -voice], -voice, 1),
        "5.1": ([empty, empty, voice, empty, empty, empty], voice / 6, None),
    }
    for name, (channels, expected, channel) in cases.items():
        samples, report = mono(write(tmp_path / f"{name}.wav", np.stack(channels, axis=1), 16_000, "FLOAT"))
        assert report.channel == channel, name
        assert np.allclose(samples, expected, atol=1e-6), name


def test_inverted_channels_are_found_after_a_silent_beginning(tmp_path: Path) -> None:
    voice = np.concatenate([np.zeros(15 * 8_000, np.float32), noise(30, 8_000)])
    samples, report = mono(write(tmp_path / "a.wav", np.stack([voice, -voice], axis=1), 8_000))
    assert report.channel is not None and np.abs(samples[16 * 8_000 :]).max() > 0.2


def test_a_constant_offset_is_taken_away_exactly(tmp_path: Path) -> None:
    pcm = (noise(2, 16_000) * 32767).astype(np.int16)
    pcm -= int(np.median(pcm))
    write(tmp_path / "a.wav", (pcm + 8_000).astype(np.int16), 16_000)
    samples, report = mono(tmp_path / "a.wav")
    assert report.offset == pytest.approx(8_000 / 32768, abs=2 / 32768)
    assert np.ptp(np.rint(samples * 32768).astype(int) - pcm) == 0, "what is left is the recording, to the bit"
    lopsided = np.maximum(noise(2, 16_000), -0.01)
    _, report = mono(write(tmp_path / "b.wav", lopsided, 16_000))
    assert report.offset == 0.0


def test_peaks_above_full_scale_are_turned_down_and_not_cut_off(tmp_path: Path) -> None:
    loud = tone(200, 12, 16_000, level=2.5)
    samples, report = mono(write(tmp_path / "a.wav", loud, 16_000, "FLOAT"))
    assert report.gain == pytest.approx(0.4, rel=1e-3) and np.allclose(samples, loud * report.gain, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_with_their_place(tmp_path: Path, value: float) -> None:
    samples = noise(12, 16_000)
    samples[11 * 16_000] = value
    path = write(tmp_path / "a.wav", samples, 16_000, "FLOAT")
    with pytest.raises(AudioFileError, match=r"NaN or infinite, first at 11\.00 s"):
        mono(path)


@pytest.mark.parametrize(("rate", "usable"), [(3_999, False), (4_000, True), (192_000, True), (800_000, False)])
def test_rates_outside_the_limits_are_refused(tmp_path: Path, rate: int, usable: bool) -> None:
    path = write(tmp_path / "a.wav", noise(0.1, rate), rate)
    if usable:
        assert probe(str(path)).sample_rate == rate
    else:
        with pytest.raises(AudioFileError, match=f"sample rate {rate} Hz is outside 4000-768000 Hz"):
            probe(str(path))


def test_a_file_of_zeros_and_a_file_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "zeros.wav").write_bytes(bytes(3 << 20))
    with pytest.raises(AudioFileError, match="nothing but zero bytes"):
        probe(str(tmp_path / "zeros.wav"))
    with pytest.raises(AudioFileError, match="the file is gone"):
        probe(str(tmp_path / "gone.wav"))
    assert probe_seconds(str(tmp_path / "gone.wav")) == 0.0


def video(path: Path, sound: np.ndarray | None) -> Path:
    """A short video, with a sound track where `sound` (int16 [S] at 48 kHz) is given."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("aac", rate=48_000, layout="mono") if sound is not None else None
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        if track is not None and sound is not None:
            heard = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            heard.sample_rate = 48_000
            container.mux([*track.encode(heard), *track.encode()])
    return path


def test_the_sound_of_a_video_is_used_and_a_silent_film_refused(tmp_path: Path) -> None:
    sound = (tone(440, 1.0, 48_000) * 32767).astype(np.int16)
    samples, _ = mono(video(tmp_path / "film.mp4", sound))
    spectrum = np.abs(np.fft.rfft(samples[4800:43200]))
    assert len(samples) >= 48_000 and np.argmax(spectrum) * 48_000 / 38_400 == pytest.approx(440, abs=2)
    with pytest.raises(AudioFileError, match="has no audio stream"):
        probe(str(video(tmp_path / "silent.mp4", None)))


def test_g722_has_no_header_and_is_known_by_its_name(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.g722"), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone(440, 1.0, 16_000) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode()])
    samples, _ = mono(tmp_path / "a.g722")
    assert len(samples) == pytest.approx(16_000, abs=400) and np.sqrt(np.mean(samples**2)) == pytest.approx(
        0.35, abs=0.03
    )


def decoded(path: Path) -> tuple[str, float, str]:
    """(status, seconds, reason or notice) of one file after `decode`."""
    session = Decode(DecodeConfig())(session_of(path))
    words = [row.error for row in session.quarantine] + session.notices
    return session.recordings[0].status, session.recordings[0].duration_s, "; ".join(words)


@pytest.mark.parametrize(("ending", "rate"), [("wav", 16_000), ("flac", 16_000), ("mp3", 16_000)])
def test_a_file_cut_short_is_used_while_nine_tenths_of_it_decode(tmp_path: Path, ending: str, rate: int) -> None:
    samples = noise(60, rate, level=0.05)
    whole = tmp_path / f"whole.{ending}"
    if ending == "mp3":
        soundfile.write(whole, samples, rate, format="MP3")
    else:
        write(whole, samples, rate)
    data = whole.read_bytes()
    status, seconds, words = decoded(whole)
    assert (status, words) == ("ok", "") and seconds == pytest.approx(60, abs=0.2)
    for share, expected in ((0.95, "ok"), (0.6, "quarantined")):
        path = tmp_path / f"cut.{ending}"
        path.write_bytes(data[: int(len(data) * share)])
        status, seconds, words = decoded(path)
        assert status == expected and seconds == pytest.approx(60 * share, abs=0.5), words
        if expected == "ok":
            assert "cut short, the last 3." in words or "cut short, the last 2.9" in words
        else:
            assert words.startswith("truncated: 3") and words.endswith(" of 60.0 s decode")


def test_a_wav_written_to_a_pipe_promises_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(3, 16_000), 16_000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert decoded(path) == ("ok", 3.0, "")


def test_damage_in_the_middle_leaves_everything_after_it_in_its_place(tmp_path: Path) -> None:
    pcm = (noise(60, 16_000, level=0.1) * 32767).astype(np.int16)
    path = tmp_path / "a.flac"
    soundfile.write(path, pcm, 16_000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2_000] = bytes(2_000)
    path.write_bytes(data)
    samples, report = mono(path)
    found = np.rint(samples * 32768).astype(np.int16)
    assert len(found) == len(pcm) and 0 < report.lost < 16_000
    assert np.array_equal(found[: 29 * 16_000], pcm[: 29 * 16_000])
    assert np.array_equal(found[31 * 16_000 :], pcm[31 * 16_000 :])
    status, _, words = decoded(path)
    assert status == "ok" and "damaged" in words


def test_hours_of_audio_take_the_memory_of_minutes(tmp_path: Path) -> None:
    rate = 8_000
    with soundfile.SoundFile(tmp_path / "long.wav", "w", rate, 2, "PCM_16") as file:
        minute = np.stack([noise(60, rate, level=0.1)] * 2, axis=1)
        for _ in range(60):
            file.write(minute)
    tracemalloc.start()
    total = sum(len(chunk) for chunk in stream_mono(str(tmp_path / "long.wav")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 3600 * rate
    # An hour is 230 MB as stereo float32; 30 s of it are held while the channels are judged.
    assert peak < 25e6
