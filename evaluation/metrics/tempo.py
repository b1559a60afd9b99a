"""Tempo and faults of time: rate, silences, start artifacts, tails, loops and early stops."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from catalogs.vocabulary import comparable_text
from catalogs.vocabulary.comparable_text import is_unspaced
from evaluation.metrics.base import Plain, Take, Value
from evaluation.metrics.words import TEXT_PACKAGES, clean_units
from pipeline.speech import faults

_FIGURES = (
    "chars_per_s",
    "syllables_per_s",
    "usual_ratio",
    "lead_s",
    "trail_s",
    "longest_pause_s",
    "start_db",
    "sound_after_s",
)
_COUNTS = ("units_after", "units_missing", "repeats")
_FAULTS = ("start_artifact", "tail", "loop", "early_stop")


def _share(column: str, title: str) -> Value:
    return Value(column, title, "%", "lower", None, None, 100.0, 1, 1.0)


class Tempo(Plain):
    """Columns:

    `chars_per_s`, `syllables_per_s`: of the text, over the time from the first to the last sound. `usual_ratio`: that time over
    the time of an average reader. `lead_s`, `trail_s`: silence at the ends. `longest_pause_s`: between sounds.
    `start_db`: level of the first 200 ms, relative to speech. `sound_after_s`: sound after the last word.
    `units_after`, `units_missing`: words (characters) heard after the end of the text, or missing at its end.
    `repeats`: sequences that were heard more often than the text has them.
    `start_artifact`, `tail`, `loop`, `early_stop`: 1 if the take has the fault; see `pipeline.speech.faults`.
    """

    name = "tempo"
    version = 1
    uses: tuple[str, ...] = ("transcript",)
    schema = pa.schema(
        [
            *(pa.field(name, pa.float64()) for name in _FIGURES),
            *(pa.field(name, pa.int32()) for name in _COUNTS),
            *(pa.field(name, pa.int8()) for name in _FAULTS),
        ]
    )
    values = (
        Value("chars_per_s", "characters per second", "1/s", "none", digits=1),
        Value("syllables_per_s", "syllables per second", "1/s", "none"),
        Value("usual_ratio", "time / usual time", "", "none"),
        Value("lead_s", "silence before", "s", "none"),
        Value("trail_s", "silence after", "s", "none"),
        Value("longest_pause_s", "longest pause", "s", "none"),
        _share("start_artifact", "start artifacts"),
        _share("tail", "tails"),
        _share("loop", "loops"),
        _share("early_stop", "early stops"),
    )

    packages = TEXT_PACKAGES

    def load(self) -> None:
        """Import the libraries. Raises ModuleNotFoundError."""
        for package in self.packages:
            importlib.import_module(package)

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        limits = {name: value for name, value in vars(faults).items() if name.isupper()}
        return {"limits": limits, **comparable_text.rules_in_use()}

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None for a take without sound, or a text without words. Without a transcript, faults of words are None."""
        return [self._row(take) for take in takes]

    def _row(self, take: Take) -> dict[str, Any] | None:
        language = take.item.language
        wanted = clean_units(take.item.text, language)
        sounds = faults.find_sounds(take.audio(faults.RATE))
        if not wanted or not sounds.speech:
            return None
        heard = take.given["transcript"]
        row = _measures(sounds, wanted, language)
        if heard["hypothesis"] is not None:
            text = f"{heard['hypothesis']} {heard['rest'] or ''}"
            row |= _word_faults(sounds, wanted, clean_units(text, language), heard["words"], language)
        return row


def _measures(sounds: faults.Sounds, wanted: Sequence[str], language: str) -> dict[str, Any]:
    """Return what the sounds and the text show."""
    from pipeline.text.counts import count_characters, count_syllables, usual_letters_per_s

    speech = sounds.speech
    spoken_s = speech[-1][1] - speech[0][0]
    letters, usual = count_characters("".join(wanted)), usual_letters_per_s(language)
    return {
        "chars_per_s": letters / spoken_s,
        "syllables_per_s": count_syllables(" ".join(wanted)) / spoken_s,
        "usual_ratio": spoken_s * usual / letters if usual and letters else None,
        "lead_s": speech[0][0],
        "trail_s": max(sounds.seconds - speech[-1][1], 0.0),
        "longest_pause_s": max((after[0] - before[1] for before, after in pairwise(speech)), default=0.0),
        "start_db": sounds.mean_db(0.0, faults.START_S),
    }


def _word_faults(
    sounds: faults.Sounds, wanted: list[str], heard: list[str], words: Sequence[dict[str, Any]], language: str
) -> dict[str, Any]:
    """Return what the words that were heard show."""
    unit = "char" if is_unspaced(language) else "word"
    after = faults.units_after_the_end(wanted, heard)
    repeats = faults.repeated_units(wanted, heard, faults.LOOP_UNITS[unit])
    first = (words[0]["start"], words[0]["end"]) if words else None
    sound_after = sounds.sound_after(words[-1]["end"]) if words else None
    return {
        "sound_after_s": sound_after,
        "units_after": after,
        "units_missing": faults.units_missing_at_the_end(wanted, heard),
        "repeats": repeats,
        "start_artifact": int(faults.has_start_artifact(sounds, first)),
        "tail": int(after >= faults.TAIL_UNITS[unit] or (sound_after or 0.0) > faults.TAIL_S),
        "loop": int(repeats > 0),
        "early_stop": int(faults.stops_early(wanted, heard, unit)),
    }
