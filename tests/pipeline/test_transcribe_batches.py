"""Segments through the recognizer side by side: the same words, times and scores as one by one; halved without memory."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes.recordings import write
from sessions import make_stage, run_stages, session_of

from pipeline.records import Session
from pipeline.speech.call_batches import CallBatcher
from pipeline.speech.language import DetectedLanguage
from pipeline.speech.whisper_model import Model
from pipeline.stages.transcribe import Transcribe

pytestmark = pytest.mark.usefixtures("encoded_once")
CLIPS = ("read/LJ002-0020.flac", "multi/cosyvoice_zh.flac", "ravdess/actor_02/03-01-01-01-01-01-02.flac")
Languages = dict[str, DetectedLanguage]


def transcribe(**settings: Any) -> Transcribe:
    stage = make_stage("transcribe", threads=1, beam_size=2, second_pass_on="all", **settings)
    assert isinstance(stage, Transcribe)
    return stage


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Both devices, where CTranslate2 has a GPU."""
    import ctranslate2

    if request.param == "cuda" and not ctranslate2.get_cuda_device_count():
        pytest.skip("CTranslate2 has no GPU here")
    return str(request.param)


@pytest.fixture(scope="module")
def cut(corpora: Path, device: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Languages]:
    """Real clips of two languages and several lengths, cut into five segments, and what their recordings speak."""
    samples, rate = soundfile.read(corpora / "read" / "jfk.flac", dtype="float32")
    start = write(tmp_path_factory.mktemp("cut") / "start.wav", samples[: 5 * rate], rate)
    session = run_stages(session_of(start, *(corpora / name for name in CLIPS)), "decode", "detect_speech", "segment")
    return session, transcribe(device=device).find_languages(session)


@pytest.mark.parametrize(("margin_s", "batch_size"), [(6.0, 3), (None, 6)])
def test_segments_side_by_side_are_heard_as_they_are_one_by_one(
    cut: tuple[Session, Languages],
    margin_s: float | None,
    batch_size: int,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts, words with times, scores and the second pass, three at once: as asked for, or after a batch that did not fit."""
    session, languages = cut
    one_by_one = transcribe(batch_size=1, window_margin_s=margin_s, device=device)
    one_by_one.known_languages = languages
    alone = one_by_one(copy.deepcopy(session))
    sizes: list[int] = []
    compute = Model._compute

    def short(self: Model, key: Any, calls: list[Any]) -> Any:
        if len(calls) > 3:
            raise RuntimeError("CUDA failed with error out of memory")
        sizes.append(len(calls))
        return compute(self, key, calls)

    monkeypatch.setattr(Model, "_compute", short)
    side_by_side = transcribe(batch_size=batch_size, window_margin_s=margin_s, device=device)
    if margin_s is not None:
        side_by_side.known_languages = languages
    together = side_by_side(copy.deepcopy(session))
    # With a margin only clips of like length have windows of one length.
    assert max(sizes) == (3 if margin_s is None else 2), "the network was given several clips at once"
    assert side_by_side.halved == ([3] if margin_s is None else [])
    assert not together.quarantine and len(list(alone.alive())) >= 5
    assert all(segment.text for segment in together.alive())
    for one, other in zip(alone.alive(), together.alive(), strict=True):
        assert (one.text, one.language, one.flags) == (other.text, other.language, other.flags)
        assert [word.word for word in one.words] == [word.word for word in other.words]
        times = [[(word.start, word.end) for word in segment.words] for segment in (one, other)]
        assert np.allclose(times[0], times[1], atol=0.041), "within two of the model's steps of 20 ms"
        for name in ("asr_logprob", "no_speech_p", "compression_ratio", "language_p", "agreement_cer"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=0.01), name


def test_jobs_are_answered_together_and_in_order() -> None:
    batches: list[tuple[Any, list[int]]] = []

    def compute(key: Any, values: list[int]) -> list[int]:
        batches.append((key, sorted(values)))
        return [10 * value for value in values]

    gathering = CallBatcher(compute)
    found: dict[int, list[int]] = {}

    def job(number: int) -> None:
        # The second one is through after one call; the others continue without it.
        first = gathering.call("a", number)
        found[number] = [first] if number == 1 else [first, gathering.call("a" if number else "b", first)]

    gathering.run([lambda n=n: job(n) for n in range(4)])  # type: ignore[misc]
    assert found == {0: [0, 0], 1: [10], 2: [20, 200], 3: [30, 300]}
    assert batches[0] == ("a", [0, 1, 2, 3]) and sorted(batches[1:], key=str) == [("a", [20, 30]), ("b", [0])]
    assert not gathering.in_job


def test_an_error_of_a_batch_reaches_its_jobs_and_the_caller() -> None:
    def compute(key: Any, values: list[int]) -> list[int]:
        raise MemoryError(key)

    gathering = CallBatcher(compute)
    ended: list[int] = []

    def job() -> None:
        try:
            gathering.call("a", 1)
        finally:
            ended.append(threading.get_ident())

    with pytest.raises(MemoryError):
        gathering.run([job] * 3)
    assert len(set(ended)) == 3, "all have ended before the error is raised"
    gathering.run([])
