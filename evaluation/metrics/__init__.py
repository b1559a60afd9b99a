"""Metrics by name. A metric is one file; its line is here. `module:Class`, imported when it is asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from catalogs.nearest import nearest
from evaluation.errors import EvaluationError
from evaluation.metrics.base import Metric

METRICS: dict[str, str] = {
    "speed": "evaluation.metrics.speed:Speed",
    "transcript": "evaluation.metrics.transcript:WhisperTranscript",
    "human_transcript": "evaluation.metrics.transcript:HumanTranscript",
    "words_clean": "evaluation.metrics.words:WordsClean",
    "words_official": "evaluation.metrics.words:WordsOfficial",
    "floor": "evaluation.metrics.words:Floor",
    "tempo": "evaluation.metrics.tempo:Tempo",
    "voice_ge2e": "evaluation.metrics.voice:VoiceGe2e",
    "voice_margin": "evaluation.metrics.voice:VoiceMargin",
    "voice_human": "evaluation.metrics.voice:VoiceHuman",
    "voice_ecapa": "evaluation.metrics.voice:VoiceEcapa",
    "distillmos": "evaluation.metrics.quality.distillmos:Distillmos",
    "dnsmos": "evaluation.metrics.quality.dnsmos:DnsmosMetric",
    "mel_dac": "evaluation.metrics.codec.mel_dac:MelDac",
    "codec_signal": "evaluation.metrics.codec.codec_signal:CodecSignal",
    "stoi_pesq": "evaluation.metrics.codec.stoi_pesq:StoiPesq",
    "visqol": "evaluation.metrics.codec.visqol:Visqol",
    "control": "evaluation.metrics.control:Control",
    "diversity": "evaluation.metrics.diversity:Diversity",
    "drift": "evaluation.metrics.drift:Drift",
    "judge_instruct": "evaluation.metrics.judge_instruct:JudgeInstruct",
}
"""Name and `module:Class`, in the order in which they are scored: a metric comes after those that it uses."""

_QUICK = ("transcript", "words_clean", "tempo", "voice_ge2e", "speed")
_SMALL = (
    *_QUICK, "words_official", "floor", "voice_margin", "distillmos", "dnsmos", "control", "diversity", "drift"
)  # fmt: skip

PROFILES: dict[str, tuple[str, ...]] = {
    "quick": _QUICK,
    "small": _SMALL,
    "codec": ("mel_dac", "codec_signal", "stoi_pesq", "visqol", "distillmos", "voice_human", "words_clean", "floor"),
    "full": tuple(name for name in METRICS if name != "judge_instruct"),
}
"""Names for several metrics. `small`: what needs no hub, service or compiler. `full`: all but the judge, which costs money."""

Options = Mapping[str, Mapping[str, Any]]
"""Options of metrics by name, such as the recognizer of `transcript`."""


def load_metrics(names: Iterable[str] | None = None, options: Options | None = None) -> list[Metric]:
    """Return metrics in scoring order, with those that they use. `names`: metrics or profiles; None: the profile `small`.

    Raises EvaluationError for an unknown name or option.
    """
    wanted = {metric for name in (("small",) if names is None else names) for metric in PROFILES.get(name, (name,))}
    for name in sorted(wanted - METRICS.keys()):
        near = nearest(name, [*METRICS, *PROFILES])
        raise EvaluationError(
            f"no metric {name!r}; {f'did you mean {near}? ' if near else ''}See: voxmill evaluate metrics"
        )
    made: dict[str, Metric] = {}
    open_names = list(wanted)
    while open_names:
        name = open_names.pop()
        if name not in made:
            made[name] = _made(name, options or {})
            open_names += made[name].uses
    return [made[name] for name in METRICS if name in made]


def _made(name: str, given: Options) -> Metric:
    module, _, attribute = METRICS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    # The floor is only that of the same recognizer.
    options = given.get(name, given.get(getattr(kind, "options_of", ""), {}))
    known = [one for one in inspect.signature(kind).parameters if options]
    for option in options:
        if option not in known:
            raise EvaluationError(f"{name} has no option {option!r}; known: {', '.join(known) or 'none'}")
    metric: Metric = kind(**options)
    return metric
