"""The stages in order, one file each. The class of a stage is imported when it is first used."""

from __future__ import annotations

from typing import Any

from catalogs.extensions import ExtensionError, ExtensionPoint
from catalogs.files import one_line
from catalogs.weights import registry
from pipeline.stage import Stage

#: The chain in order: name -> "module:Class". The stages of one table share an actor. `decode` and `separate` must share
#: one: they pass on the native-rate audio, 1.27 GB per hour as float32, which must not go through an object store.
_CHAIN: tuple[dict[str, str], ...] = (
    {
        "decode": "pipeline.stages.decode:Decode",
        "separate": "pipeline.stages.separate:Separate",
    },
    {
        "detect_speech": "pipeline.stages.detect_speech:DetectSpeech",
        "find_turns": "pipeline.stages.find_turns:FindTurns",
        "segment": "pipeline.stages.segment:CutSegments",
    },
    {
        "transcribe": "pipeline.stages.transcribe:Transcribe",
    },
    {
        "embed_speaker": "pipeline.stages.embed_speaker:EmbedSpeaker",
        "refine_cuts": "pipeline.stages.refine_cuts:RefineCuts",
    },
    {
        "score_quality": "pipeline.stages.score_quality:ScoreQuality",
        "classify_emotion": "pipeline.stages.classify_emotion:ClassifyEmotion",
        "fingerprint_audio": "pipeline.stages.fingerprint_audio:FingerprintAudio",
        "mine_references": "pipeline.stages.mine_references:MineReferences",
    },
    {
        "cut_clips": "pipeline.stages.cut_clips:CutClips",
    },
)

STAGE_GROUPS: tuple[tuple[str, ...], ...] = tuple(tuple(group) for group in _CHAIN)
STAGE_NAMES: tuple[str, ...] = tuple(name for group in STAGE_GROUPS for name in group)

STAGES = ExtensionPoint(
    "stage",
    Stage,  # type: ignore[type-abstract]
    "voxmill.stages",
    {name: place for group in _CHAIN for name, place in group.items()},
)


def stage_class(name: str) -> type[Stage[Any]]:
    """Return the class of a stage by its name, its entry point or `module:Class`; raises ExtensionError with one line."""
    kind = STAGES.find(name)
    if kind.weights_table is not None:
        try:
            registry.add(kind.weights_table)
        except (OSError, ValueError) as error:
            raise ExtensionError(f"stage {kind.name} has weights that cannot be used: {one_line(error)}") from error
    return kind
