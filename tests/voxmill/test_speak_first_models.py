"""`voxmill speak` with VoxCPM 0.5B and VoxCPM1.5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from safetensors.torch import load_file
from typer.testing import CliRunner

from voxmill import cli

GOLDEN = Path(__file__).parents[1] / "voxcpm" / "golden_v1"
RATES = {"voxcpm-0.5b": 16_000, "voxcpm1.5": 44_100}


@pytest.mark.parametrize("name", RATES)
def test_text_prompt_and_reference(name: str, tmp_path: Path) -> None:
    rate, out, prompt = RATES[name], tmp_path / "out.wav", tmp_path / "prompt.wav"
    soundfile.write(prompt, load_file(GOLDEN / name / "golden.safetensors")["prompt"].numpy(), rate)

    def speak(*arguments: str) -> Any:
        model = ("--model", str(GOLDEN / name / "checkpoint"), "--steps", "2", "--seed", "1", "--json")
        return CliRunner().invoke(cli.app, ["speak", "Good morning.", "-o", str(out), *model, *arguments])

    for clips in ((), ("--prompt", str(prompt), "--prompt-text", "The fox speaks first, ")):
        # Seconds are seconds, whether a patch is 80 or 160 ms.
        done = speak("--min-seconds", "0.8", "--max-seconds", "0.8", "--stream", *clips)
        assert done.exit_code == 0, done.output
        assert (
            json.loads(done.stdout)["seconds"] == pytest.approx(0.8) and json.loads(done.stdout)["sample_rate"] == rate
        )
        assert soundfile.info(out).samplerate == rate
        out.unlink()
    refused = speak("--reference", str(prompt), "--describe", "slower")
    assert refused.exit_code != 0 and not out.exists()
    said = str(refused.exception or refused.output)
    assert "takes no reference clip: give the clip as the prompt" in said and "Traceback" not in said
