"""What a checkpoint says: training sentences with and without reference clips, read by Whisper and compared by GE2E."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from catalogs.corpus import Corpus
from overfit.listening import RATE, Ears, at_16k, word_errors
from voxcpm import VoxCPM
from voxcpm.api import Utterance

#: Solver steps and guidance of all speech that is measured; the defaults of the API.
SPEECH: dict[str, Any] = {"inference_timesteps": 10, "cfg_value": 2.0, "retry_badcase": False}


@dataclass(frozen=True)
class Clip:
    """A training utterance as the corpus has it: 16 kHz samples [S]."""

    segment: str
    voice: str
    text: str
    samples: np.ndarray


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
    """GE2E cosine to every voice of the corpus (the mean print of its clips)."""
    file: str


def training_clips(corpus: Path) -> list[Clip]:
    """The kept segments; a voice is the folder of its recordings."""
    root = Corpus(corpus)
    voices = {row["source_id"]: Path(row["path"]).parent.name for row in root.table("recordings").to_pylist()}
    clips = []
    for row in sorted(
        root.kept().to_pylist(), key=lambda row: (voices[row["source_id"]], row["text"], row["segment_id"])
    ):
        samples, rate = root.read_audio(row["segment_id"])
        clips.append(Clip(row["segment_id"], voices[row["source_id"]], row["text"], at_16k(samples, rate)))
    return clips


def voice_prints(clips: Sequence[Clip], ears: Ears) -> dict[str, np.ndarray]:
    """The mean print of each voice's clips, of length 1."""
    prints: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        prints.setdefault(clip.voice, []).append(ears.voice(clip.samples, RATE))
    means = {voice: np.mean(found, axis=0) for voice, found in prints.items()}
    return {voice: mean / np.linalg.norm(mean) for voice, mean in means.items()}


def every_pairing(clips: Sequence[Clip]) -> list[tuple[str, str | None]]:
    """(text, reference voice): every text alone and with a clip of every voice."""
    voices = sorted({clip.voice for clip in clips})
    return [(text, voice) for text in sorted({clip.text for clip in clips}) for voice in (None, *voices)]


def learnt_pairing(clips: Sequence[Clip]) -> list[tuple[str, str | None]]:
    """(text, reference voice) that were trained on: every text with the voices that said it."""
    return sorted({(clip.text, clip.voice) for clip in clips})


def speak(
    checkpoint: Path, clips: Sequence[Clip], pairs: Sequence[tuple[str, str | None]], folder: Path, ears: Ears
) -> list[Said]:
    """Say each text with the voice's reference (its longest clip of another text where there is one), and listen."""
    folder.mkdir(parents=True, exist_ok=True)
    model = VoxCPM.from_pretrained(checkpoint, load_denoiser=False, device="cpu")
    rate = model.tts_model.sample_rate
    items, known = [], {(clip.text, clip.voice) for clip in clips}
    for text, voice in pairs:
        path = None if voice is None else _reference(clips, text, voice, folder)
        # Twice the slowest rate in the corpus: what has not stopped by then has not learnt to.
        items.append(Utterance(text, reference_wav_path=path, seed=1, max_len=max(12, 2 * len(text.split()) + 14)))
    prints = voice_prints(clips, ears)
    said = []
    for (text, voice), wave in zip(pairs, model.generate_batch(items, **SPEECH), strict=True):
        name = f"{_slug(text)}__{voice or 'alone'}.wav"
        soundfile.write(folder / name, wave, rate, subtype="PCM_16")
        heard = ears.read(wave, rate)
        own = ears.voice(wave, rate)
        similarity = {other: round(float(own @ mean), 4) for other, mean in prints.items()}
        learnt = voice is None or (text, voice) in known
        wer = word_errors([text], [heard])
        said.append(Said(text, voice, learnt, heard, wer, len(wave) / rate, similarity, name))
    return said


def through_codec(checkpoint: Path, clips: Sequence[Clip], ears: Ears) -> dict[str, float]:
    """What the codec alone costs: WER and similarity of the clips themselves, and of their reconstructions."""
    import torch

    from voxcpm.checkpoint import load_codec

    codec = load_codec(checkpoint)
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
    """WER of what was learnt, alone and with a reference, and how far the similarity moves toward the reference's voice."""
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
    """For each sentence that several voices said: how much nearer to a voice its own reference brings it than another's.

    The same words, so that nothing but the reference clip tells whose they should be: 0 where it is not listened to.
    """
    found = []
    for one in learnt:
        others = [other for other in learnt if other.text == one.text and other.reference != one.reference]
        found += [one.similarity[str(one.reference)] - other.similarity[str(one.reference)] for other in others]
    return found


def as_rows(said: Sequence[Said]) -> list[dict[str, object]]:
    """For JSON."""
    return [asdict(one) for one in said]


def _reference(clips: Sequence[Clip], text: str, voice: str, folder: Path) -> Path:
    own = [clip for clip in clips if clip.voice == voice]
    other = [clip for clip in own if clip.text != text] or own
    chosen = max(other, key=lambda clip: len(clip.samples))
    path = folder / f"reference_{chosen.segment}.wav"
    if not path.is_file():
        soundfile.write(path, chosen.samples, RATE, subtype="FLOAT")
    return path


def _slug(text: str) -> str:
    return "_".join("".join(c for c in word if c.isalnum()) for word in text.lower().split())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
