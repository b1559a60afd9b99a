"""Voices and sessions with a model behind them: what is stored and spoken is what the model makes in this process."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner
from voxcpm_fixtures import GoldenSet

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")
pytest.importorskip("websockets", reason="the extra serve is not installed")

from speech_service import Service
from websockets.sync.client import connect

from voxcpm.inference.prompt_cache import make_prompt_cache
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.server.settings import ServerSettings
from voxcpm.server.voices.files import read_tensors
from voxcpm.server.voices.store import VoiceFolder
from voxmill import cli

CONSENT = "I agree that my voice is used."


@pytest.fixture(scope="module")
def checkpoint(golden_set: GoldenSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint with another stop head: every utterance ends as soon as it may, so that the next one continues it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for path in golden_set.checkpoint.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).symlink_to(path)
    tensors = load_file(golden_set.checkpoint / "model.safetensors")
    tensors["stop_proj.weight"].zero_()
    tensors["stop_proj.bias"].fill_(1.0)
    tensors["stop_head.weight"][0], tensors["stop_head.weight"][1] = -1.0, 1.0
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> VoxCPM2Model:
    torch.set_num_threads(1)
    return VoxCPM2Model.from_local(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def clip(golden_set: GoldenSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of at least a second at the codec's rate."""
    wave = golden_set["generation"]["ref_wav_16k"].numpy()
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    soundfile.write(path, np.tile(wave, 1 + 16_000 // len(wave)), 16_000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="module")
def service(checkpoint: Path, voices: Path) -> Iterator[Service]:
    with Service({"checkpoint": str(checkpoint), "worker": ServerSettings("").worker, "voices": voices}) as found:
        yield found


def upload(service: Service, name: str, clip: Path, **fields: str) -> dict[str, Any]:
    border = "border"
    parts = [
        f'--{border}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in {"name": name, "consent": CONSENT, **fields}.items()
    ]
    head = f'--{border}\r\nContent-Disposition: form-data; name="audio_sample"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    body = b"".join([*parts, head.encode(), clip.read_bytes(), f"\r\n--{border}--\r\n".encode()])
    answer = service.ask("POST", "/v1/audio/voices", body, {"Content-Type": f"multipart/form-data; boundary={border}"})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def close(found: np.ndarray[Any, Any], expected: torch.Tensor) -> bool:
    return found.shape == tuple(expected.shape) and bool(np.abs(found - expected.numpy()).max() < 2e-3)


def test_an_uploaded_voice_is_what_the_model_encodes(
    service: Service, model: VoxCPM2Model, clip: Path, voices: Path
) -> None:
    made = upload(service, "anna", clip, ref_text="Some words.")
    stored = read_tensors(voices / f"{made['id']}.safetensors")
    assert close(stored["ref_audio_feat"], model.encode_file(clip, "right"))
    assert close(stored["audio_feat"], model.encode_file(clip, "left"))


def test_the_command_makes_the_same_voices(
    service: Service, checkpoint: Path, clip: Path, voices: Path, tmp_path: Path
) -> None:
    upload(service, "bob", clip)
    designed = {"name": "old", "type": "prompt", "prompt": "A calm man", "seed": 3, "script_hint": "Hi."}
    assert service.ask("POST", "/v1/audio/voices", designed, {"Content-Type": "application/json"}).status == 200
    where = ["--voices", str(tmp_path), "--model", str(checkpoint), "--device", "cpu", "--json"]

    def run(*words: str) -> Any:
        done = CliRunner().invoke(cli.app, ["voice", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    run("add", "bob", str(clip), "--consent", CONSENT, *where)
    run("design", "old", "--describe", "A calm man", "--seed", "3", "--text", "Hi.", *where)
    there, here = VoiceFolder(voices), VoiceFolder(tmp_path)
    for name in ("bob", "old"):
        one, other = there.find(name), here.find(name)
        assert one is not None and other is not None
        same = ("name", "kind", "consent", "seconds", "description", "seed", "checkpoint", "file_size")
        assert all(getattr(one, key) == getattr(other, key) for key in same)
        assert close(there.latents(one)["ref_audio_feat"], torch.from_numpy(here.latents(other)["ref_audio_feat"]))
    assert [voice["name"] for voice in run("list", "--voices", str(tmp_path), "--json")] == ["bob", "old"]
    assert run("export", "old", "--voices", str(tmp_path), "-o", str(tmp_path / "out"), "--json")["voices"] == ["old"]
    assert run("remove", "bob", "--voices", str(tmp_path), "--json")["name"] == "bob"
    assert [voice.name for voice in here.all()] == ["old"]


def test_a_session_continues_as_the_model_does(service: Service, model: VoxCPM2Model, clip: Path) -> None:
    """Each unit of a session has the audio of a continuation in this process, to the tolerance of the engine."""
    url = "data:audio/wav;base64," + base64.b64encode(clip.read_bytes()).decode()
    config = {
        "ref_audio": url,
        "seed": 11,
        "instructions": "A calm man",
        "inference_timesteps": 3,
        "max_new_tokens": 8,
        "min_len": 2,
        "sample_rate": model.sample_rate,
    }
    texts = ["It was the best of times. ", "It was the worst of times. ", "It was the age of wisdom. "]
    with connect(f"ws://127.0.0.1:{service.port}/v1/audio/speech/stream") as socket:
        socket.send(
            json.dumps({"type": "session.config", "stream_audio": True, "split_granularity": "sentence", **config})
        )
        for text in texts:
            socket.send(json.dumps({"type": "input.text", "text": text}))
        socket.send(json.dumps({"type": "input.done"}))
        heard: list[bytes] = []
        while True:
            message = socket.recv(60)
            if isinstance(message, bytes):
                heard[-1] += message
                continue
            kind = json.loads(message)["type"]
            assert kind != "error", message
            if kind == "audio.start":
                heard.append(b"")
            if kind == "session.done":
                break
    assert len(heard) == 3
    cache = make_prompt_cache("", None, model.encode_file(clip, "right"))
    for number, (text, data) in enumerate(zip(texts, heard, strict=True)):
        options = SpeakOptions(min_len=2, max_len=8, inference_timesteps=3, seed=11 + number)
        steps = list(
            model.speak_patches(model.layout(("(A calm man)" if number == 0 else "") + text.strip(), cache), options)
        )
        expected = np.concatenate([audio[0].numpy() for audio, _ in steps])
        samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        assert samples.shape == expected.shape and np.abs(samples - np.clip(expected, -1, 1)).max() < 2e-3
        assert 0.3 < len(steps) * 0.16 < 1.0 and steps[-1][1].ending == "stop"
        made = torch.stack([patch.latents for _, patch in steps])
        cache = make_prompt_cache(text.strip(), made, cache["ref_audio_feat"])
