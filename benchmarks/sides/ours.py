"""This package, run in its own environment: `python ours.py CHECKPOINT THREADS [int8]`."""

from __future__ import annotations

import random
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent.parent)]

import torch  # noqa: E402

torch.set_num_threads(int(sys.argv[2]))

from protocol import answer, timed  # noqa: E402

from voxcpm import VoxCPM  # noqa: E402
from voxcpm.inference.utterance import Utterance  # noqa: E402

OPTIONS: dict[str, Any] = {"dtype": "int8"} if sys.argv[3:] == ["int8"] else {}
VOICE: Any = VoxCPM.from_pretrained(sys.argv[1], load_denoiser=False, device="cpu", **OPTIONS)
MODEL: Any = VOICE.tts_model
BACKBONE: Any = MODEL.backbone
READY = time.perf_counter() - STARTED
TEXT = "the quick brown fox jumps over the lazy dog and runs away to the far hills"

from voxcpm.engine.batch import stream_patches  # noqa: E402
from voxcpm.engine.request import GenerationRequest  # noqa: E402
from voxcpm.kernels.int8_linear import Int8Linear  # noqa: E402
from voxcpm.kernels.packed_linear import PackedLinear  # noqa: E402
from voxcpm.model.attention import CAUSAL  # noqa: E402
from voxcpm.model.decode_state import DecodeState, KVCache  # noqa: E402
from voxcpm.model.flow import Solver  # noqa: E402
from voxcpm.sequence.prompt_layout import build_layout  # noqa: E402

LINEARS = (torch.nn.Linear, PackedLinear, Int8Linear)


def _run(patches: int, request: dict[str, Any], batch: int = 1) -> None:
    """Generate latents of `batch` requests of `patches` patches each."""
    layout = build_layout(MODEL.text_tokenizer, MODEL.config, TEXT)
    requests = [
        GenerationRequest(
            layout, i, request["cfg"], patches, patches, ratio_threshold=None, solver=Solver(request["steps"])
        )
        for i in range(batch)
    ]
    for _ in stream_patches(BACKBONE, requests):
        pass


@torch.inference_mode()
def prefill(request: dict[str, Any]) -> float:
    """Text positions through TSLM, FSQ, fusion and RALM."""
    layout = build_layout(MODEL.text_tokenizer, MODEL.config, TEXT)
    n = request["positions"]
    layout = type(layout)(
        torch.randint(110, MODEL.config.lm_config.vocab_size, (n,)),
        torch.zeros(n, dtype=torch.bool),
        layout.patches,
        n,
        0,
    )
    state = DecodeState.allocate(MODEL.config, 1, n + 8, BACKBONE.dtype, "cpu")
    return timed(lambda: BACKBONE.prefill([layout], state))


@torch.inference_mode()
def tslm_step(request: dict[str, Any]) -> float:
    """One TSLM step at a position with a cache of a given length."""
    # Only the cache is made, because it may be longer than the model's context.
    cache = KVCache(MODEL.config.tslm, 1, request["cache"], BACKBONE.dtype, "cpu")
    position = request["position"]
    step = torch.randn(1, 1, MODEL.config.lm_config.hidden_size, dtype=BACKBONE.dtype)
    at = torch.tensor([position])

    def work() -> None:
        for _ in range(10):
            cache.prepare_step([position], at)
            BACKBONE.base_lm(step, CAUSAL, at.unsqueeze(1), cache=cache)

    return timed(work) / 10


def latents(request: dict[str, Any]) -> float:
    """Return seconds per patch of latents only, from runs of `patches` and 1 patch (so prefill cancels)."""
    many = request["patches"]
    batch = request.get("batch", 1)
    return (timed(lambda: _run(many, request, batch)) - timed(lambda: _run(1, request, batch))) / (many - 1)


@torch.inference_mode()
def codec_chunk(request: dict[str, Any]) -> float:
    """Seconds for one streamed patch through the codec's decoder."""
    z = torch.randn(1, MODEL.config.feat_dim, MODEL.config.patch_size)
    state = MODEL.audio_vae.init_decoder_state(1)
    for _ in range(2):
        _, state = MODEL.audio_vae.decode_stream(z, state)

    def work() -> None:
        carried = state
        for _ in range(request["chunks"]):
            _, carried = MODEL.audio_vae.decode_stream(z, carried)

    return timed(work) / request["chunks"]


def streaming(request: dict[str, Any]) -> float:
    """Median seconds between chunks of a streamed generation."""
    stamps = [time.perf_counter()]
    patches = request["patches"]
    for _ in VOICE.generate_streaming(
        TEXT, min_len=patches, max_len=patches, cfg_value=request["cfg"], inference_timesteps=request["steps"], seed=0
    ):
        stamps.append(time.perf_counter())
    gaps = sorted(b - a for a, b in pairwise(stamps[1:]))
    return gaps[len(gaps) // 2]


def first_chunk(request: dict[str, Any]) -> float:
    """Seconds from the call to the first chunk of audio."""
    stream = VOICE.generate_streaming(
        TEXT, max_len=3, cfg_value=request["cfg"], inference_timesteps=request["steps"], seed=0
    )
    seconds = timed(lambda: next(stream))
    stream.close()
    return seconds


def many(request: dict[str, Any]) -> float:
    """Seconds for `batch` texts of `patches` patches each, batched, on one core."""
    patches = request["patches"]
    return timed(
        lambda: VOICE.generate_batch(
            [TEXT] * request["batch"],
            workers=1,
            min_len=patches,
            max_len=patches,
            cfg_value=request["cfg"],
            inference_timesteps=request["steps"],
            seed=0,
        )
    )


def mixed(request: dict[str, Any]) -> float:
    """Seconds for `requests` texts of 1 to `patches` patches, at most `batch` at once, on all cores."""
    draw = random.Random(0)
    lengths = [draw.randint(1, request["patches"]) for _ in range(request["requests"])]
    items = [Utterance(TEXT, min_len=length, max_len=length) for length in lengths]
    return timed(
        lambda: VOICE.generate_batch(
            items,
            max_batch=request["batch"],
            cfg_value=request["cfg"],
            inference_timesteps=request["steps"],
            seed=0,
        )
    )


@torch.inference_mode()
def bare_products(request: dict[str, Any]) -> float:
    """Return seconds of the bare matrix products of one patch at a batch size, by the model's linears and nothing else."""
    batch = request["batch"]
    guided = 2 if request["cfg"] != 1 else 1
    solver = Solver(steps=request["steps"])
    calls = solver.steps - solver.zero_steps
    config = MODEL.config
    p = config.patch_size
    local = {"feat_encoder": (p + 1, 1, batch), "base_lm": (1, 1, batch), "residual_lm": (1, 1, batch)}
    local["feat_decoder"] = (3 + 2 * p, calls, batch * guided)
    plan: list[tuple[torch.Tensor, torch.nn.Module, int]] = []
    for name, module in BACKBONE.named_modules():
        if not isinstance(module, LINEARS) or "time_mlp" in name or name.startswith("stop"):
            continue
        tokens, times, rows = local.get(name.split(".")[0], (1, 1, batch))
        if name.endswith("estimator.cond_proj") or name.endswith("encoder.in_proj"):
            tokens, times = p, 1
        elif name.endswith(("estimator.in_proj", "estimator.out_proj")):
            tokens = p
        last = {"feat_encoder": config.locenc.layers - 1, "feat_decoder": config.locdit.layers - 1}.get(
            name.split(".")[0]
        )
        if f".layers.{last}." in name and not name.endswith(("k_proj", "v_proj")):
            # The last block computes the needed positions only: the products must be those of the model.
            tokens = p if name.startswith("feat_decoder") else 1
        plan.append((torch.randn(rows * tokens, module.in_features, dtype=BACKBONE.dtype), module, times))

    # LocDiT's weights are read repeatedly in one patch, the others once: the weights are read in the order of a patch.
    estimator = [item for item in plan if item[2] > 1]
    rest = [item for item in plan if item[2] == 1]

    def in_order() -> None:
        for x, linear, _ in rest:
            linear(x)
        for _ in range(calls):
            for x, linear, _ in estimator:
                linear(x)

    return timed(in_order)


def read_bandwidth(request: dict[str, Any]) -> float:
    """Bytes per second that this process reads from memory: the best of five passes over `bytes` bytes, past every cache."""
    data = torch.ones(request["bytes"] // 4)
    return request["bytes"] / min(timed(data.sum) for _ in range(5))


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
            "mixed": mixed,
            "bare_products": bare_products,
            "read_bandwidth": read_bandwidth,
        }
    )
