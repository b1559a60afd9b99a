"""`decouple` with its real stages on real speech: what they measure of planted clips, and a run of a real checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from described_speech import describe

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.query.views import query
from catalogs.weights.registry import available
from pipeline.engine.worker import Worker
from pipeline.synthesis.decouple import decouple
from pipeline.synthesis.generate_speech import store_speech
from pipeline.synthesis.pairs import DecoupleSession, Pair
from pipeline.synthesis.requests import SpeechRequest, speech_recordings
from pipeline.synthesis.settings import DecoupleSettings, load_decouple_settings

pytestmark = pytest.mark.skipif(
    not all(available(name) for name in ("whisper-base", "ge2e", "silero-vad", "dnsmos")),
    reason="weights of the profile small are not here: voxmill models pull small",
)

Planted = dict[str, tuple[str, str, np.ndarray, int, dict[str, Any]]]
"""By name: the described segment, the text asked for, the clip that a model might have made, and measures of the source."""


@pytest.fixture(scope="module")
def corpus(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers of RAVDESS, four clips each; each described by its style."""
    from speech_corpus import chosen_clips, commit_speaker

    from catalogs.corpus.commit import bind_fingerprint, create_corpus

    root = tmp_path_factory.mktemp("real") / "corpus"
    create_corpus(root)
    bind_fingerprint(root, "0123456789abcdef")
    speakers = [(name, clips) for name, clips in chosen_clips(corpora, 4, 3).items() if name.startswith("ravdess")]
    for name, entries in speakers[:2]:
        commit_speaker(root, corpora, name, entries)
    # RAVDESS' two sentences share a word: one text that is distant from both.
    commit_speaker(root, corpora, speakers[2][0], speakers[2][1][:1], "my neighbor paints wooden chairs")
    for path in root.glob("annotations/acoustic/*/*.parquet"):
        ids = pq.ParquetFile(path).read(["segment_id"]).column("segment_id").to_pylist()
        describe(root, path.stem, ids, ("calm",))
    return root


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[Worker]:
    """The stages after the generation, loaded."""
    found = [Worker(group.stages, str(tmp_path_factory.mktemp("marks"))) for group in DecoupleSettings().groups()[1:]]
    for worker in found:
        worker.load()
    return found


def measured(corpus: Path, planted: Planted, folder: Path, workers: list[Worker]) -> dict[str, dict[str, Any]]:
    """Return the rows of `decoupled` of planted clips, by name."""
    opened = Corpus(corpus)
    pairs, requests = {}, {}
    for name, (described, text, _, _, facts) in planted.items():
        shard, row = opened.place(described)
        place: dict[str, Any] = {
            "described_shard": shard,
            "described_row": row,
            "timbre_shard": shard,
            "timbre_row": row,
        }
        pairs[name] = Pair(name, described, "en", text=text, **place, **facts)
        requests[name] = SpeechRequest(text, 0, "en")
    recordings = speech_recordings(requests, "planted", "planted")
    session = DecoupleSession(
        "planted", "", str(folder), recordings, requests=requests, corpus=str(corpus), pairs=pairs, found={}
    )
    for recording in recordings:
        _, _, samples, rate, _ = planted[recording.source.source_id]
        store_speech(session, recording, samples, rate, "stop", folder)
    for worker in workers:
        done, _ = worker.run(session, marked=False)
        assert done is session and not session.quarantine
    return session.found


def test_planted_errors_have_their_reasons(corpus: Path, workers: list[Worker], tmp_path: Path) -> None:
    opened = Corpus(corpus)
    rows = opened.index.to_pylist()
    voices = sorted({row["speaker"] for row in rows})[:2]
    # Each speaker says two sentences.
    own = {row["text"]: row["segment_id"] for row in rows if row["speaker"] == voices[0]}
    other = {row["text"]: row["segment_id"] for row in rows if row["speaker"] == voices[1]}
    source_text, text = sorted(own)
    source = own[source_text]
    good, rate = opened.read_audio(own[text])
    stranger, other_rate = opened.read_audio(other[text])
    low = {"pitch_hz": 60.0, "rate_sps": 4.0, "energy_db": -60.0, "pitch_range_st": 1.0}
    planted: Planted = {
        "right": (source, text, good, rate, {}),
        "silent": (source, text, np.zeros_like(good), rate, {}),
        "wrong_text": (source, "my neighbor paints wooden chairs", good, rate, {}),
        "stops_early": (source, text, good[: len(good) // 2], rate, {}),
        "other_voice": (source, text, stranger, other_rate, {}),
        "repeats": (source, text, np.concatenate([good, good]), rate, {}),
        "pitch_differs": (source, text, good, rate, low),
        "softer": (source, text, good * 0.5, rate, low | {"pitch_hz": 120.0, "rate_sps": 8.0}),
    }
    found = measured(corpus, planted, tmp_path, workers)
    right, differs, softer = (found[name] for name in ("right", "pitch_differs", "softer"))
    assert right["reasons"] == [] and right["accepted"]
    assert right["cer"] < 0.1 and right["cosine"] == right["source_cosine"] > 0.65
    for name, row in found.items():
        assert name in ("right", "softer") or (name in row["reasons"] and not row["accepted"]), (name, row["reasons"])
    # Measures of a source that are not known reject nothing.
    assert right["pitch_st"] is None and right["rate_octaves"] is None
    assert softer["energy_db"] == pytest.approx(differs["energy_db"] - 6.02, abs=0.3)
    assert softer["pitch_st"] == pytest.approx(differs["pitch_st"] - 12, abs=0.1)
    assert softer["rate_octaves"] == pytest.approx(differs["rate_octaves"] - 1, abs=0.05)
    assert differs["range_st"] is not None and differs["expressive"] is None


def test_a_real_checkpoint_runs_to_its_end(corpus: Path, golden: Path, tmp_path: Path) -> None:
    """The golden checkpoint has random weights: everything that it says is rejected, with reasons."""
    torch.set_num_threads(1)
    out = tmp_path / "out"
    overrides = [
        "engine.executor=inline",
        "attempts=1",
        "pairing.min_expressive=0",
        "pairing.held_out=0",
        "pairing.own_timbre=true",
    ]
    settings = load_decouple_settings(None, overrides)
    summary = decouple(corpus, golden / "checkpoint", out, settings, limit=2)
    assert summary.pairs == summary.clips == 2 and summary.generate_s > 0
    assert summary.accepted == 0 and summary.rejected and fsck(out) == []
    columns, rows = query(out, "SELECT accepted, reasons, ending, model, attempt FROM decoupled")
    assert all(not row[0] and row[1] and row[3] and row[4] == 1 for row in rows), columns
    assert query(out, "SELECT bool_and(synthetic) FROM segments")[1] == [(True,)]
    # The same pair and seed give the same clip: its id and its length are those of another run.
    again = tmp_path / "again"
    decouple(corpus, golden / "checkpoint", again, settings.model_copy(update={"unit": 1}), limit=2)
    assert _clips(out) == _clips(again)


def _clips(out: Path) -> set[tuple[str, float]]:
    return {(row["source_id"], row["duration_s"]) for row in Corpus(out)}
