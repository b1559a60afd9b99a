"""The payload's code: 16 bits and a CRC-8, in two words of the extended binary Golay code (24, 12, 8), interleaved.

Bits are signs in code words: +1 and -1.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CODE_BITS = 48
"""Code bits of a payload."""

PAYLOADS = 1 << 16
"""Number of payloads."""

_GENERATOR = 0b110001110101
"""x^11 + x^10 + x^6 + x^5 + x^4 + x^2 + 1, the generator of the cyclic Golay code of length 23."""

_CRC = 0x107
"""x^8 + x^2 + x + 1."""

_CANDIDATES = 3
"""Words of each half that `recover` tries."""

_CRC_START = 0xA5
"""Start value of the checksum, so that the payload 0 has a checksum that is not 0."""


def payload_of(digest_hex: str) -> int:
    """Return the payload of a checkpoint: the first 16 bits of its digest. Raises ValueError if it has fewer than 4 hex digits."""
    if len(digest_hex) < 4:
        raise ValueError(f"digest {digest_hex!r} has fewer than 4 hexadecimal digits")
    return int(digest_hex[:4], 16)


def checksum(payload: int) -> int:
    """Return the CRC-8 of 16 bits."""
    value = (_CRC_START << 16) ^ (payload << 8)
    for bit in range(23, 7, -1):
        if value >> bit & 1:
            value ^= _CRC << (bit - 8)
    return value & 0xFF


def encode(payload: int) -> NDArray[np.int8]:
    """Return the code bits [48] of a payload as signs. Raises ValueError if it is not in 0..65535."""
    if not 0 <= payload < PAYLOADS:
        raise ValueError(f"watermark payload {payload} is not in 0..{PAYLOADS - 1}")
    bits = payload << 8 | checksum(payload)
    both = golay_words()[[bits >> 12, bits & 0xFFF]]
    return both.T.reshape(CODE_BITS).copy()


def decode(soft: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_], Floats]:
    """Return (payloads [N], whether the checksum fits [N], scores [N]) of soft code bits [N, 48], by maximum likelihood.

    The score is the sum of the soft bits, each times the sign that the best code words have there.
    """
    firsts, first_scores = _best_words(soft[:, 0::2])
    seconds, second_scores = _best_words(soft[:, 1::2])
    bits = firsts << 12 | seconds
    payloads = bits >> 8
    fits = _checksums()[payloads] == (bits & 0xFF)
    return payloads, fits, first_scores + second_scores


def recover(soft: Floats) -> int | None:
    """Return the payload of soft code bits [48] by the likeliest pair of words whose checksum fits, None if none of the first does.

    Of `_CANDIDATES` words each. Each pair fits by chance once in 256 times.
    """
    scores = [golay_words().astype(np.float32) @ soft[word::2] for word in (0, 1)]
    tops = [np.argsort(-each, kind="stable")[:_CANDIDATES].tolist() for each in scores]
    pairs = sorted(product(*tops), key=lambda pair: -float(scores[0][pair[0]] + scores[1][pair[1]]))
    for first, second in pairs:
        payload, rest = divmod(first << 12 | second, 256)
        if checksum(payload) == rest:
            return payload
    return None


def _best_words(soft: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return (data [N], scores [N]) of the most likely words of soft bits [N, 24]. The complement of a word is a word, too."""
    scores = np.ascontiguousarray(soft) @ _half_words()
    high, low = scores.argmax(axis=1), scores.argmin(axis=1)
    rows = np.arange(len(scores))
    top, bottom = scores[rows, high], -scores[rows, low]
    data, complements = _half_data()
    return np.where(top >= bottom, data[high], complements[low]), np.maximum(top, bottom)


@cache
def golay_words() -> NDArray[np.int8]:
    """Return the words [4096, 24] of 12 data bits as signs: a data bit 1 is +1. Different words differ in 8 places at least."""
    data = np.arange(4096)
    words = np.zeros(4096, np.int64)
    for bit in range(12):
        # Products of polynomials over two elements.
        words ^= np.where(data >> bit & 1, _GENERATOR << bit, 0)
    bits = words[:, None] >> np.arange(23) & 1
    bits = np.concatenate((bits, bits.sum(axis=1, keepdims=True) & 1), axis=1)
    return (2 * bits - 1).astype(np.int8)


@cache
def _half_data() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (data of one word of each pair of complements [2048], data of the other words [2048])."""
    words = golay_words()
    packed = (words > 0) @ (1 << np.arange(24))
    places = {int(word): data for data, word in enumerate(packed)}
    data = np.flatnonzero(words[:, 0] > 0)
    return data, np.array([places[int(~packed[word] & 0xFFFFFF)] for word in data])


@cache
def _half_words() -> Floats:
    """Return one word of each pair of complements as columns [24, 2048]."""
    return np.ascontiguousarray(golay_words()[_half_data()[0]].T.astype(np.float32))


@cache
def _checksums() -> NDArray[np.int64]:
    """Return the CRC-8 of every payload. The checksum of a sum (XOR) of payloads is the sum of theirs, less that of 0."""
    found = np.full(PAYLOADS, checksum(0))
    for bit in range(16):
        found ^= np.where(np.arange(PAYLOADS) >> bit & 1, checksum(1 << bit) ^ checksum(0), 0)
    return found
