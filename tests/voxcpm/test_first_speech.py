"""Speech of VoxCPM 0.5B and VoxCPM1.5: whole, streamed, in batches, long; what needs a reference clip is refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from first_models import FirstModel

from voxcpm import VoxCPM
from voxcpm.engine.request import Ending
from voxcpm.inference.long_text import speak_long
from voxcpm.inference.prompt_cache import PromptCache
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.inference.utterance import Utterance
from voxcpm.model.voxcpm import VoxCPMModel

QUICK: dict[str, Any] = {"inference_timesteps": 3, "min_len": 4, "max_len": 5, "seed": 3}
TEXT = "The fox goes on."


@pytest.fixture(scope="module")
def voice(first: FirstModel) -> VoxCPM:
    return VoxCPM.from_pretrained(first.checkpoint, load_denoiser=False)


@pytest.fixture(scope="module")
def prompt(first: FirstModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden prompt as a file at the codec's rate."""
    path = tmp_path_factory.mktemp("clips") / "prompt.wav"
    rate = 16_000 if first.name == "voxcpm-0.5b" else 44_100
    soundfile.write(path, first["prompt"].numpy(), rate, subtype="FLOAT")
    return path


def test_whole_and_streamed(first: FirstModel, voice: VoxCPM, prompt: Path) -> None:
    config = voice.tts_model.config
    assert isinstance(voice.tts_model, VoxCPM2Model) and VoxCPMModel is VoxCPM2Model
    for clips in ({}, {"prompt_wav_path": prompt, "prompt_text": first.about["texts"]["prompt"]}):
        wav = voice.generate(TEXT, **clips, **QUICK)
        assert len(wav) == 5 * config.out_patch_samples and np.abs(wav).max() > 0
        chunks = list(voice.generate_streaming(TEXT, **clips, **QUICK))
        assert [len(chunk) for chunk in chunks] == [config.out_patch_samples] * 5
        np.testing.assert_allclose(np.concatenate(chunks), wav, atol=1e-4)


def test_a_prompt_file_is_the_golden_prompt(first: FirstModel, voice: VoxCPM, prompt: Path) -> None:
    cache = voice.build_prompt_cache(prompt, first.about["texts"]["prompt"])
    assert cache["mode"] == "continuation"
    torch.testing.assert_close(cache["audio_feat"], first["prompt_feat"], atol=1e-3, rtol=0)


def test_a_batch_is_each_alone(voice: VoxCPM) -> None:
    items = [
        Utterance(TEXT, seed=1),
        Utterance("Words.", seed=2, max_len=4),
        Utterance(TEXT, description="A calm voice", seed=1),
    ]
    together = voice.generate_batch(items, inference_timesteps=3, max_len=5)
    for item, wav in zip(items, together, strict=True):
        (alone,) = voice.generate_batch([item], inference_timesteps=3, max_len=5)
        np.testing.assert_allclose(wav, alone, atol=1e-4)


def test_int8(first: FirstModel, voice: VoxCPM) -> None:
    coarse = VoxCPM.from_pretrained(first.checkpoint, load_denoiser=False, dtype="int8")
    assert len(coarse.generate(TEXT, **QUICK)) == 5 * voice.tts_model.config.out_patch_samples


def test_a_long_text_continues_its_last_whole_piece(voice: VoxCPM, monkeypatch: pytest.MonkeyPatch) -> None:
    tts, caches = voice.tts_model, list[PromptCache | None]()
    layout = tts.layout

    def watched(text: str, cache: PromptCache | None = None) -> Any:
        caches.append(cache)
        return layout(text, cache)

    endings: Iterator[Ending] = iter(("stop", "max_len", "stop"))
    generate = tts.generate_layouts

    def ended(*arguments: Any) -> Any:
        (made,) = generate(*arguments)
        made.ending = next(endings)
        return [made]

    monkeypatch.setattr(tts, "layout", watched)
    monkeypatch.setattr(tts, "generate_layouts", ended)
    pieces = ["Of words the first.", "Of words the second.", "Of words the third."]
    spoken = list(speak_long(tts, " ".join(pieces), None, SpeakOptions(**QUICK), longest_s=1.5))
    assert [piece for piece, _ in spoken] == pieces
    given = [(cache or {}).get("prompt_text") for cache in caches]
    assert given == [None, pieces[0], pieces[0]] and not any("ref_audio_feat" in (cache or {}) for cache in caches)


def test_a_reference_is_refused(voice: VoxCPM, prompt: Path) -> None:
    stored = PromptCache(mode="reference", ref_audio_feat=torch.zeros(2, 4, 16))
    asks: list[Callable[[], Any]] = [
        lambda: voice.generate(TEXT, reference_wav_path=prompt),
        lambda: voice.generate_streaming(TEXT, reference_wav_path=prompt),
        lambda: voice.generate_batch([Utterance(TEXT, reference_wav_path=prompt, description="slower")]),
        lambda: voice.build_prompt_cache(reference_wav_path=prompt),
        lambda: voice.generate_with_prompt_cache(TEXT, stored),
        lambda: voice.generate_long(TEXT, reference_wav_path=prompt),
        lambda: voice.tts_model.generate(TEXT, reference_wav_path=str(prompt)),
        lambda: voice.tts_model.build_prompt_cache(reference_wav_path=prompt),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match="takes no reference clip: give the clip as the prompt") as raised:
            ask()
        assert "\n" not in str(raised.value)
