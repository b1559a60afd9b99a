"""The official package, run in its own environment: `python upstream.py CHECKPOINT THREADS`."""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch  # noqa: E402

torch.set_num_threads(int(sys.argv[2]))

from protocol import answer, timed  # noqa: E402

import voxcpm  # noqa: E402
from voxcpm import VoxCPM  # noqa: E402

if "site-packages" not in str(voxcpm.__file__):
    raise SystemExit(f"this is not the official package: {voxcpm.__file__}")

VOICE: Any = VoxCPM.from_pretrained(sys.argv[1], load_denoiser=False, optimize=False, device="cpu")
MODEL: Any = VOICE.tts_model
READY = time.perf_counter() - STARTED
TEXT = "the quick brown fox jumps over the lazy dog and runs away to the far hills"


def _dtype() -> torch.dtype:
    return next(MODEL.base_lm.parameters()).dtype


@torch.inference_mode()
def prefill(request: dict[str, Any]) -> float:
    """Run text positions through LocEnc, TSLM, FSQ, fusion and RALM, as its inference loop does before the first patch."""
    n, config = request["positions"], MODEL.config
    tokens = torch.randint(110, config.lm_config.vocab_size, (1, n))
    features = torch.zeros(1, n, config.patch_size, config.feat_dim, dtype=_dtype())
    text_mask = torch.ones(1, n, dtype=torch.int32)
    audio_mask = torch.zeros(1, n, dtype=torch.int32)

    def work() -> None:
        feat_embed = MODEL.enc_to_lm_proj(MODEL.feat_encoder(features))
        embed = text_mask.unsqueeze(-1) * MODEL.base_lm.embed_tokens(tokens) + audio_mask.unsqueeze(-1) * feat_embed
        hidden, _ = MODEL.base_lm(inputs_embeds=embed.to(_dtype()), is_causal=True)
        hidden = MODEL.fsq_layer(hidden) * audio_mask.unsqueeze(-1) + hidden * text_mask.unsqueeze(-1)
        fused = MODEL.fusion_concat_proj(
            torch.cat((hidden, audio_mask.unsqueeze(-1) * feat_embed), dim=-1).to(_dtype())
        )
        MODEL.residual_lm(inputs_embeds=fused, is_causal=True)

    return timed(work)


@torch.inference_mode()
def tslm_step(request: dict[str, Any]) -> float:
    """One TSLM step at a position with a cache of a given length."""
    MODEL.base_lm.setup_cache(1, request["cache"], "cpu", _dtype())
    step = torch.randn(1, MODEL.config.lm_config.hidden_size, dtype=_dtype())
    position = torch.tensor([request["position"]])
    seconds = timed(lambda: [MODEL.base_lm.forward_step(step, position) for _ in range(10)]) / 10
    MODEL.base_lm.setup_cache(1, MODEL.config.max_length, "cpu", _dtype())
    return seconds


@torch.inference_mode()
def latents(request: dict[str, Any]) -> float:
    """Return seconds per patch of latents only, from runs of `patches` and 1 patch (so prefill cancels)."""
    ids = torch.LongTensor([*MODEL.text_tokenizer(TEXT), 101])
    n = len(ids)
    config = MODEL.config
    feat = torch.zeros(n, config.patch_size, config.feat_dim, dtype=_dtype())
    ones, zeros = torch.ones(n, dtype=torch.int32), torch.zeros(n, dtype=torch.int32)

    def run(patches: int) -> float:
        parts = [x.unsqueeze(0) for x in (ids, ones, feat, zeros)]
        return timed(
            lambda: MODEL.inference(
                *parts, min_len=patches, max_len=patches, inference_timesteps=request["steps"], cfg_value=request["cfg"]
            )
        )

    many = request["patches"]
    return (run(many) - run(1)) / (many - 1)


@torch.inference_mode()
def codec_chunk(request: dict[str, Any]) -> float:
    """Seconds for one streamed patch through the codec's decoder."""
    z = torch.randn(1, MODEL.config.feat_dim, MODEL.config.patch_size)
    with MODEL.audio_vae.streaming_decode() as stream:
        for _ in range(2):
            stream.decode_chunk(z) if hasattr(stream, "decode_chunk") else stream(z)
        step = stream.decode_chunk if hasattr(stream, "decode_chunk") else stream
        return timed(lambda: [step(z) for _ in range(request["chunks"])]) / request["chunks"]


def streaming(request: dict[str, Any]) -> float:
    """Median seconds between chunks of a streamed generation."""
    torch.manual_seed(0)
    stamps = [time.perf_counter()]
    patches = request["patches"]
    for _ in VOICE.generate_streaming(
        TEXT, min_len=patches, max_len=patches, cfg_value=request["cfg"], inference_timesteps=request["steps"]
    ):
        stamps.append(time.perf_counter())
    gaps = sorted(b - a for a, b in pairwise(stamps[1:]))
    return gaps[len(gaps) // 2]


def first_chunk(request: dict[str, Any]) -> float:
    """Seconds from the call to the first chunk of audio."""
    stream = VOICE.generate_streaming(TEXT, max_len=3, cfg_value=request["cfg"], inference_timesteps=request["steps"])
    seconds = timed(lambda: next(stream))
    stream.close()
    return seconds


def many(request: dict[str, Any]) -> float:
    """Seconds for `batch` texts of `patches` patches each, one after the other: it has no batched generation."""
    patches = request["patches"]

    def work() -> None:
        for _ in range(request["batch"]):
            VOICE.generate(
                TEXT,
                min_len=patches,
                max_len=patches,
                cfg_value=request["cfg"],
                inference_timesteps=request["steps"],
                retry_badcase=False,
            )

    return timed(work)


if __name__ == "__main__":
    answer(
        {
            "ready": lambda request: READY,
            "prefill": prefill,
            "tslm_step": tslm_step,
            "latents": latents,
            "codec_chunk": codec_chunk,
            "streaming": streaming,
            "first_chunk": first_chunk,
            "many": many,
        }
    )
