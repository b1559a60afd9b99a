"""Make every documented call of the official package's Python API and command line on one checkpoint; print the results.

    python benchmarks/upstream_calls.py --golden ../shared/golden > ours.jsonl
    cd / && /path/to/official/venv/bin/python .../upstream_calls.py --golden /path/to/golden > theirs.jsonl

It runs unchanged with either package, because it uses documented names only. It prints one JSON line per call: its name and the
kind of its result (type, dtype, shape if the arguments determine it) or the kind of its error. The first line names the package.
tests/voxcpm/test_upstream_calls.py compares our answers with the official ones recorded in tests/voxcpm/upstream_calls.json,
which `--record FILE` writes.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import io
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
from official_calls.registry import CALLS, PROMPT_TEXT, Setting, error_kind, kind, package

# Each adds its calls to the list, which is run in this order.
for name in ("speaking", "lora", "tts_model", "command_line"):
    import_module(f"official_calls.{name}")
# The script's folder is first on the path; the package to test is the installed one, or that of the current folder.
sys.path[0] = os.getcwd()  # noqa: PTH109

#: Calls that version 2.0.3 of the official package cannot do if only its required packages, or not all of them, are installed.
NEEDS = {
    "generate/denoise": ("modelscope", "the denoiser (ZipEnhancer) runs in modelscope"),
    "generate/normalize": ("wetext", "text normalization is wetext's (and inflect's)"),
    "cli/design/normalize": ("wetext", "text normalization is wetext's (and inflect's)"),
}


def set_up(golden: Path, folder: Path) -> Setting:
    """Make the clips and manifests that the calls need, and load the model."""
    import soundfile
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    stored = load_file(golden / "generation.safetensors")
    for name in ("ref", "prompt"):
        soundfile.write(folder / f"{name}.wav", stored[f"{name}_wav_16k"].numpy(), 16000, subtype="FLOAT")
    row = {"audio": str(folder / "ref.wav"), "text": "Hello world"}
    texts = {
        "words.txt": PROMPT_TEXT,
        "lines.txt": "Hi\n\nYou\n",
        "empty.txt": "",
        "good.jsonl": json.dumps(row) + "\n" + json.dumps({**row, "ref_audio": row["audio"]}) + "\n",
        "no_text.jsonl": json.dumps({"audio": row["audio"]}) + "\n",
        "no_audio.jsonl": json.dumps({**row, "audio": str(folder / "nowhere.wav")}) + "\n",
        "broken.jsonl": "{nonsense\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    checkpoint = golden / "checkpoint"
    model = package().VoxCPM.from_pretrained(str(checkpoint), load_denoiser=False, optimize=False, device="cpu")
    return Setting(
        model, golden, checkpoint, golden / "lora", str(folder / "ref.wav"), str(folder / "prompt.wav"), folder
    )


def answers(golden: Path, pattern: str = "*") -> Iterator[dict[str, Any]]:
    """Make the calls whose name matches; yield {"call", "result" or "error" or "cannot"}."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            setting = set_up(golden.resolve(), Path(folder))
        for name, make in CALLS.items():
            if not fnmatch.fnmatch(name, pattern):
                continue
            try:
                with contextlib.redirect_stdout(silent):
                    answer: dict[str, Any] = {
                        "result": kind(make(setting)) if not name.startswith("cli/") else make(setting)
                    }
            except Exception as error:
                answer = {"error": error_kind(error)}
                if os.environ.get("UPSTREAM_CALLS_SHOW"):
                    sys.stderr.write(f"{type(error).__name__}: {error}\n")
            package, reason = NEEDS.get(name, ("", ""))
            if package and util.find_spec(package) is None:
                answer["without"] = f"{package} is not installed: {reason}"
            yield {"call": name, **answer}


def about(golden: Path) -> dict[str, str]:
    """Return the versions of the tested package and of torch, and the digest of the checkpoint."""
    digest = hashlib.sha256((golden / "checkpoint" / "model.safetensors").read_bytes()).hexdigest()
    try:
        version = f"voxcpm {metadata.version('voxcpm')}"
    except metadata.PackageNotFoundError:
        version = "voxmill's voxcpm"
    torch = import_module("torch")
    return {"package": version, "torch": torch.__version__, "checkpoint": digest}


def main() -> None:
    """Print the answers, or record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--golden", type=Path, required=True, help="the folder with checkpoint/, lora/ and generation.safetensors"
    )
    parser.add_argument("--only", default="*", help="calls whose name matches this pattern")
    parser.add_argument("--record", type=Path, help="write the answers as one JSON file here")
    options = parser.parse_args()
    print(json.dumps(about(options.golden)), flush=True)
    found = []
    for answer in answers(options.golden, options.only):
        print(json.dumps(answer, ensure_ascii=False), flush=True)
        found.append(answer)
    if options.record:
        recorded = {
            "how": "python benchmarks/upstream_calls.py --golden GOLDEN --record FILE, run from / with the official package",
            **about(options.golden),
            "answers": {answer.pop("call"): answer for answer in found},
        }
        options.record.write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
