"""A folder of recordings with every kind of transcript beside them, and the same folder in every kind of container."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import fsspec
from fakes.recordings import noise, write

RATE = 16_000
KINDS = ("tar", "tar.gz", "tgz", "tar.xz", "zip", "file-url", "memory-url", "tar-url", "zip-url")

SRT = "1\n00:00:00,100 --> 00:00:00,400\nGood evening.\n\n2\n00:00:00,500 --> 00:00:00,900\nMy name is Allison.\n"
GRID = '"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "words" 0 1 1 0.25 0.75 "hello"'
TEXTS = {
    "srt.srt": SRT,
    "vtt.vtt": "WEBVTT\n\n" + SRT.replace(",", "."),
    "lab.lab": "0 5000000 hello\n5000000 9000000 there\n",
    "grid.TextGrid": GRID,
    "json.json": json.dumps({"segments": [{"start": 0.1, "end": 0.4, "text": "One."}], "fps": 25}),
    "plain.txt": "  two\nlines ",
    "whole.wav.txt": "named after the whole name",
    "de.de.srt": SRT.replace("Good evening", "Guten Abend"),
    "de.en.srt": SRT,
    "both.srt": SRT,
    "both.txt": "the worse kind",
    "broken.srt": "no times here",
    "broken.txt": "the next one is taken",
    "none.json": '{"fps": 25}',
}
#: Recordings, each with what is beside it under its name; `listed` is in `metadata.csv`.
STEMS = (*dict.fromkeys(name.split(".")[0] for name in TEXTS), "listed")


def make_folder(root: Path, seed: int = 0) -> Path:
    """`root/talks` with a recording for each transcript, and things that are neither."""
    folder = root / "talks"
    for number, stem in enumerate(STEMS):
        write(folder / "day" / f"{stem}.wav", noise(0.3 + 0.01 * number, RATE, seed=seed + number), RATE)
    for name, text in TEXTS.items():
        (folder / "day" / name).write_text(text, encoding="utf-8")
    (folder / "metadata.csv").write_text("file_name,text\nday/listed.wav,from the list\n", encoding="utf-8")
    (folder / "cover.jpg").write_bytes(b"no audio")
    (folder / ".hidden.wav").write_bytes(b"no audio")
    return folder


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put a member into a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def pack(folder: Path, kind: str, to: Path) -> str:
    """The argument for `prepare` that names the same recordings, packed as `kind` in the folder `to`."""
    to.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == "file-url":
        shutil.copytree(folder, to / folder.name)
        return f"file://{to / folder.name}"
    if kind.startswith("zip"):
        path = to / "talks.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder).as_posix())
    elif kind != "memory-url":
        path = to / f"talks.{kind.removesuffix('-url')}"
        with tarfile.open(path, "w:xz" if kind.endswith("xz") else "w:gz" if kind.endswith("gz") else "w") as tar:
            for file in files:
                add(tar, f"./{file.relative_to(folder).as_posix()}", file.read_bytes())
    if not kind.endswith("-url"):
        return str(path)
    memory = fsspec.filesystem("memory")
    bucket = f"/{to.name}-{kind}"
    if kind == "memory-url":
        for file in files:
            memory.pipe(f"{bucket}/talks/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return f"memory:/{bucket}/talks"
    memory.pipe(f"{bucket}/{path.name}", path.read_bytes())
    path.unlink()
    return f"memory:/{bucket}/{path.name}"
