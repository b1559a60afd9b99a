"""Worker of `official:`: the official voxcpm package behind the protocol of evaluation/systems/process.py.

It runs in the environment of that package and imports nothing of voxmill. It cannot be imported, because in our environment the
name voxcpm is another package.
"""

if __name__ != "__main__":
    raise ImportError("run this file with the Python of the official voxcpm package")

import argparse
import importlib.metadata
import json
import os
import sys
import time

# Answers get the real standard output. What the libraries print goes to standard error.
ANSWERS = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

RATIO, ATTEMPTS = 6.0, 3
"""Patches per token that are too many, and attempts: the package's own defaults."""


def answer(**fields):
    """Print one line of the protocol."""
    ANSWERS.write("VOXMILL " + json.dumps(fields, ensure_ascii=False) + "\n")
    ANSWERS.flush()


def arguments():
    """Return what `official:` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--recipe", default="both")
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--noise", choices=("torch", "voxmill"), default="torch")
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


class Noise:
    """Replaces `torch.randn` while a text is spoken, so that patch n gets the noise of voxmill for (seed, n)."""

    def __init__(self, torch):
        self.torch, self.honest = torch, torch.randn

    def begin(self, seed):
        """Start a generation."""
        self.seed, self.index = seed, 0
        self.torch.randn = self.draw

    def end(self):
        """Put the library's function back."""
        self.torch.randn = self.honest

    def draw(self, *shape, **options):
        """Return [1, D, P]; other shapes are drawn as before."""
        if len(shape) != 1 or not isinstance(shape[0], tuple) or len(shape[0]) != 3:
            return self.honest(*shape, **options)
        _, width, frames = shape[0]
        mixed = self.seed * 0x9E3779B97F4A7C15 + self.index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB
        mixed &= 2**64 - 1
        mixed = ((mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93) & (2**63 - 1)
        self.index += 1
        drawn = self.honest(frames, width, generator=self.torch.Generator().manual_seed(mixed))
        return drawn.T[None].to(options.get("device"), options.get("dtype"))


class Speaker:
    """The loaded model."""

    def __init__(self, options):
        import torch

        from voxcpm import VoxCPM

        self.torch, self.options = torch, options
        device = None if options.device == "auto" else options.device
        self.model = VoxCPM.from_pretrained(
            options.checkpoint, load_denoiser=False, optimize=options.compile, device=device
        )
        self.tts = self.model.tts_model
        self.noise = Noise(torch)
        self.synchronize = torch.cuda.synchronize if str(self.tts.device).startswith("cuda") else lambda: None
        self.warm_ups = 3 if str(self.tts.device).startswith("cuda") else 1

    def given(self, ask):
        """Return the arguments of `generate` by the recipe."""
        recipe, clip = self.options.recipe, ask["reference"]
        found = {"text": ask["text"]}
        if recipe in ("design", "controllable"):
            words = " ".join(ask["instruction"].replace("(", "").replace(")", "").split())
            found["text"] = f"({words}){ask['text']}" if words else ask["text"]
        if recipe in ("reference", "both", "controllable"):
            found["reference_wav_path"] = clip
        if recipe in ("continuation", "both"):
            found |= {"prompt_wav_path": clip, "prompt_text": ask["reference_text"]}
        return found

    def speak(self, ask, most=None):
        """Speak one text and return the fields of its answer. most: patches at most."""
        import soundfile

        given = self.given(ask)
        patch_s = self.tts.patch_size * self.tts._decode_chunk_size / self.tts.sample_rate
        limit = most or (max(round(ask["max_seconds"] / patch_s), 4) if ask.get("max_seconds") else 4096)
        # The package makes its text in one line before it counts tokens.
        tokens = len(self.tts.text_tokenizer(" ".join(given["text"].split())))
        warm_ups, self.warm_ups = self.warm_ups, 0
        for _ in range(warm_ups):
            self.speak(ask, 4)
        self.synchronize()
        started = time.perf_counter()
        for attempt in range(ATTEMPTS if self.options.retry and not most else 1):
            wav = self.once(given, ask["seed"] + attempt, limit)
            patches = round(len(wav) / self.tts.sample_rate / patch_s)
            cut = patches >= min(int(tokens * RATIO + 10), limit)
            if not cut and patches < tokens * RATIO:
                break
        self.synchronize()
        wall = time.perf_counter() - started
        soundfile.write(ask["out"], wav, self.tts.sample_rate, subtype="FLOAT")
        return {"wall_s": wall, "attempts": attempt + 1, "reached_limit": cut}

    def once(self, given, seed, limit):
        """Generate once."""
        self.torch.manual_seed(seed)
        if self.options.noise == "voxmill":
            self.noise.begin(seed)
        try:
            return self.model.generate(
                **given,
                cfg_value=self.options.cfg,
                inference_timesteps=self.options.steps,
                max_len=limit,
                retry_badcase=False,
            )
        finally:
            self.noise.end()


def main():
    """Answer lines until standard input ends."""
    options = arguments()
    try:
        version = importlib.metadata.version("voxcpm")
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{sys.executable} has no package voxcpm; make one with: make upstream-venv")
    speaker = Speaker(options)
    settings = {name: value for name, value in vars(options).items() if name != "checkpoint"}
    settings |= {"device": str(speaker.tts.device), "torch": speaker.torch.__version__}
    settings["dtype"] = str(speaker.tts.config.dtype)
    answer(name="official voxcpm", version=version, seeded=True, settings=settings)
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer(id=ask["id"], **speaker.speak(ask))
        except Exception as error:
            answer(id=ask["id"], error=" ".join(f"{type(error).__name__}: {error}".split()))


main()
