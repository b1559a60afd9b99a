"""Shards give back exactly what was written, at random, to us and to `datasets`."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from corpus_builders import RATE, make_unit, tone

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import INDEX, SEGMENTS
from catalogs.corpus.shards import BATCH_ROWS, Shard


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("shards") / "c"
    create_corpus(root)
    commit_unit(root, make_unit("long", 150, seconds=0.6))
    commit_unit(root, make_unit("short", 4))
    return Corpus(root)


def test_rows_and_audio_come_back_by_id_and_by_place(corpus: Corpus) -> None:
    wanted = [row for row in corpus if row["shard"]]
    assert len(wanted) == 149 + 3
    random.Random(0).shuffle(wanted)
    for row in wanted:
        full = corpus.segment(row["segment_id"])
        assert {name: full[name] for name in INDEX.names} == row
        assert full["words"][0]["word"] == "good"
        audio, rate = corpus.read_audio(row["segment_id"])
        expected = tone(row["duration_s"], 150.0 + 10 * row["seq"])
        assert rate == RATE
        np.testing.assert_array_equal(np.round(audio * 32768).astype(np.int16), expected)


def test_the_shard_is_uncompressed_batches_of_64(corpus: Corpus) -> None:
    shard = max((corpus.shard(path.relative_to(corpus.path).as_posix()) for path in corpus.files("segments")), key=len)
    sizes = [shard.reader.get_batch(n).num_rows for n in range(shard.reader.num_record_batches)]
    assert sizes == [BATCH_ROWS, BATCH_ROWS, 149 - 2 * BATCH_ROWS]
    assert len(shard) == 149
    assert shard.schema.names == SEGMENTS.names
    with pytest.raises(IndexError):
        shard.row(149)


def test_audio_is_a_view_of_the_file(corpus: Corpus) -> None:
    name = corpus.files("segments")[0].relative_to(corpus.path).as_posix()
    before = pa.total_allocated_bytes()
    buffers = [corpus.shard(name).audio_buffer(0) for _ in range(100)]
    assert len({buffer.address for buffer in buffers}) == 1
    assert pa.total_allocated_bytes() - before < buffers[0].size


def test_a_stretch_of_a_clip_can_be_read(corpus: Corpus) -> None:
    name = corpus.files("segments")[0].relative_to(corpus.path).as_posix()
    whole, rate = corpus.shard(name).read_audio(0)
    part, _ = corpus.shard(name).read_audio(0, 0.1, 0.25)
    np.testing.assert_array_equal(part, whole[round(0.1 * rate) : round(0.25 * rate)])
    assert len(corpus.shard(name).read_audio(0, 99.0)[0]) == 0


def test_a_pickled_corpus_reads_in_another_place(corpus: Corpus) -> None:
    segment = next(row["segment_id"] for row in corpus if row["shard"])
    expected, _ = corpus.read_audio(segment)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(corpus)).read_audio(segment)[0], expected)


def test_hard_rejected_segments_have_a_row_and_no_audio(corpus: Corpus) -> None:
    rejected = [row for row in corpus if row["reasons"]]
    assert [row["reasons"] for row in rejected] == [["too_short"], ["too_short"]]
    for row in rejected:
        assert row["shard"] is None
        assert row["row"] is None
        with pytest.raises(KeyError, match="hard rule"):
            corpus.read_audio(row["segment_id"])


def test_datasets_reads_a_shard_with_an_audio_feature(corpus: Corpus, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = str(corpus.files("segments")[0])
    data = datasets.load_dataset("arrow", data_files=path, split="train", cache_dir=str(tmp_path))
    assert isinstance(data.features["audio"], datasets.Audio)
    row = data.cast_column("audio", datasets.Audio(decode=False))[0]
    audio, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
    expected, _ = Shard(path).read_audio(0)
    assert rate == RATE
    np.testing.assert_array_equal(audio, expected)
    assert row["audio"]["path"] == f"{row['segment_id']}.flac"
    assert row["words"][0]["word"] == "good"


def test_real_speech_survives_bit_for_bit(corpora: Path, tmp_path: Path) -> None:
    wav = next(iter(sorted(corpora.rglob("*.wav"))), None) or next(iter(sorted(corpora.rglob("*.flac"))))
    samples, rate = soundfile.read(wav, dtype="int16", always_2d=True)
    sink = io.BytesIO()
    soundfile.write(sink, samples[:, 0], rate, format="FLAC", subtype="PCM_16")
    unit = make_unit("real", 1)
    rows = [dict(unit.rows[0], audio=sink.getvalue(), sample_rate=rate)]
    create_corpus(tmp_path / "c")
    commit_unit(tmp_path / "c", make_unit("real", 1, rows=rows))
    audio, read_rate = Corpus(tmp_path / "c").read_audio(rows[0]["segment_id"])
    assert read_rate == rate
    np.testing.assert_array_equal(np.round(audio * 32768).astype(np.int16), samples[:, 0])
