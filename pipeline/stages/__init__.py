"""The stages, one file each. Looked up by name, so that a stage's module is imported only where it runs."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.stage import Stage

#: name -> "module:Class"
STAGES: dict[str, str] = {
    "decode": "pipeline.stages.decode:Decode",
    "separate": "pipeline.stages.separate:Separate",
    "detect_speech": "pipeline.stages.detect_speech:DetectSpeech",
    "find_turns": "pipeline.stages.find_turns:FindTurns",
    "segment": "pipeline.stages.segment:CutSegments",
    "transcribe": "pipeline.stages.transcribe:Transcribe",
    "score_quality": "pipeline.stages.score_quality:ScoreQuality",
    "embed_speaker": "pipeline.stages.embed_speaker:EmbedSpeaker",
    "refine_cuts": "pipeline.stages.refine_cuts:RefineCuts",
    "classify_emotion": "pipeline.stages.classify_emotion:ClassifyEmotion",
    "fingerprint_audio": "pipeline.stages.fingerprint_audio:FingerprintAudio",
    "mine_references": "pipeline.stages.mine_references:MineReferences",
    "cut_clips": "pipeline.stages.cut_clips:CutClips",
}


def stage_class(name: str) -> type[Stage[Any]]:
    """The class of a stage by its name, or by `module:Class` for stages of your own; KeyError names the known ones."""
    place = STAGES.get(name, name)
    module, separator, kind = place.partition(":")
    if not separator:
        raise KeyError(f"no stage {name!r}; stages: {', '.join(STAGES)}")
    found: type[Stage[Any]] = getattr(importlib.import_module(module), kind)
    return found
