"""Likeness of voices on recordings of people: the same speaker is nearer than another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from spoken_clips import DESIGN, EREWHON, JFK, Clip, take_of
from toy_runs import Hum, run_folder, toy_settings

from catalogs.weights import registry
from catalogs.weights.verify import WeightsMissing
from evaluation.errors import EvaluationError, SpeakError
from evaluation.items import Item
from evaluation.metrics.base import Metric, Take
from evaluation.metrics.voice import VoiceEcapa, VoiceGe2e, VoiceHuman, VoiceMargin, similarity_matrix, voiceprint
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import rows_of, score
from evaluation.systems.base import Ask, Speech

ACTOR = "ravdess/actor_{0:02d}/03-01-02-0{1}-0{2}-01-{0:02d}.flac"
"""Calm, of an intensity and a sentence."""
KIDS_TEXT = "Kids are talking by the door."


@pytest.fixture(scope="module")
def ge2e() -> VoiceGe2e:
    if not registry.available("ge2e"):
        pytest.skip("weights ge2e are not here: voxmill models pull ge2e")
    metric = VoiceGe2e()
    metric.load()
    return metric


def actor_takes(corpora: Path, wrong: bool = False) -> list[Take]:
    """Return one sentence of each of four actors, whose reference is the other sentence; `wrong`: of the next actor."""
    actors = (1, 2, 3, 4)
    return [
        take_of(
            corpora,
            Clip(ACTOR.format(actor, 2, 1), KIDS_TEXT),
            list_name="acted",
            reference=corpora / ACTOR.format(actors[(place + wrong) % len(actors)], 1, 2),
            groups={"speaker": str(actors[(place + wrong) % len(actors)])},
        )
        for place, actor in enumerate(actors)
    ]


def test_the_same_reader_is_nearer_than_another(ge2e: VoiceGe2e, corpora: Path) -> None:
    same = take_of(corpora, EREWHON, reference=corpora / DESIGN.name)
    other = take_of(corpora, EREWHON, reference=corpora / JFK.name)
    itself = take_of(corpora, EREWHON, reference=corpora / EREWHON.name)
    rows = ge2e.score([same, other, itself])
    cosines = [row["cosine"] for row in rows if row]
    assert len(cosines) == 3 and cosines[2] == pytest.approx(1.0, abs=1e-5)
    assert cosines[0] > 0.8 and cosines[0] > cosines[1] + 0.15


def test_the_margin_tells_own_references_from_swapped_ones(ge2e: VoiceGe2e, corpora: Path) -> None:
    margins = {}
    for wrong in (False, True):
        takes = actor_takes(corpora, wrong)
        for take, row in zip(takes, ge2e.score(takes), strict=True):
            assert row
            take.given["voice_ge2e"] = row
        rows = [row for row in VoiceMargin().score(takes) if row]
        assert len(rows) == 4 and all(row["other_speakers"] == 3 for row in rows)
        assert all(row["margin"] == pytest.approx(row["own"] - row["others"]) for row in rows)
        margins[wrong] = float(np.mean([row["margin"] for row in rows]))
        assert [row["nearest"] for row in rows] == [int(not wrong)] * 4
        asked = [take.item.speaker for take in takes]
        assert [row["nearest_speaker"] == own for row, own in zip(rows, asked, strict=True)] == [not wrong] * 4
    assert margins[False] > 0.15 > 0.0 > margins[True]


def prints(*rows: list[float]) -> list[np.ndarray]:
    return [np.asarray(row, np.float32) for row in rows]


def given_take(name: str, speaker: str, mine: list[float], clip: list[float]) -> Take:
    item = Item(name, "en", list_name="toy", reference=Path(f"{name}.wav"), groups={"speaker": speaker})
    cosine = float(similarity_matrix(prints(mine), prints(clip))[0, 0])
    take = Take(item, 0, "ok", Path("unused.flac"))
    take.given["voice_ge2e"] = {"cosine": cosine, "voiceprint": mine, "clip_voiceprint": clip}
    return take


def test_others_are_the_mean_over_speakers_not_clips() -> None:
    takes = [
        given_take("a", "ann", [1.0, 0.0], [0.6, 0.8]),
        # Two clips of one speaker count as one speaker.
        given_take("b", "bob", [0.0, 1.0], [0.0, 1.0]),
        given_take("c", "bob", [0.0, 1.0], [0.8, 0.6]),
        given_take("d", "cid", [0.0, 1.0], [1.0, 0.0]),
    ]
    ann, *_ = VoiceMargin().score(takes)
    assert ann and ann["own"] == pytest.approx(0.6) and ann["others"] == pytest.approx((0.4 + 1.0) / 2)
    assert ann["nearest"] == 0 and ann["other_speakers"] == 2
    assert VoiceMargin().score(takes[1:3]) == [None, None]


class Failing(Hum):
    """Fails for the texts of one speaker."""

    def __init__(self, speaker: str) -> None:
        super().__init__()
        self.speaker = speaker

    def _answer(self, ask: Ask) -> Speech | Exception:
        return SpeakError("crashed") if ask.item.speaker == self.speaker else super()._answer(ask)


class ByLevel:
    """An encoder without weights: a voiceprint is a direction that the level of a clip chooses."""

    def partials(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        angles = [3.0 * float(abs(clip).max()) for clip in clips]
        return [np.array([[np.cos(angle), np.sin(angle)]], np.float32) for angle in angles]


def test_a_voice_whose_takes_all_failed_is_still_another_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.voice.encoders.load_encoder", lambda name, device: ByLevel())
    items = []
    for number, speaker in enumerate(("ann", "bob", "cid")):
        clip = tmp_path / f"{speaker}.wav"
        soundfile.write(clip, np.full(1600, 0.2 + 0.3 * number, np.float32), 16_000)
        for text in ("one", "two"):
            groups = {"speaker": speaker}
            items.append(Item(f"{speaker} says {text}", "en", list_name="toy", reference=clip, groups=groups))
    found = {}
    for speaker in ("", "bob"):
        system = Failing(speaker)
        run = create_run(tmp_path / f"run{speaker}", toy_settings(system), items, [0])
        generate(run, system)
        metrics: list[Metric] = [VoiceGe2e(), VoiceMargin()]
        assert score(run, metrics).rows["voice_margin"] == (4 if speaker else 6)
        assert score(run, metrics).rows["voice_margin"] == 0
        found[speaker] = rows_of(run, metrics[1], {metric.name: metric for metric in metrics})
    for key, row in found["bob"].items():
        assert row["other_speakers"] == found[""][key]["other_speakers"] == 2
        assert row["margin"] == pytest.approx(found[""][key]["margin"])


def test_a_take_without_a_voiceprint_is_not_measured() -> None:
    takes = [given_take(name, name, [1.0, 0.0], [0.6, 0.8]) for name in ("a", "b", "c")]
    takes[0].given["voice_ge2e"] = {"cosine": None, "voiceprint": None, "clip_voiceprint": None}
    first, *others = VoiceMargin().score(takes)
    assert first is None and all(others)


def test_voiceprints_and_cosines() -> None:
    assert voiceprint(np.array([[2.0, 0.0], [0.0, 2.0]])) == pytest.approx([0.5**0.5] * 2)
    matrix = similarity_matrix(prints([1, 0], [0, 1], [0.6, 0.8]), prints([1, 0], [0, 1]))
    assert matrix == pytest.approx(np.array([[1, 0], [0, 1], [0.6, 0.8]]), abs=1e-6)


def test_a_reference_is_read_once(ge2e: VoiceGe2e, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = VoiceHuman()
    metric.load()
    takes = [take_of(corpora, EREWHON, human=corpora / JFK.name) for _ in range(2)]
    first = metric.score(takes[:1])
    monkeypatch.setattr("evaluation.metrics.voice.read_clip", None)
    assert metric.score(takes[1:]) == first


def test_a_reference_that_cannot_be_read_is_named(ge2e: VoiceGe2e, corpora: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no audio")
    with pytest.raises(EvaluationError, match=r"broken\.wav: the audio cannot be read"):
        ge2e.score([take_of(corpora, JFK, reference=tmp_path / "broken.wav")])


def test_without_weights_it_is_not_measured(tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise WeightsMissing(f"the weights {name} are not here; run: voxmill models pull {name}")

    monkeypatch.setattr("pipeline.voice.encoders.resolve", missing)
    items = [Item("hello", "en", reference=corpora / JFK.name)]
    run = create_run(run_folder(tmp_path), toy_settings(Hum()), items, [0])
    generate(run, Hum())
    done = score(run, [VoiceEcapa()])
    assert "voxmill models pull ecapa" in done.not_measured["voice_ecapa"] and not done.rows
