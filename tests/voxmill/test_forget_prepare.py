"""What was forgotten does not come back: `prepare`, `retry` and `import` refuse the same bytes, and copies of it are rejected."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes.chaos_run import CheapConfig
from fakes.recordings import write

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.exchange.importing import import_corpus
from catalogs.query.views import query
from pipeline.duplicates.forgotten import repeats
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.prepare import prepare
from pipeline.retry import retry
from pipeline.stages.fingerprint_audio import FingerprintAudioConfig
from voxmill import forget

RATE = 16_000


class Printed(CheapConfig):
    """Cheap stages, and the real fingerprints of audio."""

    def groups(self) -> list[StageGroup]:
        """All stages in one group."""
        stages = [stage for group in super().groups() for stage in group.stages]
        stages.append(StageSpec("fingerprint_audio", FingerprintAudioConfig()))
        return [replace(super().groups()[0], stages=tuple(stages))]


def babble(seconds: float, seed: int) -> np.ndarray:
    """float32 [S]: syllables of changing pitch, and some noise."""
    dice = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = np.interp(times, np.arange(0, seconds, 0.2), dice.uniform(100, 300, len(np.arange(0, seconds, 0.2))))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tones = [np.interp(times, np.arange(0, seconds, 0.1), a) for a in dice.uniform(0, 1, (20, round(seconds * 10)))]
    voiced = sum(level * np.sin((k + 1) * phase) for k, level in enumerate(tones)) / 20
    return np.asarray(0.5 * voiced + 0.003 * dice.standard_normal(len(times)), np.float32)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two recordings, of which one was forgotten."""
    folder = tmp_path_factory.mktemp("site")
    for name, seed in (("a", 1), ("b", 2)):
        write(folder / "sources" / name / "talk.wav", babble(6.0, seed), RATE)
    run(folder)
    assert len(stored(folder)) == 2
    assert forget(folder / "corpus", recording=str(folder / "sources/a/talk.wav"), yes=True).problems == ()
    return folder


def run(folder: Path, *more: Path, **options: Any) -> Any:
    config = Printed(unit_s=1.0, engine={"executor": "inline"}, describe="none", thresholds={"require_text": False})
    return prepare([str(folder / "sources"), *map(str, more)], folder / "corpus", config, **options)


def stored(folder: Path) -> list[str]:
    """The ends of the recordings' paths."""
    rows = query(folder / "corpus", "select path from recordings")[1]
    return sorted("/".join(Path(path).parts[-2:]) for (path,) in rows)


@pytest.mark.parametrize("redo", [False, True])
def test_the_same_bytes_are_refused(site: Path, tmp_path: Path, redo: bool) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "renamed.wav").write_bytes((site / "sources/a/talk.wav").read_bytes())
    summary = run(site, tmp_path / "more", redo=redo)
    reasons = {row["error"].partition(" (")[0] for row in summary.quarantined}
    assert reasons == {"it was forgotten and is not taken again"}
    assert len(summary.quarantined) == 2 and summary.sessions == redo
    assert stored(site) == ["b/talk.wav"]
    assert fsck(site / "corpus") == []


def test_retry_does_not_bring_it_back(site: Path) -> None:
    run(site)
    rows = query(site / "corpus", "select cause, stage from quarantine where path like '%/a/talk.wav'")[1]
    assert rows == [("data", "sources")]
    config = Printed(engine={"executor": "inline"}, describe="none", thresholds={"require_text": False})
    assert retry(site / "corpus", config, causes=("data",)).sessions == 0
    assert "a/talk.wav" not in stored(site)


@pytest.mark.parametrize("ending", ["mp3", "flac"])
def test_a_re_encoded_copy_is_rejected_and_none_of_it_is_stored(site: Path, tmp_path: Path, ending: str) -> None:
    samples, _ = soundfile.read(site / "sources/a/talk.wav", dtype="float32")
    subtype, gain = ("MPEG_LAYER_III", 0.5) if ending == "mp3" else ("PCM_16", 1.0)
    write(tmp_path / ending / f"copy.{ending}", gain * samples, RATE, subtype)
    write(tmp_path / ending / "other.wav", babble(6.0, len(ending) + 70), RATE)
    run(site, tmp_path / ending)
    sql = f"select split_part(path, '/', -1), kept, reasons, shard is null from segments where path like '{tmp_path}%'"
    rows = query(site / "corpus", sql)[1]
    copies = [row[1:] for row in rows if row[0] == f"copy.{ending}"]
    assert copies and all(row == (False, ["forgotten"], True) for row in copies)
    assert any(kept for name, kept, *_ in rows if name == "other.wav")
    assert fsck(site / "corpus") == []


def test_prints_of_other_audio_are_not_taken_for_it() -> None:
    dice = np.random.default_rng(3)
    one, two, three = (dice.integers(1, 2**16, 200).astype(np.uint16) for _ in range(3))
    assert repeats([one, two, np.zeros(0, np.uint16)], [one]) == {0}
    # A jingle of a fifth in a longer segment stays; a segment that is cut at other times does not.
    jingle = np.concatenate([one[:30], three[:170]])
    assert repeats([jingle, one[40:160]], [one]) == {1}
    assert repeats([two], []) == set() == repeats([], [one])


def test_an_import_refuses_what_was_forgotten(tmp_path: Path) -> None:
    corpus, table = tmp_path / "imported", tmp_path / "table.jsonl"
    clips = [write(tmp_path / f"{n}.wav", babble(2.0, n), RATE) for n in (1, 2)]
    lines = [{"audio_filepath": path.name, "duration": 2.0, "text": "one"} for path in clips]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert import_corpus(table, corpus).clips == 2
    ((name,),) = query(corpus, "select source_id from recordings order by path limit 1")[1]
    assert forget(corpus, recording=name, yes=True).problems == ()
    # Its unit has a record: the rows are skipped. Under another title they are new ones.
    assert import_corpus(table, corpus).clips == 0
    other = table.rename(tmp_path / "renamed.jsonl")
    again = import_corpus(other, corpus)
    assert again.clips == 0 or len(Corpus(corpus)) == 2
    assert again.reasons.get("it was forgotten and is not taken again") == 1
