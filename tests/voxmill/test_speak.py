"""`voxmill speak` on the tiny golden checkpoint: every layout and option, and one clear line for what cannot be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from catalogs.vocabulary.speech_length import generous_seconds
from voxcpm import VoxCPM
from voxcpm.provenance.files import read_marks
from voxcpm.provenance.source import checkpoint_digest
from voxcpm.sequence.text_pieces import split_text
from voxcpm.watermark import detect, payload_of
from voxmill import cli

PROMPT = "It was the best of times, "
QUICK = ("--steps", "2", "--seed", "7", "--max-seconds", "0.8", "--no-watermark")
FIXED = (*QUICK, "--min-seconds", "0.8")
BREATH = 7680  #: samples of a patch, 160 ms at 48 kHz


@pytest.fixture(scope="module")
def place(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, good and bad."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("speak")
    stored = load_file(golden / "generation.safetensors")
    for name in ("ref", "prompt"):
        soundfile.write(folder / f"{name}.wav", stored[f"{name}_wav_16k"].numpy(), 16000, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "short.wav", np.full(800, 0.5), 16000)
    (folder / "broken.wav").write_bytes(b"RIFFnonsense")
    (folder / "lines.txt").write_text("Hello world\n\nIt was the worst\nHi\n", encoding="utf-8")
    (folder / "empty.txt").write_text("\n \n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """A checkpoint is loaded once for each way of loading it; each time with an adapter, which changes it."""
    honest, found = VoxCPM.from_pretrained, {}

    def load(*arguments: Any, **options: Any) -> VoxCPM:
        if options["lora_weights_path"] is not None:
            return honest(*arguments, **options)
        key = repr((arguments, options))
        if key not in found:
            found[key] = honest(*arguments, **options)
        return found[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(VoxCPM, "from_pretrained", load)
        yield


@pytest.fixture
def speak(golden: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command in the folder; returns its JSON."""
    monkeypatch.chdir(place)

    def run(*arguments: str) -> Any:
        command = ["speak", *arguments, "--model", str(golden / "checkpoint"), "--json"]
        done = CliRunner().invoke(cli.app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


@pytest.fixture
def usual(speak: Any, place: Path) -> np.ndarray:
    """What is said of a fixed length without any other option; spoken once."""
    if not (place / "usual.wav").exists():
        speak("Hello world", "-o", "usual.wav", *FIXED)
    return heard(place / "usual.wav")


def heard(path: Path) -> np.ndarray:
    """The audio, checked to be what is promised."""
    about = soundfile.info(path)
    assert (about.format, about.subtype, about.samplerate, about.channels) == ("WAV", "PCM_16", 48000, 1)
    wav, _ = soundfile.read(path, dtype="float32")
    assert len(wav) and len(wav) % BREATH == 0 and np.abs(wav).max() > 0
    return wav


LAYOUTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "described": ("--describe", "A calm old man"),
    "reference": ("--reference", "ref.wav"),
    "reference, described": ("--reference", "ref.wav", "--describe", "slower"),
    "prompt": ("--prompt", "prompt.wav", "--prompt-text", PROMPT),
    "both": ("--prompt", "prompt.wav", "--prompt-text", PROMPT, "--reference", "ref.wav"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_whole_and_streamed(layout: str, speak: Any, place: Path) -> None:
    said = speak("Hello world", "-o", "new/whole.wav", *QUICK, *LAYOUTS[layout])
    whole = heard(place / "new" / "whole.wav")
    assert said["sample_rate"] == 48000 and said["seconds"] == pytest.approx(len(whole) / 48000)
    assert 4 * BREATH <= len(whole) <= 5 * BREATH
    assert said["seed"] == 7 and said["files"][0]["out"] == "new/whole.wav"
    speak("Hello world", "-o", "streamed.wav", "--stream", *QUICK, *LAYOUTS[layout], "--retry", "1")
    # Both are rounded to 16 bits.
    np.testing.assert_allclose(heard(place / "streamed.wav"), whole, atol=2e-3)


def test_the_layouts_are_different(speak: Any, place: Path, usual: np.ndarray) -> None:
    said = [usual]
    for layout, options in LAYOUTS.items():
        if options:
            speak("Hello world", "-o", f"{layout}.wav", *FIXED, *options)
            said.append(heard(place / f"{layout}.wav"))
    assert len(said) == len(LAYOUTS)
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(said) for b in said[:i])


def test_a_seed_repeats(speak: Any, place: Path, usual: np.ndarray) -> None:
    speak("Hello world", "-o", "again.wav", *FIXED)
    np.testing.assert_array_equal(heard(place / "again.wav"), usual)


@pytest.mark.parametrize(
    "options",
    [
        ("--cfg", "1"),
        ("--steps", "4"),
        ("--sway", "0"),
        ("--no-cfg-zero-star",),
        ("--temperature", "0.5"),
        ("--seed", "8"),
        ("--dtype", "bfloat16"),
    ],
    ids=" ".join,
)
def test_an_option_changes_what_is_said(options: tuple[str, ...], speak: Any, place: Path, usual: np.ndarray) -> None:
    speak("Hello world", "-o", "other.wav", *FIXED, *options)
    assert np.abs(usual - heard(place / "other.wav")).max() > 1e-3


def test_lora(speak: Any, golden: Path, place: Path, usual: np.ndarray) -> None:
    speak("Hello world", "-o", "adapted.wav", *FIXED, "--lora", str(golden / "lora"))
    assert np.abs(usual - heard(place / "adapted.wav")).max() > 1e-3


@pytest.mark.parametrize("seconds", [0.8, 3.2])
def test_length_is_bounded_from_both_sides(seconds: float, speak: Any, place: Path) -> None:
    # 3.2 s for one token is far beyond what the token count alone would allow.
    said = speak("Hi", "-o", "x.wav", "--steps", "2", "--min-seconds", f"{seconds}", "--max-seconds", f"{seconds}")
    assert said["seconds"] == pytest.approx(seconds)


def test_without_a_bound_the_length_is_plausible(speak: Any) -> None:
    said = speak("It was the worst of times", "-o", "x.wav", "--steps", "2", "--retry", "1")
    assert 0.6 <= said["seconds"] <= generous_seconds("It was the worst of times") + 0.16


def test_numbers_are_written_out(speak: Any, place: Path) -> None:
    speak("I have 3 dogs", "-o", "digits.wav", *FIXED)
    speak("I have 3 dogs", "-o", "written.wav", *FIXED, "--normalize")
    speak("I have three dogs", "-o", "words.wav", *FIXED)
    np.testing.assert_array_equal(heard(place / "written.wav"), heard(place / "words.wav"))
    assert np.abs(heard(place / "digits.wav") - heard(place / "words.wav")).max() > 1e-3


def test_a_file_of_lines_is_a_batch_and_each_line_is_what_it_is_alone(speak: Any, place: Path) -> None:
    fixed = (*FIXED, "--reference", "ref.wav", "--describe", "calm")
    said = speak("--file", "lines.txt", "-o", "spoken", *fixed)
    assert [item["out"] for item in said["files"]] == ["spoken/001.wav", "spoken/002.wav", "spoken/003.wav"]
    assert sorted(path.name for path in (place / "spoken").iterdir()) == ["001.wav", "002.wav", "003.wav"]
    speak("It was the worst", "-o", "alone.wav", *fixed)
    np.testing.assert_allclose(heard(place / "spoken" / "002.wav"), heard(place / "alone.wav"), atol=2e-3)


@pytest.mark.parametrize("layout", ["reference", "prompt", "both"])
def test_a_kept_voice_is_the_voice(layout: str, speak: Any, place: Path) -> None:
    kept = place / "kept" / "voice.safetensors"
    only = speak("--save-voice", str(kept), *LAYOUTS[layout])
    assert kept.is_file() and only["files"] == [] and only["voice"] == str(kept)
    speak("Hello world", "-o", "clips.wav", *QUICK, *LAYOUTS[layout])
    speak("Hello world", "-o", "kept.wav", *QUICK, "--voice", str(kept))
    np.testing.assert_array_equal(heard(place / "clips.wav"), heard(place / "kept.wav"))


def test_long_text_is_spoken_whole(speak: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of 4 s at most instead of 12 s: this model does not end before it must, and no test needs 72 s of audio."""
    pieces: list[list[str]] = []

    def split(text: str, longest_s: float) -> list[str]:
        pieces.append(split_text(text, longest_s / 3))
        return pieces[-1]

    said_each: list[tuple[str, int]] = []
    honest = VoxCPM.generate_long_streaming

    def follow(*arguments: Any, **options: Any) -> Iterator[tuple[str, np.ndarray]]:
        for piece, audio in honest(*arguments, **options):
            said_each.append((piece, len(audio)))
            yield piece, audio

    monkeypatch.setattr("voxcpm.inference.long_text.split_text", split)
    monkeypatch.setattr(VoxCPM, "generate_long_streaming", follow)
    text = " ".join(["It was the best of times, it was the worst."] * 2)
    said = speak(
        text, "--long", "-o", "long.wav", "--steps", "2", "--seed", "7", "--retry", "1", "--reference", "ref.wav"
    )
    assert [len(found) for found in pieces] == [2] and " ".join(pieces[0]) == text
    assert said["seconds"] > 5 and len(heard(place / "long.wav")) / 48000 == pytest.approx(said["seconds"])
    assert [piece for piece, _ in said_each] == pieces[0]
    assert sum(length for _, length in said_each) / 48000 == pytest.approx(said["seconds"])


ERRORS: list[tuple[str, tuple[str, ...], str]] = [
    ("no text", (), "the text is empty"),
    ("empty text", ("", "-o", "x.wav"), "the text is empty"),
    ("blank text", (" \n", "-o", "x.wav"), "the text is empty"),
    ("no output", ("Hello",), "-o speech.wav"),
    ("output is a folder", ("Hello", "-o", "."), "is a folder"),
    ("no model", ("Hello", "-o", "x.wav", "--model", "/nowhere"), "no checkpoint folder at /nowhere"),
    ("an empty model", ("Hello", "-o", "x.wav", "--model", "."), "config.json not found"),
    ("no reference", ("Hello", "-o", "x.wav", "--reference", "nobody.wav"), "no audio file at nobody.wav"),
    ("no prompt", ("Hello", "-o", "x.wav", "--prompt", "nobody.wav", "--prompt-text", "a"), "no audio file"),
    ("prompt, no text", ("Hello", "-o", "x.wav", "--prompt", "prompt.wav"), "without its text"),
    ("text, no prompt", ("Hello", "-o", "x.wav", "--prompt-text", "words"), "without its audio"),
    ("unreadable", ("Hello", "-o", "x.wav", "--reference", "broken.wav"), "broken.wav cannot be decoded"),
    ("silent", ("Hello", "-o", "x.wav", "--reference", "silent.wav"), "silent.wav is silent"),
    ("too short", ("Hello", "-o", "x.wav", "--reference", "short.wav"), "short.wav is 0.05 s long"),
    ("a text file", ("Hello", "-o", "x.wav", "--reference", "lines.txt"), "lines.txt cannot be decoded"),
    ("cfg", ("Hello", "-o", "x.wav", "--cfg", "11"), "cfg_value 11 is outside 0.1..10"),
    ("steps", ("Hello", "-o", "x.wav", "--steps", "0"), "inference_timesteps 0 is outside 1..100"),
    ("temperature", ("Hello", "-o", "x.wav", "--temperature", "-1"), "--temperature -1 is outside 0..2"),
    ("sway", ("Hello", "-o", "x.wav", "--sway", "3"), "--sway 3 is outside"),
    ("retry", ("Hello", "-o", "x.wav", "--retry", "0"), "--retry 0"),
    ("seconds", ("Hello", "-o", "x.wav", "--min-seconds", "3", "--max-seconds", "2"), "above --max-seconds"),
    ("no time", ("Hello", "-o", "x.wav", "--max-seconds", "0"), "--max-seconds 0 must be above 0"),
    ("dtype", ("Hello", "-o", "x.wav", "--dtype", "int3"), "--dtype int3 is not one of"),
    ("device", ("Hello", "-o", "x.wav", "--device", "toaster"), "device 'toaster' is not available"),
    ("lora", ("Hello", "-o", "x.wav", "--lora", "nowhere"), "no LoRA adapter at nowhere"),
    ("not a lora", ("Hello", "-o", "x.wav", "--lora", "."), "holds no lora_weights.safetensors"),
    ("denoiser", ("Hello", "-o", "x.wav", "--reference", "ref.wav", "--denoise", "no.onnx"), "no denoiser at no.onnx"),
    ("no voice", ("Hello", "-o", "x.wav", "--voice", "no.safetensors"), "no kept voice at no.safetensors"),
    ("not a voice", ("Hello", "-o", "x.wav", "--voice", "ref.wav"), "ref.wav is not a prompt cache"),
    ("voice and clip", ("Hello", "-o", "x.wav", "--voice", "v", "--reference", "ref.wav"), "stands for the clips"),
    ("voice of nothing", ("--save-voice", "v.safetensors"), "needs a clip"),
    ("voice's name", ("--save-voice", "v.pt", "--reference", "ref.wav"), "must end in .safetensors"),
    ("described prompt", ("Hello", "-o", "x.wav", "--describe", "a", "--prompt", "prompt.wav", "--prompt-text", "b"),
     "exclude each other"),
    ("no lines", ("--file", "nowhere.txt", "-o", "out"), "no text file at nowhere.txt"),
    ("empty lines", ("--file", "empty.txt", "-o", "out"), "empty.txt holds no text"),
    ("lines are audio", ("--file", "ref.wav", "-o", "out"), "ref.wav is not UTF-8 text"),
    ("text and lines", ("Hello", "--file", "lines.txt", "-o", "out"), "not both"),
    ("lines into a file", ("--file", "lines.txt", "-o", "ref.wav"), "is a file"),
    ("lines streamed", ("--file", "lines.txt", "-o", "out", "--stream"), "--stream is for one text"),
    ("long and bounded", ("Hello", "-o", "x.wav", "--long", "--max-seconds", "2"), "--long has no"),
    ("beyond the context", ("Hello world " * 300, "-o", "x.wav"), "leaves no room to speak"),
    ("beyond it, streamed", ("Hello world " * 300, "-o", "x.wav", "--stream"), "leaves no room to speak"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_one_clear_line(
    arguments: tuple[str, ...],
    words: str,
    golden: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    for name in ("x.wav", "v.safetensors"):
        (place / name).unlink(missing_ok=True)
    model = () if "--model" in arguments else ("--model", str(golden / "checkpoint"))
    monkeypatch.setattr(sys, "argv", ["voxmill", "speak", *model, *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("voxmill: ") and words in lines[0], said
    assert "unexpected" not in said
    assert not (place / "x.wav").exists() and not (place / "out").exists() and not (place / "v.safetensors").exists()


@pytest.mark.parametrize(("name", "kind"), [("a.mp3", "MP3"), ("a.flac", "FLAC"), ("a.OGG", "OGG")])
def test_the_file_is_what_its_name_says(speak: Any, place: Path, name: str, kind: str) -> None:
    speak("Hello", "-o", name, *QUICK)
    assert soundfile.info(place / name).format == kind
    (place / name).unlink()


@pytest.mark.parametrize("ways", [(), ("--stream",), ("--long",)])
def test_a_file_states_what_made_it(ways: tuple[str, ...], speak: Any, place: Path, golden: Path) -> None:
    quick = ("--steps", "2", *(() if "--long" in ways else ("--max-seconds", "0.8")))
    said = speak("Hello world", "-o", "stated.wav", *quick, *ways)
    stated = read_marks(place / "stated.wav")
    assert stated is not None and stated.created and (stated.model, stated.seed) == ("checkpoint", said["seed"])
    assert stated.checkpoint == checkpoint_digest(golden / "checkpoint")
    # The seed that is stated gives the same audio.
    again = ("--seed", str(stated.seed), "--no-mark")
    speak("Hello world", "-o", "again.wav", *quick, *ways, *again)
    assert read_marks(place / "again.wav") is None
    np.testing.assert_array_equal(heard(place / "again.wav"), heard(place / "stated.wav"))


def test_each_file_of_a_batch_states_its_seed(speak: Any, place: Path) -> None:
    speak("--file", "lines.txt", "-o", "stated", "--steps", "2", "--max-seconds", "0.8")
    seeds = {stated.seed for path in (place / "stated").iterdir() if (stated := read_marks(path)) is not None}
    assert len(seeds) == 3 and None not in seeds
    speak("--file", "lines.txt", "-o", "plain", *QUICK, "--no-mark")
    assert not any(map(read_marks, (place / "plain").iterdir()))


def test_standard_output_gets_the_audio_and_nothing_else(golden: Path) -> None:
    command = ["speak", "Hello world", "--model", str(golden / "checkpoint"), "-o", "-", *QUICK]
    whole = CliRunner().invoke(cli.app, command, catch_exceptions=False)
    streamed = CliRunner().invoke(cli.app, [*command, "--stream"], catch_exceptions=False)
    assert whole.exit_code == streamed.exit_code == 0
    for done in (whole, streamed):
        assert done.stdout_bytes.startswith(b"RIFF") and b"s of audio" in done.stderr_bytes
    # The headers state the length and the time; the statement in them makes them longer than 44 bytes.
    samples = [done.stdout_bytes.partition(b"data")[2][4:] for done in (whole, streamed)]
    assert samples[0] == samples[1] and len(samples[0]) > 4 * BREATH


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "a.m4a"), "the name's ending says the format"),
        (("-o", "a"), "the name's ending says the format"),
        (("-o", "a.mp3", "--stream"), "a stream is written as WAV only"),
        (("-o", "-", "--json"), "both write to standard output"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_loaded(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CliRunner().invoke(cli.app, ["speak", "Hello", "--model", "nowhere", *arguments], catch_exceptions=False)


# -- the watermark -----------------------------------------------------------------------------------------------------


def test_speech_has_a_watermark_that_follows_from_the_request(speak: Any, place: Path, tmp_path: Path) -> None:
    """The golden checkpoint speaks noise, in which the mark is found all the same."""
    long = ("--steps", "2", "--seed", "7", "--min-seconds", "2.4", "--max-seconds", "2.4", "--retry", "1")
    for name, options in {"a": (), "b": (), "streamed": ("--stream",), "plain": ("--no-watermark",)}.items():
        speak(PROMPT, "-o", f"mark_{name}.wav", *long, *options)
    marked, again, streamed, plain = (heard(place / f"mark_{name}.wav") for name in ("a", "b", "streamed", "plain"))
    assert np.array_equal(marked, again) and not np.array_equal(marked, plain)
    assert len(streamed) == len(marked) and np.abs(streamed - marked).max() < 1e-3
    found, clear = detect(marked, 48_000)[0], detect(plain, 48_000)[0]
    stated = read_marks(place / "mark_a.wav")
    assert found.marked and not clear.marked and stated is not None and stated.checkpoint is not None
    assert found.payload == payload_of(stated.checkpoint)
