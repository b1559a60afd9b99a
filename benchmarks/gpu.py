"""Inference of the published 2B configuration on a GPU, with random weights, compared with the bounds of benchmarks/patch_cost.py.

    python benchmarks/gpu.py [--streams 1,8,16,32,64] [--patches 60] [--no-compile] [--write docs/benchmarks.md]

All streams start together and run in one batch; the codec streams too. Printed: the real-time factor at batch 1 with and
without the time to the first chunk, seconds of audio per second, chunks that are later than playback (underruns), the time to
the first audio (median and 95 %), and the device's memory. `--tiny` runs a small model on any machine, to test the script.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from inference import _replace_section  # noqa: E402

from benchmarks.patch_cost import patch_cost  # noqa: E402
from voxcpm.audiovae import AudioVAE, AudioVAEConfig  # noqa: E402
from voxcpm.config import VoxCPM2Config  # noqa: E402
from voxcpm.engine.batch import stream_patches  # noqa: E402
from voxcpm.engine.request import GenerationRequest  # noqa: E402
from voxcpm.kernels.compiled_tower import compile_towers  # noqa: E402
from voxcpm.kernels.packed_linear import pack_linears  # noqa: E402
from voxcpm.kernels.roofline import GPUS  # noqa: E402
from voxcpm.model.backbone import VoxCPM2  # noqa: E402
from voxcpm.presets import published_dict  # noqa: E402
from voxcpm.sequence.prompt_layout import Layout  # noqa: E402

TEXT_POSITIONS = 40


@dataclass(frozen=True)
class Streamed:
    """One run of n streams: seconds from the start to each chunk, the same for all streams."""

    streams: int
    arrivals: list[float]
    patch_s: float

    @property
    def audio_per_second(self) -> float:
        """Seconds of audio of all streams per second."""
        return self.streams * len(self.arrivals) * self.patch_s / self.arrivals[-1]

    @property
    def underruns(self) -> int:
        """The number of chunks of one stream that are later than playback."""
        start = self.arrivals[0]
        return sum(at > start + i * self.patch_s for i, at in enumerate(self.arrivals))

    @property
    def factors(self) -> tuple[float, float]:
        """Real-time factor (from the request, from the first chunk)."""
        seconds = len(self.arrivals) * self.patch_s
        later = (self.arrivals[-1] - self.arrivals[0]) / (seconds - self.patch_s) if len(self.arrivals) > 1 else 0.0
        return self.arrivals[-1] / seconds, later


def stream(model: VoxCPM2, codec: AudioVAE, streams: int, patches: int) -> Streamed:
    """Speak `streams` texts of random tokens in one batch, `patches` patches each."""
    config = model.config
    empty = torch.zeros(0, config.patch_size, config.feat_dim)
    text = torch.randint(200, config.lm_config.vocab_size, (TEXT_POSITIONS,))
    layout = Layout(text, torch.zeros(TEXT_POSITIONS, dtype=torch.bool), empty, TEXT_POSITIONS, 0)
    requests = [
        GenerationRequest(layout, seed=i, min_len=patches, max_len=patches, ratio_threshold=None)
        for i in range(streams)
    ]
    arrivals = []
    started = time.perf_counter()
    state = codec.init_decoder_state(streams)
    for step in stream_patches(model, requests):
        latents = torch.stack([patch.latents for patch in step]).transpose(1, 2).to(model.device)
        with torch.inference_mode():
            audio, state = codec.decode_stream(latents.float(), state)
            audio.cpu()
        arrivals.append(time.perf_counter() - started)
    return Streamed(streams, arrivals, config.out_patch_samples / config.out_sample_rate)


def build(device: torch.device, tiny: bool, compiled: bool) -> tuple[VoxCPM2, AudioVAE]:
    """Build the model in bfloat16 and the codec in float32, in their inference forms."""
    if tiny:
        from voxcpm.presets import config_dict

        config = VoxCPM2Config.from_dict(config_dict("toy", 8192))
    else:
        config = VoxCPM2Config.from_dict(published_dict())
    torch.manual_seed(0)
    model = VoxCPM2.from_config(config, torch.Generator(device).manual_seed(0), device)
    model = model.to(torch.bfloat16).eval().requires_grad_(False)
    codec = AudioVAE(AudioVAEConfig.from_dict(config.audio_vae_config)).to(device).eval().fold_weight_norm()
    return (compile_towers(model) if compiled else pack_linears(model)), codec  # type: ignore[return-value]


def main() -> None:
    """Run all sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,8,16,32,64")
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write", type=Path, help="markdown file whose gpu section is replaced")
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not arguments.tiny:
        sys.exit("no CUDA device is here: --tiny runs a small model on the CPU, without figures that mean anything")
    device = torch.device("cuda" if on_gpu else "cpu")
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    compiled = not arguments.no_compile and not arguments.tiny
    model, codec = build(device, arguments.tiny, compiled)
    cost = patch_cost(model.config, positions=TEXT_POSITIONS + arguments.patches // 2)
    figures = next((value for key, value in GPUS.items() if key.split()[0] in name), None)
    lines = [f"{name}, torch {torch.__version__}, {'compiled' if compiled else 'eager'}, bfloat16, random weights; medians of "
             f"{arguments.rounds} runs of {arguments.patches} patches.", "",
             "| streams | RTF | RTF after first chunk | audio-s/s | underruns | first audio p50 / p95, ms | GiB | of limit |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for streams in (int(part) for part in arguments.streams.split(",")):
        stream(model, codec, streams, 3)  # compiles and warms up
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        runs = [stream(model, codec, streams, arguments.patches) for _ in range(arguments.rounds)]
        first = sorted(run.arrivals[0] * 1e3 for run in runs)
        factors = [statistics.median(column) for column in zip(*(run.factors for run in runs), strict=True)]
        speed = statistics.median(run.audio_per_second for run in runs)
        memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
        share = ""
        if figures is not None:
            bandwidth, peak = figures
            # The weights are read once per patch for all streams; the arithmetic is done for each stream.
            floor = max(cost.bytes / bandwidth, streams * cost.flops / peak) / cost.seconds
            share = f"{floor / factors[1]:.0%}"
        lines.append(
            f"| {streams} | {factors[0]:.4f} | {factors[1]:.4f} | {speed:.1f} | {max(run.underruns for run in runs)} "
            f"| {statistics.median(first):.0f} / {first[int(0.95 * (len(first) - 1))]:.0f} | {memory:.1f} | {share} |"
        )
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, "gpu", text)


if __name__ == "__main__":
    main()
