"""Voices of a corpus: a clip is nearer to its own voice than to others, and one person is never another voice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpus_builders import FINGERPRINT, make_unit

from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from pipeline.synthesis.voices import SAME_PERSON, Voiceprints, Voices

WIDTH = 8


def print_of(axis: int, lean: float = 0.0) -> np.ndarray:
    """A voiceprint along one axis that leans toward the next one."""
    vector = np.zeros(WIDTH, np.float32)
    vector[axis], vector[(axis + 1) % WIDTH] = 1.0, lean
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sessions: a person alone, another with two clusters, and the first again in another room."""
    root = tmp_path_factory.mktemp("voices") / "corpus"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    plan = {
        "a": [("anna", 0, 0.0)] * 3,
        "b": [("bert", 2, 0.0), ("bert-loud", 2, 0.9), ("bert", 2, 0.0)],
        "c": [("anna-2", 0, 0.2)] * 3,
    }
    for name, clips in plan.items():
        unit = make_unit(name, 4)
        for row, (speaker, axis, lean) in zip(unit.rows, clips, strict=False):
            row |= {"speaker": speaker, "embedding": print_of(axis, lean)}
        commit_unit(root, unit)
    return root


def test_a_clip_belongs_to_its_voice(corpus: Path) -> None:
    found = Voices(corpus).of({"anna", "bert"})
    assert found.margin("anna", print_of(0)) == pytest.approx(1.0, abs=0.05)
    stranger = found.margin("anna", print_of(2))
    assert stranger is not None and stranger < -0.9
    # In between, the sign says which is nearer; length does not matter.
    middle = found.margin("anna", 5 * (print_of(0) * 1.2 + print_of(2)))
    assert middle is not None and 0 < middle < 0.5


def test_one_person_is_never_another_voice(corpus: Path) -> None:
    assert float(print_of(0) @ print_of(0, 0.2)) > SAME_PERSON > float(print_of(2) @ print_of(2, 0.9))
    found = Voices(corpus).of({"anna", "bert"})
    # anna-2 is as near as anna, and bert-loud is in bert's session: both leave the margin as it is.
    assert found.margin("anna", print_of(0, 0.2)) == pytest.approx(0.98, abs=0.05)
    loud = found.margin("bert", print_of(2, 0.9))
    assert loud is not None and loud > 0.5


def test_what_is_not_known_has_no_margin(corpus: Path) -> None:
    found = Voices(corpus).of({"anna"})
    assert found.margin("nobody", print_of(0)) is None and found.margin("anna", None) is None
    assert found.margin("anna", np.ones(3, np.float32)) is None
    assert Voiceprints().margin("anna", print_of(0)) is None
