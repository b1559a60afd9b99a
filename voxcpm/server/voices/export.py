"""Export stored voices as the folder that vLLM-Omni reads as `custom_voice_dir`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voxcpm.server.voices.files import mode_of, write_tensors
from voxcpm.server.voices.store import Voice, VoiceFolder
from voxcpm.weights.atomic import write_file

MANIFEST = "custom_voice_manifest.json"


def export_vllm_omni(voices: VoiceFolder, out: Path, names: Iterable[str] = ()) -> list[Voice]:
    """Write the named voices (all if none are named) with a manifest of schema version 1; return them.

    Raises ValueError for an unknown name, a damaged voice, or a folder that holds something else.
    """
    wanted = list(names)
    chosen = [_found(voices, name) for name in wanted] if wanted else voices.all()
    if not chosen:
        raise ValueError(f"{voices.root} holds no voices: add one with voxmill voice add")
    if out.exists() and not (out / MANIFEST).is_file() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not an export of voices: give another folder")
    out.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, dict[str, Any]] = {}
    for voice in chosen:
        tensors = voices.latents(voice)
        file = f"{voice.id}.safetensors"
        entry: dict[str, Any] = {"file": file, "mode": mode_of(tensors)}
        if "audio_feat" in tensors:
            entry["prompt_text"] = voice.ref_text
        write_tensors(out / file, tensors, voice.ref_text)
        manifest[voice.name] = entry
    text = json.dumps({"model_type": "voxcpm2", "schema_version": 1, "voices": manifest}, ensure_ascii=False, indent=1)
    write_file(out / MANIFEST, (text + "\n").encode())
    written = {entry["file"] for entry in manifest.values()}
    for path in out.glob("voice_*.safetensors"):
        if path.name not in written:
            path.unlink()
    return chosen


def _found(voices: VoiceFolder, name: str) -> Voice:
    voice = voices.find(name)
    if voice is None:
        raise ValueError(f"no voice {name!r} in {voices.root}: see voxmill voice list")
    return voice
