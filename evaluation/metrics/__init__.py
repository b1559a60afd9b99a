"""Metrics by name. A metric is one file; its line is here. `module:Class`, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

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

QUICK = ("transcript", "words_clean", "tempo", "voice_ge2e", "speed")

PROFILES: dict[str, tuple[str, ...]] = {
    "quick": QUICK,
    "small": (*QUICK, "words_official", "floor", "voice_margin"),
    "full": tuple(METRICS),
}
"""Names for several metrics. `small` is what this package can measure without a hub or a service."""


def load_metrics(names: Iterable[str] | None = None) -> list[Metric]:
    """Return metrics in scoring order, with those that they use. `names`: metrics or profiles; None: the profile `small`.

    Raises EvaluationError for an unknown name.
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
            module, _, attribute = METRICS[name].partition(":")
            made[name] = getattr(importlib.import_module(module), attribute)()
            open_names += made[name].uses
    return [made[name] for name in METRICS if name in made]
