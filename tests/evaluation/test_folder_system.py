"""A folder of audio as a system: each item gets its file, one file is one take, and what is not certain is an error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.errors import EvaluationError, SpeakError
from evaluation.items import Item
from evaluation.run import run_settings
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.systems.base import Ask, Speech
from evaluation.systems.folder import Folder


def files(folder: Path, *names: str) -> Folder:
    """Write a file per name; its level is a tenth of its place, from 1."""
    for place, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(80, place / 10, np.float32), 8000)
    return Folder(str(folder))


def heard(system: Folder, *names: str, seed: int = 0) -> list[int | str]:
    """Return the place of the file that each item of a name gets; a text if there is none."""
    answers = system.speak([Ask(Item(f"text of {name}", "en", name), seed) for name in names])
    return [
        round(10 * float(answer.samples[0])) if isinstance(answer, Speech) else type(answer).__name__
        for answer in answers
    ]


def test_a_dot_is_part_of_a_name(tmp_path: Path) -> None:
    system = files(tmp_path, "utt.1.wav", "utt.2.wav", "utt.wav")
    assert heard(system, "utt.1", "utt.2.wav", "utt", "utt.3") == [1, 2, 3, SpeakError.__name__]


def test_names_with_folders(tmp_path: Path) -> None:
    system = files(tmp_path, "en/x.wav", "it/x.wav", "deep/de/y.wav", "z.wav")
    assert heard(system, "en/x", "it/x.wav", "fr/x", "de/y", "y", "en/z") == [1, 2, SpeakError.__name__, 3, 3, 4]
    with pytest.raises(EvaluationError, match=r"en/x\.wav and \S+it/x\.wav could both be the take of x; keep one"):
        heard(system, "x")


def test_two_endings_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"x\.flac and \S+x\.wav could both"):
        heard(files(tmp_path, "x.wav", "x.flac"), "x")


def test_an_item_is_found_by_its_id(tmp_path: Path) -> None:
    item = Item("hello", "en", "x")
    (answer,) = files(tmp_path, "x.wav", f"{item.id}.wav").speak([Ask(item, 0)])
    assert isinstance(answer, Speech) and answer.samples[0] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize(
    ("names", "seeded"),
    [
        (["61-70968-0001.wav", "61-70968-0002.wav"], False),
        (["a-1.wav", "b-2.wav"], False),
        (["a-0.wav", "a-1.wav", "b.wav"], True),
        (["en/a-0.wav", "it/a-1.wav"], False),
    ],
)
def test_seeds_are_several_takes_of_one_name(tmp_path: Path, names: list[str], seeded: bool) -> None:
    assert files(tmp_path, *names).seeded is seeded


def test_a_take_of_each_seed(tmp_path: Path) -> None:
    system = files(tmp_path, "a-0.wav", "a-1.wav", "a.wav")
    assert [heard(system, "a", seed=seed) for seed in (0, 1, 2)] == [[1], [2], [3]]
    assert heard(files(tmp_path / "other", "utt.wav", "utt-1.wav"), "utt", "utt-1", seed=1) == [1, 2]


def made(folder: Path, system: Folder, names: list[str], seeds: tuple[int, ...] = (0,)) -> Run:
    run = create_run(folder, run_settings(system), [Item(f"text of {name}", "en", name) for name in names], seeds)
    generate(run, system)
    return run


def test_one_file_is_one_take(tmp_path: Path) -> None:
    flat = files(tmp_path / "flat", "x.wav")
    for _ in range(2):
        with pytest.raises(EvaluationError, match=r"x\.wav would be the take of both en/x \(\w+\) and it/x \(\w+\)"):
            made(tmp_path / "one", flat, ["en/x", "it/x"])
    assert not list(Run(tmp_path / "one").generated.rows())
    counted = files(tmp_path / "counted", "utt-1.wav", "utt-2.wav")
    with pytest.raises(
        EvaluationError, match=r"utt-1\.wav would be the takes of utt-1 with the seeds 0 and 1; give one seed"
    ):
        made(tmp_path / "two", counted, ["utt-1", "utt-2"], (0, 1))
    read = files(tmp_path / "read", "61-70968-0001.wav", "61-70968-0002.wav")
    run = made(tmp_path / "three", read, ["61-70968-0001", "61-70968-0002"], (0, 1, 2))
    assert sorted(row["seed"] for row in run.generated.rows()) == [0, 0]


def test_replaced_files_are_another_system(tmp_path: Path) -> None:
    made(tmp_path / "run", files(tmp_path / "audio", "a.wav", "b.wav"), ["a", "b"])
    made(tmp_path / "run", Folder(str(tmp_path / "audio")), ["a", "b"])
    with pytest.raises(EvaluationError, match=r"another system or settings \(files: "):
        made(tmp_path / "run", files(tmp_path / "audio", "b.wav", "a.wav"), ["a", "b"])


def test_a_run_of_an_older_version_is_continued(tmp_path: Path) -> None:
    system = files(tmp_path / "audio", "a.wav", "b.wav")
    path = made(tmp_path / "run", system, ["a"]).root / "run.json"
    settings = json.loads(path.read_text())
    del settings["system"]["files"]
    path.write_text(json.dumps(settings))
    run = made(tmp_path / "run", system, ["a", "b"])
    assert len(list(run.generated.rows())) == 2
    assert Run(run.root).settings["system"] == system.describe()
