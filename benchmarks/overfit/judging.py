"""Judge generated speech with Whisper and GE2E: word errors, and similarity to voices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from overfit.listening import Ears, word_errors
from overfit.speaking import RATE, Clip


@dataclass(frozen=True)
class Said:
    """One generated utterance. `reference`: the voice whose clip was given; `learnt`: that voice said this text in training."""

    text: str
    reference: str | None
    learnt: bool
    heard: str
    wer: float
    seconds: float
    similarity: dict[str, float]
    """GE2E cosine to every voice of the corpus (the mean voiceprint of its clips)."""
    file: str


def voice_prints(clips: Sequence[Clip], ears: Ears) -> dict[str, np.ndarray]:
    """Return the mean voiceprint of each voice's clips, of length 1."""
    prints: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        prints.setdefault(clip.voice, []).append(ears.voice(clip.samples, RATE))
    means = {voice: np.mean(found, axis=0) for voice, found in prints.items()}
    return {voice: mean / np.linalg.norm(mean) for voice, mean in means.items()}


def hear(folder: Path, clips: Sequence[Clip], ears: Ears) -> list[Said]:
    """Judge the files that `say` wrote into `folder`: Whisper's transcript and GE2E's similarity to the voices."""
    prints, known = voice_prints(clips, ears), {(clip.text, clip.voice) for clip in clips}
    said = []
    for item in json.loads((folder / "said.json").read_text(encoding="utf-8")):
        text, voice = item["text"], item["voice"]
        wave, rate = soundfile.read(folder / item["file"], dtype="float32")
        heard = ears.read(wave, rate)
        own = ears.voice(wave, rate)
        similarity = {other: round(float(own @ mean), 4) for other, mean in prints.items()}
        learnt = voice is None or (text, voice) in known
        wer = word_errors([text], [heard])
        said.append(Said(text, voice, learnt, heard, wer, len(wave) / rate, similarity, item["file"]))
    return said


def through_codec(folder: Path, clips: Sequence[Clip], ears: Ears) -> dict[str, float]:
    """Measure the loss by the codec alone: WER and similarity of the clips and of their reconstructions."""
    import torch

    from trainer.codec.files import read_codec

    codec = read_codec(str(folder))
    texts = [clip.text for clip in clips]
    heard, rebuilt, similarity = [], [], []
    for clip in clips:
        with torch.no_grad():
            wave = codec.decode(codec.encode(torch.from_numpy(clip.samples)[None, None]))[0, 0].numpy()
        heard.append(ears.read(clip.samples, RATE))
        rebuilt.append(ears.read(wave, codec.config.out_sample_rate))
        similarity.append(float(ears.voice(clip.samples, RATE) @ ears.voice(wave, codec.config.out_sample_rate)))
    return {
        "wer_originals": word_errors(texts, heard),
        "wer_reconstructions": word_errors(texts, rebuilt),
        "similarity_reconstructions": float(np.mean(similarity)),
    }


def summary(said: Sequence[Said]) -> dict[str, float]:
    """Return the WER of training sentences, without and with a reference, and the gain in similarity to the reference's voice."""
    with_reference = [one for one in said if one.reference is not None]
    learnt = [one for one in with_reference if one.learnt]
    unheard = [one for one in with_reference if not one.learnt]
    alone = [one for one in said if one.reference is None]
    found: dict[str, float] = {}
    for name, group in (("reference", learnt), ("alone", alone), ("unheard_pairs", unheard)):
        if group:
            found[f"wer_{name}"] = word_errors([one.text for one in group], [one.heard for one in group])
    for name, group in (("learnt", learnt), ("unheard_pairs", unheard)):
        if group:
            found[f"similarity_to_reference_{name}"] = _mean([one.similarity[str(one.reference)] for one in group])
            found[f"similarity_to_other_voices_{name}"] = _mean(
                [value for one in group for voice, value in one.similarity.items() if voice != one.reference]
            )
            nearest = [max(one.similarity, key=one.similarity.__getitem__) == one.reference for one in group]
            found[f"nearest_is_reference_{name}"] = _mean([float(hit) for hit in nearest])
    moved = moves(learnt)
    if moved:
        found["similarity_moved_by_reference"] = _mean(moved)
    return found


def moves(learnt: Sequence[Said]) -> list[float]:
    """Return, for sentences that several voices said, the gain in similarity from a voice's own reference against another's.

    The words are the same, so only the reference clip determines the voice. If the model ignores it, the gain is 0.
    """
    found = []
    for one in learnt:
        others = [other for other in learnt if other.text == one.text and other.reference != one.reference]
        found += [one.similarity[str(one.reference)] - other.similarity[str(one.reference)] for other in others]
    return found


def as_rows(said: Sequence[Said]) -> list[dict[str, object]]:
    """For JSON."""
    return [asdict(one) for one in said]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
