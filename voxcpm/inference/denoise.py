"""Denoising of reference and prompt clips before they are encoded (`denoise=True`).

Two kinds: a GTCRN model as an .onnx file (MIT, 0.5 MB, needs onnxruntime), or the official package's ZipEnhancer (modelscope).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ZIPENHANCER = "iic/speech_zipenhancer_ans_multiloss_16k_base"
"""The official package's denoiser, on modelscope."""
#: 16 kHz mono [S] float32 -> the same length.
Denoiser = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def load_denoiser(path: str | Path) -> Denoiser:
    """Load a denoiser from an .onnx file (GTCRN) or a modelscope id or folder (ZipEnhancer).

    Raises FileNotFoundError if the .onnx file does not exist, RuntimeError that names a missing library.
    """
    if str(path).endswith(".onnx"):
        return GTCRN(Path(path))
    return _zipenhancer(str(path))


class GTCRN:
    """Streaming GTCRN: 512-point STFT every 256 samples, square-root Hann windows, one frame per call with caches."""

    SIZE, HOP = 512, 256

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no denoiser at {path}")
        try:
            import onnxruntime
        except ImportError:
            raise RuntimeError(
                "denoise=True with an .onnx model needs 'onnxruntime': pip install onnxruntime"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._caches = {i.name: tuple(i.shape) for i in self._session.get_inputs() if i.name != "mix"}
        self._window = np.sqrt(np.hanning(self.SIZE + 1)[:-1]).astype(np.float32)

    def __call__(self, wav: NDArray[np.float32]) -> NDArray[np.float32]:
        """[S] -> [S]."""
        size, hop, window = self.SIZE, self.HOP, self._window
        padded = np.pad(wav, (size - hop, size - hop + (-len(wav)) % hop))
        caches = {name: np.zeros(shape, np.float32) for name, shape in self._caches.items()}
        out = np.zeros_like(padded)
        for start in range(0, len(padded) - size + 1, hop):
            spectrum = np.fft.rfft(padded[start : start + size] * window)
            mix = np.stack((spectrum.real, spectrum.imag), -1).astype(np.float32)[None, :, None]
            enhanced, *new = self._session.run(None, {"mix": mix, **caches})
            caches = dict(zip(caches, new, strict=True))
            clean = enhanced[0, :, 0, 0] + 1j * enhanced[0, :, 0, 1]
            out[start : start + size] += (np.fft.irfft(clean, size) * window).astype(np.float32)
        return out[size - hop : size - hop + len(wav)].astype(np.float32)


class ZipEnhancer:
    """The official package's denoiser of files, with any denoiser that `load_denoiser` takes."""

    RATE = 16000  #: Hz, of the audio it writes
    LOUDNESS = -20.0  #: LUFS, of the audio it writes with `normalize_loudness`

    def __init__(self, model_path: str | Path = ZIPENHANCER) -> None:
        """Load the denoiser. Raises as `load_denoiser` does."""
        self.model_path = model_path
        self._denoise = load_denoiser(model_path)

    def enhance(
        self, input_path: str | Path, output_path: str | Path | None = None, normalize_loudness: bool = True
    ) -> str:
        """Denoise a clip, write it as mono WAV and return the path. None: a new temporary file, which the caller removes.

        Raises FileNotFoundError and AudioError for the input.
        """
        import tempfile

        import soundfile

        from voxcpm.inference.audio_files import load_audio

        wav = self._denoise(load_audio(input_path, self.RATE))
        if normalize_loudness:
            gain = 10 ** ((self.LOUDNESS - loudness(wav, self.RATE)) / 20)
            wav = wav * min(gain, 1 / max(float(np.abs(wav).max()), 1e-9))
        if output_path is None:
            with tempfile.NamedTemporaryFile(suffix=".wav", delete=False) as file:
                output_path = file.name
        soundfile.write(output_path, wav, self.RATE)
        return str(output_path)


def loudness(wav: NDArray[np.float32], rate: int) -> float:
    """Return the integrated loudness of mono [S] in LUFS (ITU-R BS.1770-4, with both gates); -70 for silence."""
    frequencies = np.fft.rfftfreq(2 * len(wav), 1 / rate)
    spectrum = np.fft.rfft(wav.astype(np.float64), 2 * len(wav)) * _k_weighting(frequencies)
    weighted = np.fft.irfft(spectrum)[: len(wav)]
    block, hop = int(0.4 * rate), int(0.1 * rate)
    power = np.array([np.mean(weighted[i : i + block] ** 2) for i in range(0, max(len(wav) - block, 0) + 1, hop)])
    levels = -0.691 + 10 * np.log10(power + 1e-12)
    for gate in (-70.0, -10.0):
        # The second gate is relative to the mean of what passed the first.
        over = gate if gate == -70.0 else -0.691 + 10 * np.log10(power.mean()) + gate
        power, levels = power[levels > over], levels[levels > over]
        if not len(power):
            return -70.0
    return float(-0.691 + 10 * np.log10(power.mean()))


def _k_weighting(frequencies: NDArray[Any]) -> NDArray[np.float64]:
    """The gain of BS.1770's two filters (a shelf for the head, a high pass) at frequencies in Hz: analog prototypes."""
    s = 1j * frequencies
    shelf_f, shelf_q, shelf_gain = 1681.97, 0.7072, 10 ** (3.99984 / 20)
    middle = shelf_gain**0.499667
    shelf = (shelf_gain * s**2 + middle * shelf_f / shelf_q * s + shelf_f**2) / (
        s**2 + shelf_f / shelf_q * s + shelf_f**2
    )
    pass_f, pass_q = 38.1355, 0.500327
    high = s**2 / (s**2 + pass_f / pass_q * s + pass_f**2)
    return np.abs(shelf * high)


def _zipenhancer(model: str) -> Denoiser:
    try:
        from modelscope.pipelines import pipeline
        from modelscope.utils.constant import Tasks
    except ImportError:
        raise RuntimeError(
            f"denoise=True needs a denoiser: give a GTCRN .onnx file as zipenhancer_model_path, or install 'modelscope' for {model}"
        ) from None
    enhance = pipeline(Tasks.acoustic_noise_suppression, model=model)

    def denoise(wav: NDArray[np.float32]) -> NDArray[np.float32]:
        import tempfile

        import soundfile

        with tempfile.TemporaryDirectory() as folder:
            given = Path(folder) / "noisy.wav"
            soundfile.write(given, wav, 16000)
            pcm = enhance(str(given))["output_pcm"]
        return (np.frombuffer(pcm, dtype=np.int16).astype(np.float32) / 32768.0)[: len(wav)]

    return denoise
