"""The payload's code and the key's pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxcpm.watermark import PUBLIC_KEY, Key, payload_of
from voxcpm.watermark.code import CODE_BITS, checksum, decode, encode, golay_words, recover
from voxcpm.watermark.pattern import BANDS, FRAMES, PILOT, SLOTS, band_edges, pattern_of

PAYLOADS = st.integers(0, 65_535)
FIRST_CHIPS = [1, -1, -1, -1, -1, -1, -1, -1, 1, 1, 1, -1, 1, -1, 1, 1]
FIRST_GROUPS = [1, 0, 2, 0, 3, 2, 1, 0, 0, 0, 0, 0, 1, 3, 0, 2]


@given(PAYLOADS, st.data())
def test_three_errors_per_word_are_corrected(payload: int, data: st.DataObject) -> None:
    soft = encode(payload).astype(np.float32)
    for word in (0, 1):
        wrong = data.draw(st.lists(st.integers(0, 23), max_size=3, unique=True))
        soft[word::2][wrong] *= -1
    payloads, fits, scores = decode(soft[None])
    assert payloads[0] == payload
    assert fits[0]
    assert scores[0] >= CODE_BITS - 2 * 6


@given(PAYLOADS, st.integers(0, 758))
def test_a_word_that_loses_by_little_is_recovered_by_the_checksum(payload: int, neighbor: int) -> None:
    right = encode(payload).astype(np.float32)
    wrong = right.copy()
    # Each word has 759 neighbors, which differ in 8 places.
    data = int(np.flatnonzero(golay_words() @ right[0::2] == 24 - 2 * 8)[neighbor])
    wrong[0::2] = golay_words()[data]
    soft = 0.49 * right + 0.51 * wrong
    payloads, fits, _ = decode(soft[None])
    assert payloads[0] >> 4 == data
    if not fits[0]:
        assert recover(soft) == payload
    assert recover(right) == payload


def test_what_is_far_from_all_words_is_rarely_recovered() -> None:
    soft = np.random.default_rng(1).normal(size=(500, CODE_BITS)).astype(np.float32)
    assert sum(recover(row) is not None for row in soft) < 40


def test_golay_words_differ_in_eight_places() -> None:
    words = golay_words().astype(np.int32)
    distances = (24 - words[:64] @ words.T) // 2
    assert set(np.unique(distances)) == {0, 8, 12, 16, 24}
    assert (words == np.where(words > 0, 1, -1)).all()


@given(PAYLOADS, st.integers(1, 65_535))
def test_the_checksum_finds_bursts_of_eight_bits(payload: int, burst: int) -> None:
    if burst < 256:
        assert checksum(payload ^ burst) != checksum(payload)
    bits = f"{payload:016b}"
    assert checksum(payload) == _division(bits)


def _division(bits: str) -> int:
    """Return the CRC-8 as its definition says, bit by bit."""
    register = 0xA5
    for bit in bits:
        register ^= int(bit) << 7
        register = (register << 1 ^ (0x07 if register & 0x80 else 0)) & 0xFF
    return register


def test_one_of_256_random_words_has_a_fitting_checksum() -> None:
    soft = np.random.default_rng(0).normal(size=(20_000, CODE_BITS)).astype(np.float32)
    assert 40 < decode(soft)[1].sum() < 130


@pytest.mark.parametrize("payload", [-1, 65_536])
def test_a_payload_has_sixteen_bits(payload: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.65535"):
        encode(payload)


def test_the_payload_of_a_checkpoint_is_the_start_of_its_digest() -> None:
    assert payload_of("6aedf31705ee3058") == 0x6AED
    with pytest.raises(ValueError, match="fewer than 4"):
        payload_of("6a")


def test_a_pattern_is_balanced_and_belongs_to_its_secret() -> None:
    pattern = pattern_of(PUBLIC_KEY)
    for group, size in enumerate((22, 14, 14, 14)):
        inside = pattern.groups == group
        assert (inside.sum(axis=1) == size).all()
        assert ((pattern.chips * inside).sum(axis=1) == 0).all()
    renamed = pattern_of(Key("another name", PUBLIC_KEY.secret))
    assert (renamed.chips == pattern.chips).all()
    # The published pattern: files that are marked today must be found by every later version.
    assert pattern.chips[0, :16].tolist() == FIRST_CHIPS
    assert pattern.groups[0, :16].tolist() == FIRST_GROUPS


@given(PAYLOADS)
def test_the_planes_add_up_to_the_signs(payload: int) -> None:
    pattern = pattern_of(PUBLIC_KEY)
    bits = np.concatenate((np.ones(1, np.int8), encode(payload)))
    np.testing.assert_array_equal(np.tensordot(bits, pattern.planes(), 1), pattern.signs(payload))


def test_no_key_of_a_thousand_resembles_another_or_itself_at_another_time() -> None:
    pilots = np.stack([_pilot(Key("some", b"a key of the test %05d" % number)) for number in range(1000)])
    spectra = np.fft.rfft(pilots, axis=1)
    norm = (pilots**2).sum(axis=(1, 2))
    own = np.fft.irfft((np.abs(spectra) ** 2).sum(axis=2), SLOTS, axis=1) / norm[:, None]
    np.testing.assert_allclose(own[:, 0], 1, rtol=1e-6)
    assert np.abs(own[:, 1:]).max() < 0.25
    public = np.fft.rfft(_pilot(PUBLIC_KEY), axis=0).conj()
    other = np.fft.irfft((spectra * public).sum(axis=2), SLOTS, axis=1) / norm[:, None]
    assert np.abs(other).max() < 0.25
    assert len(np.unique(pilots.reshape(1000, -1), axis=0)) == 1000


def _pilot(key: Key) -> np.ndarray:
    pattern = pattern_of(key)
    return np.where(pattern.groups == PILOT, pattern.chips, 0).astype(np.float32)


def test_bands_reach_from_300_to_7000_hz() -> None:
    edges = band_edges()
    assert len(edges) == BANDS + 1
    assert edges[0] == 300
    assert 6_700 < edges[-1] < 7_200
    assert np.diff(edges).min() == 75
    assert FRAMES == 2 * SLOTS
