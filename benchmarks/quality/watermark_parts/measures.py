"""The parts of the watermark benchmark. Each returns plain values for one clip, or for one key."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from attacks import attacks, changes_of_speed, resampled
from clips import Clip, Samples, loudest

from voxcpm.watermark import PUBLIC_KEY, Key, SpeechMark, detect, mark
from voxcpm.watermark.code import decode
from voxcpm.watermark.correlate import correlations, key_spectra, match, slot_energies, spectra_of
from voxcpm.watermark.features import RATE
from voxcpm.watermark.pattern import BANDS, FRAMES
from voxcpm.watermark.search import GRID, PLAIN, Window

TAIL = 6.5
"""Decoy scores above this are counted; below, they are not computed exactly."""

LENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)


def marked_clip(clip: Clip, number: int) -> tuple[Samples, int]:
    """Return (the clip marked with the public key, its payload)."""
    payload = int(np.random.default_rng(number).integers(1 << 16))
    return mark(clip.samples, clip.rate, payload, seed=number), payload


def _found(samples: Samples, rate: int, payload: int | None = None) -> list[Any]:
    """Return [score, whether the checksum fits, whether the payload is right] of the public key."""
    found = match(Window(resampled(samples, rate, RATE)).folded(), PUBLIC_KEY)
    return [found.score, found.fits, found.readable and found.payload == payload]


def after_attacks(clip: Clip, number: int, corpora: Path, folded: Path) -> dict[str, Any]:
    """Return {"marked" or "plain": {attack: what is found}} and, by seconds, the length curve. Unmarked cells are saved."""
    marked, payload = marked_clip(clip, number)
    found: dict[str, Any] = {"marked": {}, "plain": {}, "length": {}}
    cells = []
    for name, attack in attacks(corpora).items():
        found["marked"][name] = _found(attack(marked, clip.rate), clip.rate, payload)
        plain = Window(resampled(attack(clip.samples, clip.rate), clip.rate, RATE)).folded()
        cells.append(plain)
        best = match(plain, PUBLIC_KEY)
        found["plain"][name] = [best.score, best.fits]
    np.save(folded, np.stack(cells))
    for seconds in LENGTHS:
        found["length"][str(seconds)] = _found(loudest(marked, clip.rate, seconds), clip.rate, payload)
    return found


def at_other_speeds(clip: Clip, number: int) -> dict[str, Any]:
    """Return {attack: what the best point of the grid says}. Decoys are left out: they are in the null."""
    marked, payload = marked_clip(clip, number)
    found = {}
    for name, attack in changes_of_speed().items():
        samples = resampled(attack(marked, clip.rate), clip.rate, RATE)
        tried = [(match(Window(samples, *point).folded(), PUBLIC_KEY), point) for point in (PLAIN, *GRID)]
        best, point = max(tried, key=lambda pair: pair[0].score)
        found[name] = [best.score, best.fits, best.readable and best.payload == payload, *point]
    return found


def null_tail(folded: np.ndarray, number: int) -> dict[str, Any]:
    """Return {"trials", "tail": [[score, fits]]} of one decoy key, in all rotations, on cells [clips, 2, FRAMES, BANDS].

    A trial is one key on one clip after one attack: the best of all phases and both offsets, as a detector sees it.
    """
    key = key_spectra(Key("decoy", b"decoy of the benchmark %08d" % number))
    tail: list[list[Any]] = []
    for pair in folded:
        spectra = spectra_of(pair)
        turned = np.concatenate([np.roll(spectra, turn, axis=2) for turn in range(1, BANDS)], axis=1)
        found = correlations(turned, key)
        spread = np.sqrt(np.maximum(np.tile(slot_energies(pair), (BANDS - 1, FRAMES // 2)), 1e-9))
        rows, phases = np.nonzero(found[..., 0] + np.abs(found[..., 1:]).sum(axis=2) > TAIL * spread)
        if not len(rows):
            continue
        _, fits, scores = decode(found[rows, phases, 1:])
        scores = (scores + found[rows, phases, 0]) / spread[rows, phases]
        for trial in np.unique(rows // len(pair)):
            own = np.flatnonzero(rows // len(pair) == trial)
            best = own[scores[own].argmax()]
            if scores[best] > TAIL:
                tail.append([round(float(scores[best]), 3), bool(fits[best])])
    return {"trials": len(folded) * (BANDS - 1), "tail": tail}


@cache
def _models() -> tuple[Any, Any]:
    from catalogs.weights.registry import resolve
    from evaluation.metrics.quality.dnsmos import DnsmosMetric
    from pipeline.voice.ge2e import Ge2e

    dnsmos = DnsmosMetric()
    dnsmos.load()
    return Ge2e(resolve("ge2e")), dnsmos


def quality(plain: Samples, marked: Samples, rate: int) -> dict[str, float]:
    """Return what marking costs: SNR dB, PESQ, STOI, cosine of the voices, difference of DNSMOS."""
    from pesq import pesq
    from pystoi import stoi

    encoder, dnsmos = _models()
    before, after = (resampled(samples, rate, 16_000) for samples in (plain, marked))
    voices = [prints.mean(axis=0) for prints in encoder.partials([before, after])]
    return {
        "snr": float(10 * np.log10((plain**2).sum() / ((marked - plain) ** 2).sum())),
        "pesq": float(pesq(16_000, before, after, "wb")),
        "stoi": float(stoi(before, after, 16_000)),
        "cosine": float(voices[0] @ voices[1] / np.linalg.norm(voices[0]) / np.linalg.norm(voices[1])),
        "dnsmos": float(dnsmos.rate(after)["dnsmos_ovrl"] - dnsmos.rate(before)["dnsmos_ovrl"]),
    }


def cost(clip: Clip) -> dict[str, float]:
    """Return the real-time factors of one core: embedding in chunks of 160 ms, detection with its decoys."""
    seconds = len(clip.samples) / clip.rate
    watermark, step = SpeechMark(1), round(0.16 * clip.rate)
    state, start = watermark.start(clip.rate), time.thread_time()
    for at in range(0, len(clip.samples), step):
        _, state = watermark.mark(clip.samples[at : at + step], state)
    watermark.finish(state)
    embedded = time.thread_time()
    detect(clip.samples, clip.rate)
    found = time.thread_time()
    return {"embed": (embedded - start) / seconds, "detect": (found - embedded) / seconds}
