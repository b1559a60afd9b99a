"""Clips on real speech: loading, trimming, denoising; and the real tokenizer's rules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxcpm.inference.audio_files import load_audio, trim_silence
from voxcpm.sequence.text_tokenizer import SPACE_MARK, TextTokenizer


@pytest.fixture(scope="module")
def speech(corpora: Path) -> Path:
    """A clip of read speech."""
    for line in (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        path = corpora / next(str(row[k]) for k in ("path", "file", "audio") if k in row)
        if path.is_file() and soundfile.info(path).duration > 2:
            return path
    pytest.skip("no clip of speech")


def test_loading_is_mono_at_the_asked_rate(speech: Path, tmp_path: Path) -> None:
    seconds = soundfile.info(speech).duration
    wav = load_audio(speech, 16000)
    assert wav.dtype == np.float32 and wav.ndim == 1 and abs(len(wav) / 16000 - seconds) < 0.01
    soundfile.write(tmp_path / "again.wav", wav, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "again.wav", 16000), wav)
    # Opposite channels average to silence: a clip that is one loud thing on the left and its negative on the right.
    soundfile.write(tmp_path / "opposite.wav", np.stack((wav, -wav), 1), 16000)
    with pytest.raises(ValueError, match="silent"):
        load_audio(tmp_path / "opposite.wav", 16000)


def test_trimming_keeps_the_speech_and_a_margin(speech: Path) -> None:
    wav = load_audio(speech, 16000)
    padded = np.concatenate((np.zeros(32000, np.float32), wav, np.zeros(48000, np.float32)))
    trimmed = trim_silence(padded, 16000)
    assert len(trimmed) <= len(wav) + 2 * 0.25 * 16000
    loudest = padded[int(np.abs(padded).argmax())]
    assert loudest in trimmed
    energy = float((trimmed**2).sum()) / float((wav**2).sum())
    assert energy > 0.999


def test_denoising_brings_speech_nearer_to_clean(speech: Path, shared: Path) -> None:
    model = shared / "models" / "gtcrn" / "gtcrn_simple.onnx"
    if not model.is_file():
        pytest.skip("no GTCRN model")
    pytest.importorskip("onnxruntime")
    from voxcpm.inference.denoise import load_denoiser

    wav = load_audio(speech, 16000)[: 4 * 16000]
    noise = np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)
    noisy = wav + noise * wav.std() * 0.3
    clean = load_denoiser(model)(noisy)
    assert clean.shape == wav.shape and clean.dtype == np.float32

    def snr(x: np.ndarray) -> float:
        return float(10 * np.log10((wav**2).sum() / ((x - wav) ** 2).sum()))

    assert snr(clean) > snr(noisy) + 3.0


def test_denoisers_that_cannot_be_had() -> None:
    from voxcpm.inference.denoise import load_denoiser

    with pytest.raises(FileNotFoundError):
        load_denoiser("/nowhere/model.onnx")
    with pytest.raises(RuntimeError, match=r"GTCRN \.onnx"):
        load_denoiser("iic/speech_zipenhancer_ans_multiloss_16k_base")


def test_the_multilingual_tokenizer(shared: Path) -> None:
    folder = shared / "models" / "voxcpm-tokenizer"
    if not folder.is_dir():
        pytest.skip("no multilingual tokenizer")
    tokenizer = TextTokenizer.load(folder)
    assert tokenizer.size > 70_000
    ids = tokenizer.encode("今天天气很好，Hello world!")
    # Its post-processor would add BOS (1); VoxCPM text never has one.
    assert 1 not in ids and 2 not in ids
    assert tokenizer.pieces("今天天气很好")[-6:] == list("今天天气很好")
    assert "".join(tokenizer.pieces("Hello big world")).replace(SPACE_MARK, " ").strip() == "Hello big world"
    assert tokenizer.encode("😀") and 0 not in tokenizer.encode("😀")
    with pytest.raises(FileNotFoundError):
        TextTokenizer.load("/nowhere")
