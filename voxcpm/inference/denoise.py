"""Denoising of reference and prompt clips before they are encoded (`denoise=True`).

Two kinds: a GTCRN model as an .onnx file (MIT, 0.5 MB, needs onnxruntime), or the official package's ZipEnhancer (modelscope).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
