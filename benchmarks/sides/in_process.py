"""The engine of the server benchmark without a server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


class InProcess:
    """The same engine without a server."""

    def __init__(self, checkpoint: Path, threads: int, text: str, clip: Path) -> None:
        import torch

        from voxcpm import VoxCPM

        torch.set_num_threads(threads)
        self._text = text
        self._model = VoxCPM.from_pretrained(checkpoint, load_denoiser=False, device="cpu").tts_model
        voice = self._model.build_prompt_cache(reference_wav_path=str(clip))
        self._with_voice = self._model.layout(self._text, voice)
        self._engine = self._new_engine(1)
        self.first_chunk()  # the first time processes the voice; the later ones take it from the cache, as a server's do

    def steps(self, most: int, playback_s: float) -> dict[int, float]:
        """Return the seconds of a step by rows, up to the first that takes longer than the playback of a patch."""
        from voxcpm.engine.request import GenerationRequest

        layout = self._model.layout(self._text)
        steps = {}
        for rows in range(1, most + 1):
            engine = self._new_engine(rows * 3 // 2)
            for seed in range(rows):
                engine.submit(
                    GenerationRequest(layout, seed=seed, min_len=12, max_len=12, ratio_threshold=None), "whole"
                )
            engine.step()
            while engine.load()["running"] < rows:
                engine.step()
            started = time.perf_counter()
            for _ in range(6):
                engine.step()
            steps[rows] = (time.perf_counter() - started) / 6
            if steps[rows] > playback_s:
                break
        return steps

    def first_chunk(self) -> float:
        """Return the seconds until the first patch with a stored voice."""
        from voxcpm.engine.request import GenerationRequest

        started = time.perf_counter()
        self._engine.submit(GenerationRequest(self._with_voice, min_len=2, max_len=4))
        self._engine.step()
        seconds = time.perf_counter() - started
        while not self._engine.idle:
            self._engine.step()
        return seconds

    def _new_engine(self, slots: int) -> Any:
        from voxcpm.engine.engine import SpeechEngine

        return SpeechEngine(self._model.backbone, self._model.audio_vae, {512: slots})
