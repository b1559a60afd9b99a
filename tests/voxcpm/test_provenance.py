"""The statement that audio is synthetic: in every format, streamed and whole, read back by us, mutagen and FFmpeg."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutagen
import mutagen.id3
import numpy as np
import pytest
import soundfile
from encoded_audio import RATE, STATEMENT, decoded, encoded, sweep, tags
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.weights import checkpoint_files
from voxcpm.inference.write_audio import FORMATS as WRITTEN
from voxcpm.inference.write_audio import write_audio, write_stream
from voxcpm.provenance import id3, mp4, ogg, riff, vorbis
from voxcpm.provenance.files import marked, read_marks
from voxcpm.provenance.source import Source, checkpoint_digest
from voxcpm.provenance.statement import Statement, generator
from voxcpm.server.encode import FORMATS

WAV = sweep(12_000)
ANSWERS = sorted(set(FORMATS) - {"pcm"})
LABEL = json.loads(STATEMENT.label())


def files() -> dict[str, bytes]:
    """A marked file of every kind, by the name of its kind."""
    answers = {
        f"{name} {kind}": encoded(name, WAV, whole=kind == "whole")
        for name in ANSWERS
        for kind in ("streamed", "whole")
    }
    return answers | {f"written {suffix}": _written(suffix) for suffix in WRITTEN}


def _written(suffix: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"speech{suffix}"
        write_audio(path, WAV, RATE, STATEMENT)
        return path.read_bytes()


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return files()


KINDS = [*(f"{name} {kind}" for name in ANSWERS for kind in ("streamed", "whole")), *(f"written {s}" for s in WRITTEN)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_that_it_is_synthetic(kind: str, made: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(made[kind])
    assert read_marks(path) == STATEMENT

    by_ffmpeg = tags(made[kind])
    assert json.loads(by_ffmpeg["comment"]) == STATEMENT.to_dict() and json.loads(by_ffmpeg["aigc"]) == LABEL
    assert by_ffmpeg["encoder"] == generator()

    comment, label = _by_mutagen(kind, path)
    assert json.loads(comment) == STATEMENT.to_dict() and json.loads(label) == LABEL


def _by_mutagen(kind: str, path: Path) -> tuple[str, str]:
    if kind.startswith("aac"):
        # mutagen takes raw AAC behind a tag for MP3; the tag itself is plain.
        found: Any = mutagen.id3.ID3(path)  # type: ignore[no-untyped-call]
    else:
        found = mutagen.File(path).tags
    if "COMM::eng" in found:
        return found["COMM::eng"].text[0], found["TXXX:AIGC"].text[0]
    if kind.startswith("m4a"):
        return found["\xa9cmt"][0], found["----:com.apple.iTunes:AIGC"][0].decode()
    return found["comment"][0], found["aigc"][0]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_the_samples_of_a_marked_file_are_those_of_an_unmarked_one(suffix: str, tmp_path: Path) -> None:
    plain, stated = tmp_path / f"plain{suffix}", tmp_path / f"stated{suffix}"
    write_audio(plain, WAV, RATE, mark=False)
    write_audio(stated, WAV, RATE, STATEMENT)
    assert read_marks(plain) is None
    np.testing.assert_array_equal(decoded(plain.read_bytes())[0], decoded(stated.read_bytes())[0])
    np.testing.assert_array_equal(soundfile.read(plain)[0], soundfile.read(stated)[0])


def test_files_are_marked_by_default(tmp_path: Path) -> None:
    writers: list[Callable[[Path], int]] = [
        lambda path: write_audio(path, WAV, RATE),
        lambda path: write_stream(path, RATE, iter([WAV[:5000], WAV[5000:]])),
    ]
    for write in writers:
        write(tmp_path / "speech.wav")
        stated = read_marks(tmp_path / "speech.wav")
        assert stated is not None and stated.generator == generator() and stated.created and stated.seed is None
    write_stream(tmp_path / "plain.wav", RATE, iter([WAV]), mark=False)
    assert read_marks(tmp_path / "plain.wav") is None and (tmp_path / "plain.wav").stat().st_size == 44 + 2 * len(WAV)


def test_an_answer_without_a_statement_holds_none(tmp_path: Path) -> None:
    for name in ANSWERS:
        (tmp_path / "audio").write_bytes(encoded(name, WAV, whole=True, statement=None))
        assert read_marks(tmp_path / "audio") is None


def test_the_comments_of_a_long_ogg_are_replaced() -> None:
    """Vorbis has three packets before the audio; the pages after them get other numbers and checksums."""
    sink = io.BytesIO()
    noise = np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32) * 0.1
    soundfile.write(sink, noise, RATE, format="OGG", subtype="VORBIS")
    whole = marked(sink.getvalue(), STATEMENT)
    again = marked(whole, Statement("another"))
    for data in (whole, again):
        np.testing.assert_array_equal(decoded(data)[0], decoded(sink.getvalue())[0])
    assert json.loads(tags(again)["comment"])["model"] == "another"


# -- the statement -----------------------------------------------------------------------------------------------------

WORDS = st.none() | st.text(max_size=300)


@settings(max_examples=40)
@given(WORDS, WORDS, st.none() | st.integers(-(2**63), 2**63), WORDS, WORDS)
def test_any_statement_comes_back_from_its_tags(
    model: str | None, checkpoint: str | None, seed: int | None, request_id: str | None, created: str | None
) -> None:
    stated = Statement(model, checkpoint, seed, request_id, created)
    found = stated.tags()
    assert all(text.isascii() and text.isprintable() for text in found.values())
    assert Statement.from_tags(found) == stated
    for data, read in (
        (id3.id3_tag(found), id3.read_id3),
        (vorbis.vorbis_comments(found), vorbis.read_comments),
        (riff.wav_header(RATE, 0, found), lambda data: next(riff.read_riff(io.BytesIO(data[12:])))),
    ):
        assert Statement.from_tags(read(data)) == stated
    assert all(text.isascii() and text.isprintable() for text in stated.headers().values())


def test_headers() -> None:
    assert STATEMENT.headers() == {
        "X-Synthetic": "1",
        "X-Generator": generator(),
        "X-Checkpoint": "0123456789abcdef",
        "X-Seed": "7",
        "X-Created": "2026-11-30T06:00:00Z",
    }
    assert Statement(created=None).headers() == {"X-Synthetic": "1", "X-Generator": generator()}


@pytest.mark.parametrize(
    ("found", "stated"),
    [
        ({"AIGC": '{"Label": "1", "ContentProducer": "them", "ProduceID": "9"}'}, ("them", "9")),
        ({"aigc": '{"Label": 1}'}, ("not named", None)),
        ({"AIGC": '{"Label": "2", "ContentProducer": "them"}'}, None),
        ({"AIGC": '{"Label": true}'}, None),
        ({"AIGC": "[1]", "COMMENT": "a song"}, None),
        ({"COMMENT": '{"synthetic": "yes", "generator": "x"}'}, None),
        ({"COMMENT": '{"synthetic": true}'}, None),
        ({"COMMENT": '{"synthetic": true, "generator": "x", "seed": true, "model": 3}'}, ("x", None)),
        ({"DESCRIPTION": '{"synthetic": true, "generator": "x", "request_id": "r"}'}, ("x", "r")),
        ({"COMMENT": "[" * 9000}, None),
        ({"COMMENT": '{"synthetic": true, "generator": "' + "x" * 20_000 + '"}'}, None),
    ],
)
def test_labels_of_others_and_what_is_none(found: dict[str, str], stated: tuple[str, str | None] | None) -> None:
    read = Statement.from_tags(found)
    assert (read and (read.generator, read.request_id)) == stated
    assert read is None or (read.seed is None and read.model is None)


def test_tags_that_other_programs_write_are_read(tmp_path: Path) -> None:
    text = STATEMENT.to_json()
    chunk = b"INFOICMT" + len(text).to_bytes(4, "little") + text.encode()
    chunk = b"LIST" + len(chunk).to_bytes(4, "little") + chunk
    plain = encoded("wav", WAV, whole=True, statement=None)
    (tmp_path / "after.wav").write_bytes(plain + chunk)
    tag: Any = mutagen.id3.ID3()  # type: ignore[no-untyped-call]
    tag.add(mutagen.id3.TXXX(encoding=1, desc="comment", text=[text]))  # type: ignore[no-untyped-call]
    mp3 = tmp_path / "utf16.mp3"
    mp3.write_bytes(encoded("mp3", WAV, whole=True, statement=None))
    tag.save(mp3)
    (tmp_path / "behind.flac").write_bytes(id3.id3_tag({"COMMENT": "a song"}) + encoded("flac", WAV, whole=True))
    for path in tmp_path.iterdir():
        assert read_marks(path) == STATEMENT, path


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_have_a_statement_or_none(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    whole = bytearray(_some()[data.draw(st.sampled_from(sorted(_some())))])
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, min(len(whole), 1500) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = read_marks(path)
    assert found is None or isinstance(found, Statement)


def _some(kept: dict[str, bytes] = {}) -> dict[str, bytes]:  # noqa: B006
    return kept or kept.update(files()) or kept


@given(st.binary(max_size=300))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    for read in (lambda file: list(riff.read_riff(file)), ogg.read_ogg, mp4.read_mp4):
        read(io.BytesIO(data))
    id3.read_id3(b"ID3\4\0\0\0\0\2\1" + data)
    vorbis.read_comments(data)


# -- the checkpoint ----------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_rest_of_voxmill(tmp_path: Path) -> None:
    model, lora = tmp_path / "step_10", tmp_path / "lora"
    for folder in (model, lora):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "notes.txt").write_text("not a part of it")
    assert checkpoint_digest(model) == checkpoint_files.checkpoint_digest(model)
    assert checkpoint_digest(model, lora) == checkpoint_files.checkpoint_digest(model, lora) != checkpoint_digest(model)
    assert checkpoint_digest(model, lora / "model.safetensors") != checkpoint_digest(model)
    (tmp_path / "latest").symlink_to(model)
    stated = Source(tmp_path / "latest", tmp_path / "latest", lora).statement(3, "r")
    assert (stated.model, stated.seed, stated.request_id) == ("step_10", 3, "r")
    assert stated.checkpoint == checkpoint_digest(model, lora) and str(tmp_path) not in stated.to_json()
    assert Source(model, "openbmb/VoxCPM2").statement(None).model == "openbmb/VoxCPM2"
    gone = Source(tmp_path / "gone").statement(3)
    assert gone.model == "gone" and Source(None).statement(3).checkpoint is None
