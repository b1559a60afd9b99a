"""Marked speech is found with its payload, also after it was compressed; unmarked speech and other keys are not."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from av.audio.stream import AudioStream
from fakes.watermark_speech import Samples, babble, speech
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from voxcpm.watermark import PUBLIC_KEY, Detection, Detector, Key, detect, detect_blocks, mark, new_key
from voxcpm.watermark.correlate import decoy_scores, match
from voxcpm.watermark.search import Window
from voxcpm.watermark.thresholds import MARKED, MARKED_WITH_PAYLOAD, TENFOLD, passes

UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example takes a while, and a smaller one would say as little."""

OTHER = Key("other", b"a key that nothing here is marked with")


def found(samples: Samples, rate: int, keys: tuple[Key, ...] = (PUBLIC_KEY,)) -> Detection:
    """Return what is found of the first key."""
    return detect(samples, rate, keys)[0]


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 47_999, 48_000])
def test_speech_of_any_rate(corpora: Path, rate: int) -> None:
    samples = speech(corpora, rate=rate, seconds=3)
    marked = found(mark(samples, rate, 0xC0DE, seed=1), rate)
    assert marked.marked
    assert marked.payload == 0xC0DE
    assert marked.p_value == 1 / 64
    assert marked.z > 10
    plain = found(samples, rate)
    assert not plain.marked
    assert plain.payload is None
    assert plain.spans == ()


def test_quiet_cells_are_read_too(corpora: Path) -> None:
    """In the first 3 s of this clip, half of the cells are more than 75 dB below the loudest one: pauses, and high bands."""
    name = "world/multilingual/comfy-f5-thai__slow.flac"
    samples = speech(corpora, name, rate=24_000, seconds=3)
    for seed in range(4):
        narrow = soxr.resample(mark(samples, 24_000, 0xC0DE, seed=seed), 24_000, 8_000)
        assert found(narrow, 8_000).payload == 0xC0DE, seed
    assert not found(soxr.resample(samples, 24_000, 8_000), 8_000).marked


@settings(max_examples=8, phases=UNSHRUNK)
@given(st.integers(0, 65_535), st.binary(min_size=16, max_size=40), st.integers(0, 999))
def test_any_payload_and_any_key(payload: int, secret: bytes, seed: int) -> None:
    key = Key("some", secret)
    marked = found(mark(babble(3, 16_000, seed), 16_000, payload, [key], seed), 16_000, (key,))
    assert marked.marked
    assert marked.payload == payload


def test_two_keys_are_both_readable_and_a_third_is_not_there(corpora: Path) -> None:
    private = new_key("mine")
    samples = mark(speech(corpora), 16_000, 0x1234, (PUBLIC_KEY, private), seed=2)
    public, mine, other = detect(samples, 16_000, (PUBLIC_KEY, private, OTHER))
    assert (public.key, mine.key, other.key) == ("public", "mine", "other")
    assert public.payload == mine.payload == 0x1234
    assert not other.marked
    assert private.secret.hex() not in repr((public, mine, other))


def test_a_second_mark_leaves_the_first(corpora: Path) -> None:
    samples = mark(mark(speech(corpora), 16_000, 1, seed=3), 16_000, 2, [OTHER], seed=4)
    assert [detection.payload for detection in detect(samples, 16_000, (PUBLIC_KEY, OTHER))] == [1, 2]


def compressed(samples: Samples, rate: int, codec: str, container: str, bit_rate: int) -> Samples:
    """Return the samples after a codec."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: AudioStream = output.add_stream(codec, rate=rate, layout="mono")  # type: ignore[assignment]
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        resampler = av.AudioResampler(stream.format.name, "mono", rate, frame_size=stream.frame_size or 1152)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as source:
        back = av.AudioResampler("fltp", "mono", rate)
        frames = [part.to_ndarray()[0] for frame in source.decode(audio=0) for part in back.resample(frame)]
    return np.concatenate(frames).astype(np.float32)


@pytest.mark.parametrize(
    ("codec", "container", "bit_rate"),
    [("libmp3lame", "mp3", 64_000), ("libmp3lame", "mp3", 32_000), ("aac", "adts", 64_000), ("libopus", "ogg", 24_000)],
)
def test_after_a_codec(corpora: Path, codec: str, container: str, bit_rate: int) -> None:
    samples = speech(corpora, rate=48_000, seconds=4)
    marked = found(compressed(mark(samples, 48_000, 0xABCD, seed=5), 48_000, codec, container, bit_rate), 48_000)
    assert marked.marked
    assert marked.payload == 0xABCD
    assert not found(compressed(samples, 48_000, codec, container, bit_rate), 48_000).marked


def test_a_thorough_search_finds_another_speed(corpora: Path) -> None:
    rate = 16_000
    faster = soxr.resample(mark(speech(corpora, seconds=2.5), rate, 0x5EED, seed=6), rate * 1.05, rate)
    assert not found(faster, rate).marked
    (thorough,) = detect(faster, rate, thorough=True)
    assert thorough.marked
    assert thorough.payload == 0x5EED
    assert thorough.speed == pytest.approx(1.05, abs=0.006)
    assert thorough.tempo == 1


@pytest.mark.parametrize(
    "samples", [np.zeros(0), np.zeros(400), np.zeros(50_000), np.full(30_000, 0.3), np.full(9_000, np.nan)]
)
def test_silence_has_no_mark(samples: Samples) -> None:
    plain = found(samples, 16_000)
    assert not plain.marked
    assert plain.p_value > 0.1
    assert np.isfinite(plain.z)


def test_short_clips_raise_nothing(corpora: Path) -> None:
    for seconds in (0.01, 0.05, 0.1, 0.5):
        samples = mark(speech(corpora, start=2, seconds=seconds), 16_000, 1)
        assert 0 < detect(samples, 16_000)[0].p_value <= 1


def test_tones_and_clicks_have_no_mark() -> None:
    time = np.arange(64_000) / 16_000
    clicks = (np.arange(64_000) % 4_000 == 0).astype(np.float32)
    for samples in (np.sin(2 * np.pi * 440 * time), np.sin(300 * time * (1 + time)), clicks, babble(4, 16_000)):
        assert not found(samples.astype(np.float32), 16_000).marked


def test_marked_spans_of_a_long_file(corpora: Path) -> None:
    samples, rate = speech(corpora, "long/two_cities.flac", seconds=40), 16_000
    for start, end, payload in ((10, 14, 7), (14, 17.5, 7), (30, 36, 7)):
        samples[start * rate : round(end * rate)] = mark(
            samples[start * rate : round(end * rate)], rate, payload, seed=start
        )
    marked = found(samples, rate)
    assert marked.payload == 7
    (first, last), (second, end) = marked.spans
    assert first == pytest.approx(10, abs=0.8)
    assert last == pytest.approx(17.5, abs=0.8)
    assert second == pytest.approx(30, abs=0.8)
    assert end == pytest.approx(36, abs=0.8)


def test_a_weak_mark_shows_in_the_sum_over_the_file(corpora: Path) -> None:
    samples, rate = speech(corpora, "long/two_cities.flac", seconds=40), 16_000
    noise = np.random.default_rng(0).normal(size=len(samples)).astype(np.float32)
    noise *= 10 ** (-WEAK_DB / 20) * np.sqrt((samples**2).mean())
    marked = mark(samples, rate, 0xFACE, seed=7) + noise
    windows = [found(marked[at : at + 5 * rate], rate).marked for at in range(0, len(marked), 5 * rate)]
    assert sum(windows) < len(windows)
    assert found(marked, rate).payload == 0xFACE
    assert not found(samples + noise, rate).marked


WEAK_DB = 6
"""Speech over white noise."""


@settings(max_examples=4, phases=UNSHRUNK)
@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=20), st.sampled_from([16_000, 22_050]))
def test_blocks_of_any_length_give_the_same(cuts: list[int], rate: int) -> None:
    samples = mark(babble(9, rate), rate, 77, seed=1)
    whole = found(samples, rate)
    parts = np.split(samples, np.minimum(np.cumsum(cuts), len(samples)))
    (blocks,) = detect_blocks(parts, rate)
    assert (blocks.payload, blocks.marked, blocks.spans) == (77, True, whole.spans)
    assert blocks.z == pytest.approx(whole.z, abs=0.05)


def test_memory_does_not_grow_with_the_file() -> None:
    detector, noise = Detector(48_000), babble(6, 48_000)
    for _ in range(4):
        detector.push(noise)
        assert len(detector._held) < 3 * 40_960
    assert not detector.finish()[0].marked


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="one channel"):
        detect(np.zeros((1000, 2), np.float32), 16_000)
    with pytest.raises(ValueError, match="not 0"):
        detect(np.zeros(1000, np.float32), 0)
    with pytest.raises(ValueError, match="0 to 63"):
        decoy_scores(Window(babble(1, 16_000)).folded(), PUBLIC_KEY, 64)


def test_without_decoys_the_fixed_thresholds_decide(corpora: Path) -> None:
    samples = speech(corpora)
    for audio in (samples, mark(samples, 16_000, 0xFACE, seed=2)):
        (fast,), (whole,) = (detect_blocks([audio], 16_000, decoys=count) for count in (0, 63))
        assert (fast.marked, fast.payload, fast.spans, fast.z) == (whole.marked, whole.payload, whole.spans, whole.z)
        assert fast.p_value == 1.0
    with pytest.raises(ValueError, match="0 to 63"):
        Detector(16_000, decoys=64)


def test_decoys_score_as_wrong_keys_do(corpora: Path) -> None:
    folded = Window(speech(corpora)).folded()
    decoys = decoy_scores(folded, OTHER, 63)
    wrong = [match(folded, Key("wrong", b"wrong key number %03d" % number)).score for number in range(40)]
    assert np.mean(wrong) == pytest.approx(decoys.mean(), abs=0.3)
    assert max(*wrong, *decoys) < MARKED_WITH_PAYLOAD


def test_a_floor_changes_no_decoy_above_it(corpora: Path) -> None:
    folded = Window(speech(corpora, seconds=3)).folded()
    exact = decoy_scores(folded, OTHER, 63)
    floor = float(np.median(exact))
    np.testing.assert_allclose(decoy_scores(folded, OTHER, 63, floor), np.maximum(exact, floor), rtol=1e-5)


def test_thresholds_rise_with_the_number_of_searches() -> None:
    assert passes(MARKED + 0.01, payload_fits=False)
    assert not passes(MARKED - 0.01, payload_fits=False)
    assert passes(MARKED_WITH_PAYLOAD + 0.01, payload_fits=True)
    assert not passes(MARKED + TENFOLD - 0.01, payload_fits=False, searches=10)
