"""Inference of the published 2B configuration on a GPU, with random weights, compared with the bounds of benchmarks/patch_cost.py.

    python benchmarks/gpu.py [--streams 1,8,16,32,64] [--arrivals 16] [--patches 60] [--no-compile] [--write docs/benchmarks.md]

All streams start together and run in one batch; the codec streams too. Printed: the real-time factor at batch 1 with and
without the time to the first chunk, seconds of audio per second, chunks that are later than playback (underruns), the time to
the first audio (median and 95 %), and the device's memory. Then the engine with its scheduler: `--arrivals` requests per second
come at random times, and each is played while it is generated. `--tiny` runs a small model on any machine, to test the script.
"""

from __future__ import annotations

import argparse
import math
import random
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
from voxcpm.engine.engine import EngineBusyError, SpeechEngine, plan_slots  # noqa: E402
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


@dataclass
class Listener:
    """A request of the open loop: when it came, and when each of its chunks was there."""

    came: float
    arrivals: list[float]

    def late(self, patch_s: float) -> int:
        """Return the number of chunks that are later than playback."""
        return sum(at > self.arrivals[0] + i * patch_s for i, at in enumerate(self.arrivals))


def request_of(config: VoxCPM2Config, seed: int, patches: int) -> GenerationRequest:
    """Return a request for `patches` patches with a text of random tokens."""
    empty = torch.zeros(0, config.patch_size, config.feat_dim)
    text = torch.randint(200, config.lm_config.vocab_size, (TEXT_POSITIONS,))
    layout = Layout(text, torch.zeros(TEXT_POSITIONS, dtype=torch.bool), empty, TEXT_POSITIONS, 0)
    return GenerationRequest(layout, seed=seed, min_len=patches, max_len=patches, ratio_threshold=None)


def listen(engine: SpeechEngine, config: VoxCPM2Config, rate: float, seconds: float, patches: int) -> list[Listener]:
    """Let requests come at Poisson times, `rate` in a second, for some seconds; return all that were taken, at their ends.

    Raises EngineBusyError if one is refused: the rate is then too high for this machine.
    """
    draw, listeners = random.Random(0), dict[int, Listener]()
    started = time.perf_counter()
    coming = draw.expovariate(rate)
    while coming < seconds or not engine.idle:
        now = time.perf_counter() - started
        while coming <= now and coming < seconds:
            number = engine.submit(request_of(config, len(listeners), patches))
            listeners[number] = Listener(coming, [])
            coming += draw.expovariate(rate)
        for number, listener in listeners.items():
            if listener.arrivals:
                engine.played(number, min(now - listener.arrivals[0], len(listener.arrivals) * engine.patch_s))
        chunks = engine.step()
        now = time.perf_counter() - started
        for chunk in chunks:
            listeners[chunk.number].arrivals.append(now)
        if not chunks:
            time.sleep(0.001)
    return list(listeners.values())


def _high(ordered: list[float]) -> float:
    """Return the value that 95 % are not above."""
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


def open_loop(model: VoxCPM2, codec: AudioVAE, rate: float, seconds: float, patches: int) -> str:
    """Return a line about the engine with requests that arrive at random."""
    engine = SpeechEngine(model, codec, plan_slots(model, 64 if model.device.type == "cuda" else 4))
    try:
        listen(engine, model.config, rate, seconds / 4, patches)  # compiles, and the engine learns what a step costs
        heard = listen(engine, model.config, rate, seconds, patches)
    except EngineBusyError as error:
        return f"{rate:g} arrivals in a second: refused ({error})."
    first = sorted((one.arrivals[0] - one.came) * 1e3 for one in heard)
    late = sum(one.late(engine.patch_s) > 0 for one in heard)
    return (
        f"{rate:g} arrivals in a second for {seconds:g} s, {patches} patches each: {len(heard)} requests, first audio p50 "
        f"{statistics.median(first):.0f} ms, p95 {_high(first):.0f} ms, {late} with an underrun."
    )


def stream(model: VoxCPM2, codec: AudioVAE, streams: int, patches: int) -> Streamed:
    """Speak `streams` texts of random tokens in one batch, `patches` patches each."""
    config = model.config
    requests = [request_of(config, seed, patches) for seed in range(streams)]
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
    parser.add_argument(
        "--arrivals", type=float, default=16.0, help="requests in a second of the open loop (16); 0: none"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of the open loop (20)")
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
            f"| {statistics.median(first):.0f} / {_high(first):.0f} | {memory:.1f} | {share} |"
        )
        print(lines[-1], flush=True)
    if arguments.arrivals:
        lines += ["", open_loop(model, codec, arguments.arrivals, arguments.seconds, arguments.patches)]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, "gpu", text)


if __name__ == "__main__":
    main()
