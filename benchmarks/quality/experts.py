"""Experts: expressiveness, arousal and age on the labeled corpora, and what the measures cost. Gender: gender.py beside.

    python benchmarks/quality/experts.py         # about half a minute on one core

Area under the curve, of emotional against neutral or calm clips (all emotions; strong: angry, happy, fearful, surprised), each
actor's clips pooled as one voice. "expressive_p" is the pipeline's column, whose weights were chosen while looking at RAVDESS,
EmoDB and nEMO. "score" adds the pitch above the voice's rest (annotators.experts.emotion). "left out" fits the four measures of
`expressive_p` on the strong emotions of the other corpora, and "raised" is the pitch above the voice's rest alone, without any
fit. "three pooled" ranks the clips of all three corpora together.
Exits with 1 if strong emotions are not found on one of the three by the fit that leaves it out.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gender import fit
from labeled import Clock, Measured, measured, rows

from annotators.experts.emotion import PROVEN, aroused_p, expressive_score, resting_pitch
from pipeline.stages.classify_emotion import expressive_p

_CALM = {"neutral", "calm"}
_LOW = _CALM | {"sad", "sadness"}
_STRONG = {"angry", "anger", "happy", "happiness", "fearful", "fear", "surprised", "surprise"}
_THREE = ("RAVDESS", "EmoDB", "nEMO")
_ACTED = {"RAVDESS": "en", "EmoDB": "de", "nEMO": "pl", "TESS": "en", "KAIST-Selvas-Emotional": "ko"}


def report_emotion(clips: Sequence[Measured]) -> bool:
    """Print expressiveness and arousal; return True if strong emotions are found on RAVDESS, EmoDB and nEMO."""
    acted = [clip for clip in clips if clip.corpus in _ACTED and clip.emotion]
    voices: dict[tuple[str, str], list[float]] = defaultdict(list)
    for clip in acted:
        voices[clip.corpus, clip.voice].append(clip.prosody.pitch_hz)
    rest = {key: resting_pitch(pitches) for key, pitches in voices.items()}
    made = [row_of(clip, rest[clip.corpus, clip.voice], _ACTED[clip.corpus]) for clip in acted]
    corpora = np.array([clip.corpus for clip in acted])
    calm = np.array([clip.emotion in _CALM for clip in acted])
    strong = np.array([clip.emotion in _STRONG for clip in acted])
    table = np.array([measures(clip, rest[clip.corpus, clip.voice]) for clip in acted])
    scores = {
        "expressive_p": np.array([row["expressive_p"] for row in made]),
        "score": np.array([expressive_score(row, row["rest_hz"]) for row in made]),
        "left out": left_out(table, corpora, calm, strong),
        "raised": table[:, -1],
    }
    print(f"\n{'area under the curve: all, strong':34}{'clips':>6}", *(f"{name:>16}" for name in scores))
    three = np.isin(corpora, _THREE)
    groups = {corpus: corpora == corpus for corpus in _ACTED} | {"three pooled": three}
    met = True
    for name, inside in groups.items():
        figures = [
            (area(s, inside & ~calm, inside & calm), area(s, inside & strong, inside & calm)) for s in scores.values()
        ]
        print(f"{name:34}{int(inside.sum()):6}", *(f"{f'{a:.3f}  {b:.3f}':>16}" for a, b in figures))
        met &= name not in _THREE or figures[2][1] >= 0.85
    low = np.array([clip.emotion in _LOW for clip in acted])
    print(f"\n{'arousal of strong and calm clips':34}{'area':>6}{'verdicts':>10}{'wrong':>7}")
    for corpus in _ACTED:
        inside = corpora == corpus
        mine = [row for row, own in zip(made, inside, strict=True) if own]
        told, wrong = arousal_verdicts(
            mine, [r["rest_hz"] for r in mine], strong[inside].tolist(), calm[inside].tolist()
        )
        print(f"{corpus:34}{area(scores['score'], inside & strong, inside & low):6.3f}{told:10.1%}{wrong:7.1%}")
    print("area: sad clips count as low; verdicts do not refute `sad`, which is of either side")
    print(f"arousal has verdicts in {', '.join(PROVEN)} only; elsewhere 0 % is by design")
    return met


def measures(clip: Measured, rest_hz: float | None) -> tuple[float, ...]:
    """Return the measures of `expressive_p`; the pitch above the voice's rest, in semitones, is the last."""
    prosody = clip.prosody
    raised = 12 * float(np.log2(prosody.pitch_hz / (rest_hz or prosody.pitch_hz)))
    return prosody.pitch_range_st, prosody.level_range_db, prosody.pitch_speed, raised


def left_out(table: np.ndarray, corpora: np.ndarray, calm: np.ndarray, strong: np.ndarray) -> np.ndarray:
    """Return the log odds of a fit on the strong and calm clips of all corpora but the clip's own, and without KAIST."""
    odds = np.zeros(len(table))
    for corpus in _ACTED:
        train = (corpora != corpus) & (corpora != "KAIST-Selvas-Emotional") & (calm | strong)
        scaled = (table - table[train].mean(axis=0)) / table[train].std(axis=0)
        found = fit(scaled[train], strong[train], 1.0)
        odds[corpora == corpus] = scaled[corpora == corpus] @ found[:-1] + found[-1]
    return odds


def row_of(clip: Measured, rest_hz: float | None, language: str) -> dict[str, Any]:
    """Return the INDEX columns that emotion is judged by."""
    pitch = clip.prosody.pitch_hz
    return {
        "language": language,
        "pitch_hz": pitch,
        "expressive_p": expressive_p(clip.prosody, rest_hz or pitch),
        "rest_hz": rest_hz,
    }


def arousal_verdicts(
    rows: Sequence[dict[str, Any]], rest: Sequence[float | None], strong: Sequence[bool], low: Sequence[bool]
) -> tuple[float, float]:
    """Return (share of clips of known arousal with a verdict, share of these that is wrong)."""
    told = wrong = known = 0
    for row, hz, up, down in zip(rows, rest, strong, low, strict=True):
        if not (up or down):
            continue
        known += 1
        p = aroused_p(row, hz)
        if p is not None and max(p, 1 - p) >= 0.8:
            told += 1
            wrong += (p > 0.5) != up
    return told / max(known, 1), wrong / max(told, 1)


def area(values: np.ndarray, above: np.ndarray, below: np.ndarray) -> float:
    """Return how often one of `above` is greater than one of `below`."""
    high, low = values[above][:, None], values[below][None]
    return float((high > low).mean() + 0.5 * (high == low).mean())


def report_age(rows: Iterable[dict[str, Any]]) -> None:
    """Print what is known of age: nothing without weights."""
    ages = Counter(str(row["age"]) for row in rows if row.get("age"))
    print(f"\nage: no verdict without weights; {ages.total()} clips of the corpora have a label ({dict(ages)})")


def main() -> int:
    """Measure and print. Returns 1 if a target is missed."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    clock = Clock()
    clips = measured(clock)
    print(
        f"{len(clips)} clips, {clock.audio_s:.0f} s: pitch and prosody {clock.audio_s / clock.pitch_s:.0f} times real time,",
        end="",
    )
    print(f" formant and effort {clock.audio_s / clock.tract_s:.0f} times, on one core\n")
    met = report_emotion(clips)
    report_age(row for _, row in rows())
    if not met:
        print("missed: strong emotions")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
