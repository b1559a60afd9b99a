"""Compare three ways of running AudioVAE on this machine's CPU: its published size, the same random weights.

    OMP_NUM_THREADS=1 python benchmarks/codec.py [--threads 1] [--repeats 9] [--json FILE]

* naive: weight norm computed at every call, convolutions by torch, histories carried by concatenation;
* weights folded: the same, with the normalized weights computed once;
* ours: `AudioVAE.fold_weight_norm()`.

The ways take turns within each repetition, so other load on the machine affects all of them alike. Medians are reported.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from voxcpm.audiovae import AudioVAE, AudioVAEConfig
from voxcpm.audiovae.layers import WeightNorm

CHUNK_FRAMES = 4  # one patch of the language model: 160 ms
FULL_FRAMES = 100  # 4 s
FRAMES_PER_SECOND = 25


def with_constant_weights(codec: AudioVAE) -> AudioVAE:
    """The trainable form, but each layer returns a weight computed once."""
    for module in codec.modules():
        if isinstance(module, WeightNorm):
            constant = module.weight().detach()
            module.weight = lambda constant=constant: constant  # type: ignore[method-assign, misc]
    return codec


def streamer(codec: AudioVAE, z: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a function that decodes the next chunk of an endless stream."""
    state = codec.init_decoder_state()

    def step() -> torch.Tensor:
        nonlocal state
        wav, state = codec.decode_stream(z, state)
        return wav

    return step


def measure(ways: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way, measured in turns after one warm-up round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            if repeat:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


@torch.inference_mode()
def main() -> None:
    """Print the table; write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    naive = AudioVAE(AudioVAEConfig()).eval()
    codecs = {"naive": naive, "weights folded": with_constant_weights(copy.deepcopy(naive))}
    codecs["ours"] = copy.deepcopy(naive).fold_weight_norm()
    z = torch.randn(1, naive.config.latent_dim, FULL_FRAMES)
    wav = 0.1 * torch.randn(1, 1, FULL_FRAMES * naive.config.hop_length)
    patch = z[..., :CHUNK_FRAMES]

    seconds = FULL_FRAMES / FRAMES_PER_SECOND
    tasks: dict[str, tuple[float, int, dict[str, Callable[[], torch.Tensor]]]] = {
        "stream, ms per 160 ms chunk": (1e3, arguments.repeats, {n: streamer(c, patch) for n, c in codecs.items()}),
        "decode 4 s, RTF": (
            1 / seconds,
            max(3, arguments.repeats // 2),
            {n: partial(c.decode, z) for n, c in codecs.items()},
        ),
        "encode 4 s, RTF": (
            1 / seconds,
            max(3, arguments.repeats // 2),
            {n: partial(c.encode, wav) for n, c in codecs.items()},
        ),
    }
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {arguments.threads} thread(s), float32"
    )
    print(f"{'':30}" + "".join(f"{name:>18}" for name in codecs) + f"{'naive / ours':>16}")
    table: dict[str, dict[str, float]] = {}
    for task, (factor, repeats, ways) in tasks.items():
        table[task] = {name: factor * median for name, median in measure(ways, repeats).items()}
        row = "".join(f"{value:18.3f}" for value in table[task].values())
        print(f"{task:30}{row}{table[task]['naive'] / table[task]['ours']:15.1f}x", flush=True)
    if arguments.json is not None:
        about = {"torch": torch.__version__, "threads": arguments.threads, "machine": platform.machine()}
        arguments.json.write_text(json.dumps({"about": about, "medians": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
